"""What the metrics of memorisation show of a discriminator: its verdict, the overfitting pair, the study."""

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join, plain
from lib.data.tracks import SOURCES
from lib.evaluation.results import ARMS, read_metrics
from lib.memorisation import ALLOWED, PART_METRICS, verdict
from lib.runs.cures import L1, REFERENCES
from lib.runs.folders import arm_and_seed, runs_in


def discriminator_metrics(folder):
    """`metrics.jsonl` of an arm with a discriminator; raises `UserError` for an arm without."""
    metrics = read_metrics(folder)
    if "r_v_sigma" not in metrics:
        raise UserError(f"{folder} was trained without a discriminator; choose a GAN arm.")
    return metrics


def gan_runs(run):
    """{<arm>-<seed>: metrics} of every arm of a run's folder that has a discriminator, in the order of `ARMS`.

    Raises `UserError` when there is none.
    """
    found = {folder.name: read_metrics(folder) for _, _, folder in runs_in(run, "metrics.jsonl")}
    found = {name: metrics for name, metrics in found.items() if "r_v_sigma" in metrics}
    if not found:
        raise UserError(f"{run} holds no arm with a discriminator; run 02-train with gan among its arms.")
    return found


def verdicts(runs):
    """The verdict on every run of `gan_runs` and the metrics it follows from: DataFrame, one row per run."""
    rows = {}
    for name, metrics in runs.items():
        last = metrics.iloc[-1]
        word, reason = verdict(last)
        values = {metric: last[metric] for metric in ("tpr_train", "tnr_train", *PART_METRICS, "p")}
        rows[name] = {"verdict": word, "reason": reason, "step": int(last["step"])} | values
    return pd.DataFrame(rows).T.rename_axis("run")


def verdict_sentences(table):
    """The table of `verdicts` in words: a sentence per arm, over its seeds."""
    sentences = []
    for arm, rows in table.groupby(table.index.map(lambda name: arm_and_seed(name)[0]), sort=False):
        seeds = join(
            f"{count} of {len(rows)} seeds it {word}" for word, count in rows["verdict"].value_counts().items()
        )
        sentences.append(f"{ARMS.get(arm, arm)}: in {seeds}, with an r_v of {_range(rows['r_v_sigma'].astype(float))}.")
    return sentences


def _range(values):
    low, high = round(values.min(), 2), round(values.max(), 2)
    return plain(low) if low == high else f"{plain(low)} to {plain(high)}"


def pair(table, onsets):
    """What the overfitting pair shows, a sentence for each training: the naive one first.

    table, onsets: of `lib.studies.pair.run`.
    """
    sentences = []
    for cure, rows in table.groupby("cure", sort=False):
        start = onsets.set_index("cure").loc[cure, "onset_passes"]
        gap = (rows["bce_heldout"] - rows["bce_train"]).tail(5).median()
        who = "Without a cure" if cure == "none" else f"With {cure}"
        does = "never overfits by this rule" if pd.isna(start) else f"overfits by this rule first at pass {start:.0f}"
        sentences.append(f"{who}, the discriminator {does}; at the end the BCE gap is {plain(gap)}.")
    return sentences


def counts(onsets):
    """How many of the study's trainings overfit, of those that play: DataFrame by tracks, length, width and remix."""
    rows = onsets[onsets["mode"] == "play"].copy()
    rows["seconds of each"] = (60 * rows["minutes"] / rows["tracks"]).round().astype(int)
    found = rows.groupby(["tracks", "seconds of each", "width", "remix"])["onset_passes"].agg(["size", "count"])
    return found.rename(columns={"size": "trainings", "count": "that overfit"})


def cures(table):
    """What the study of cures shows, a sentence each. table: cures.csv of `lib.studies.tables`."""
    rows = table[table["plan"] == "cures"]
    tried = rows[~rows["cure"].isin(REFERENCES)].set_index("cure")
    alone = rows.set_index("cure")["l1_heldout"].groupby(level=0).first()
    naive = rows[(rows["cure"] == "none") & rows["pair"].isin(tried["pair"])].iloc[0]
    held, failed = (
        [f"“{cure}”" for cure in tried.index[tried["onset_passes"].isna() == kept]] for kept in (True, False)
    )
    start = "never overfits" if pd.isna(naive["onset_passes"]) else f"overfits from pass {naive['onset_passes']:.0f}"
    sentences = [
        f"On one pair of tracks the naive discriminator {start}. "
        + (f"With {join(held)} it does not by the last pass" if held else "With every cure it does too")
        + (f"; with {join(failed)} it does." if failed and held else ".")
    ]
    best = tried["l1_heldout"].idxmin()
    sentences.append(
        f"The generator's L1 error on held-out tracks ends at {naive['l1_heldout']:.3f} without a cure and at "
        f"{tried['l1_heldout'][best]:.3f} with the best in this ({best})"
        + (f"; L1 alone ends at {alone[L1]:.3f}." if L1 in alone else ".")
    )
    repeated = confirmed(table)
    if not repeated:
        sentences.append("The best have not been repeated on fresh pairs yet: these are ranks of one pair, no claim.")
    else:
        fresh = table[(table["plan"] == "confirm") & (table["cure"] == "none")]
        gaps = fresh["bce_heldout"] - fresh["bce_train"]
        sentences.append(
            f"On {len(fresh)} fresh pairs the naive discriminator overfits in {fresh['onset_passes'].count()}; its BCE "
            f"gap ends at {_range(gaps)}."
        )
    for cure, (kept, pairs) in repeated.items():
        sentences.append(f"On fresh pairs {cure} keeps to the limits of a claim in {kept} of {pairs}.")
        if own := learns_less(table, cure):
            sentences[-1] += (
                f" With it the cross-entropy on its own tracks stays at {plain(own)}, where 0.69 is guessing: a part "
                "of the cure is that the discriminator learns less, and pulls less."
            )
    return [*sentences, cost(table)]


def learns_less(table, cure):
    """The median cross-entropy on its own tracks with a cure on fresh pairs, if near that of guessing; else None."""
    own = table.loc[(table["plan"] == "confirm") & (table["cure"] == cure), "bce_train"].median()
    return own if own >= 0.5 else None


def cost(table):
    """What the trainings of a table took: one in a row, with seconds and machine."""
    hours, machines = table["seconds"].sum() / 3600, join(table["machine"].unique())
    return f"Added up, these {len(table)} trainings took {hours:.1f} hours, several at a time ({machines})."


def cues(table):
    """What the naive discriminators of the study look at, a sentence each. table: cues.csv of `lib.studies.cues`."""
    share = table[table["cure"] == "none"].groupby("cue", sort=False)["share"].median()
    octaves = share[share.index.str.startswith("octave")].sort_values(ascending=False).head(2)
    stems = share.reindex([stem for stem in SOURCES if stem in share]).sort_values(ascending=False).head(2)
    hertz = [cue.removeprefix("octave at ") for cue in octaves.index]
    lattice = share[["generated rounded", "real dithered"]].abs().max()
    treble = share["above 8 kHz"]
    more = "grows" if treble < 0 else "falls"
    return [
        f"The cue is in {join(stems.index)}, around {join(hertz)}. With {stems.index[0]} exchanged between real and "
        f"generated, a naive discriminator loses {stems.iloc[0]:.0%} of the gap between them (above 100 % it takes one "
        f"for the other), with the octave at {hertz[0]} {octaves.iloc[0]:.0%} (medians of the trainings).",
        f"It is not that recordings hold integers: rounding or dithering changes the gap by {lattice:.1%} at most. "
        f"Without what lies above 8 kHz the gap {more} by {abs(treble):.0%}.",
        f"Beside another excerpt's mixture it loses {share['mixture']:.0%}: it uses its condition, but not it alone.",
    ]


def regimes(table):
    """What the map of discriminators alone shows, a sentence each. table: regimes.csv of `lib.evaluation.probe`."""
    rows = table[table["width"] == table["width"].min()].assign(gap=table["bce_heldout"] - table["bce_train"])
    steps = rows.groupby(["segments", "error", "seed"])["step"].max().min()
    last = rows[rows["step"] <= steps].groupby(["segments", "error", "seed"]).last()
    cells = last.groupby(["segments", "error"])[["gap", "sdr", "auc_heldout"]].mean()
    (few, many), (best, own) = ((level.min(), level.max()) for level in cells.index.levels)
    gap, auc = cells["gap"], cells["auc_heldout"]
    return [
        f"After as many steps, facing this generator's own estimates, its BCE gap is {plain(gap[few, own])} with {few} "
        f"segments and {plain(gap[many, own])} with {many}.",
        f"Facing estimates with {best:.0%} of that error (SDR {plain(cells['sdr'][few, best])} dB), the gap with {few} "
        f"segments is {plain(gap[few, best])}.",
        f"It then has less to go by: its AUC on held-out tracks is {plain(auc[few, best])} instead of "
        f"{plain(auc[few, own])}.",
    ]


def confirmed(table):
    """{cure: (fresh pairs of tracks on which it keeps to `ALLOWED`, all of them)}. table: cures.csv."""
    fresh, found = table[table["plan"] == "confirm"], {}
    naive = fresh[fresh["cure"] == "none"].set_index("pair")
    for cure, rows in fresh[fresh["cure"] != "none"].groupby("cure", sort=False):
        rows = rows[rows["pair"].isin(naive.index)]
        kept = rows["bce_heldout"] - rows["bce_train"] <= ALLOWED["gap"]
        kept &= rows["membership_auc"] - rows["membership_null"] <= ALLOWED["memory"]
        kept &= naive["auc_heldout"].reindex(rows["pair"]).to_numpy() - rows["auc_heldout"] <= ALLOWED["auc"]
        found[cure] = int(kept.sum()), len(kept)
    return found


def study(table, onsets, fits):
    """What the study of memorisation shows, a sentence each.

    table, onsets, fits: memorisation.csv, onsets.csv and law.csv of `lib.studies.tables`.
    """
    keys = ["tracks", "minutes", "remix", "width", "seed", "mode"]
    last = table.groupby(keys).tail(5).groupby(keys).median(numeric_only=True)
    last["gap"] = last["bce_heldout"] - last["bce_train"]
    shortest, width = onsets.loc[onsets["tracks"] == 2, "minutes"].min(), onsets["width"].min()
    gaps = last.xs((2, shortest, False, width), level=["tracks", "minutes", "remix", "width"])["gap"]
    gaps = gaps.groupby("mode").median()
    modes = {"play": "playing", "watch": "watching", "rest": "facing a generator at rest"}
    modes = {mode: word for mode, word in modes.items() if mode in gaps}
    found = join(f"{plain(gaps[mode])} {word}" for mode, word in modes.items())
    sentences = [f"On the same two tracks, the BCE gap at the end is {found} (medians of the seeds)."]
    started = onsets.set_index(keys)["onset_passes"].reindex(last.index)
    same = started.xs((2, shortest, False, width), level=["tracks", "minutes", "remix", "width"]).groupby("mode")
    began = join(str(same.count()[mode]) for mode in modes)
    sentences.append(f"Of {same.size().max()} seeds each, {began} overfit, in this order.")
    known = last[started.notna()]
    others, null, own = known[["membership_auc", "membership_null", "membership_tracks"]].median()
    sentences.append(
        "A discriminator that overfits tells its training recordings from those of other tracks with a median AUC of "
        f"{plain(others)}, where discriminators that never heard them have {plain(null)}; from unseen thirds of the "
        f"same tracks it tells them with {plain(own)}. Composed songs repeat themselves, which may be a part of that."
    )
    if len(fits) and not fits["determined"].all():
        tracks = fits.set_index("by").loc["tracks"]
        sentences.append(
            "How many passes it takes as tracks grow is not determined: "
            f"of the {tracks['runs']:.0f} trainings that play, without remix and of the smaller width, "
            f"{tracks['censored']:.0f} did not overfit by their last pass, and the exponent may lie anywhere from "
            f"{plain(tracks['b_low'])} to {plain(tracks['b_high'])}."
        )
    return sentences
