"""What the metrics of memorisation show of a discriminator: its verdict, the D-probe."""

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join, plain
from lib.evaluation.results import ARMS, read_metrics
from lib.memorisation import PART_METRICS, verdict
from lib.runs.folders import arm_and_seed, runs_in

PERCENT = "{:.0%}".format


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


def diagnoses(table):
    """The table of `verdicts` in words: a sentence per arm, over its seeds."""
    sentences = []
    for arm, rows in table.groupby(table.index.map(lambda name: arm_and_seed(name)[0]), sort=False):
        seeds = join(
            f"{count} of {len(rows)} seeds it {word}" for word, count in rows["verdict"].value_counts().items()
        )
        r_v, tpr, tnr = (rows[name].astype(float) for name in ("r_v_sigma", "tpr_heldout", "tnr_heldout"))
        sentences.append(
            f"{ARMS.get(arm, arm)}: in {seeds}. r_v {_range(r_v)}; it recognises {_range(tpr, PERCENT)} of real and "
            f"{_range(tnr, PERCENT)} of generated patches of held-out tracks."
        )
    return sentences


def _range(values, form=plain):
    low, high = round(values.min(), 2), round(values.max(), 2)
    return form(low) if low == high else f"{form(low)} to {form(high)}"


def probe(table):
    """What the D-probe shows: how memory depends on the number of segments, and which cures reduce it.

    Memory is r_v + r_f, the share of the gap between real and generated that is lost on held-out tracks. A
    discriminator that knows nothing has nothing to lose, so a cure counts only if its balanced accuracy on held-out
    patches, (TPR + TNR) / 2, is at most 0.05 lower.
    """
    memory, accuracy = table["r_v_sigma"] + table["r_f"], (table["tpr_heldout"] + table["tnr_heldout"]) / 2
    cells = table.assign(memory=memory, accuracy=accuracy).groupby(["segments", "cure"])
    means = cells[["memory", "accuracy"]].mean()
    bare = means.xs("none", level="cure")
    lost = ", ".join(f"{plain(value)} at {segments}" for segments, value in bare["memory"].items())
    text = f"Without a cure, the share of the gap lost on held-out tracks (r_v + r_f) is {lost} segments: "
    if bare["memory"].iloc[0] > bare["memory"].iloc[-1] + 0.1:
        text += "the fewer segments, the more a discriminator relies on memory."
    else:
        text += "memory plays no great part here, whatever the number of segments."
    count = 16 if 16 in bare.index else bare["memory"].idxmax()
    base, cured = bare.loc[count], means.xs(count, level="segments").drop("none").sort_values("memory")
    if cured.empty:
        return text
    less = cured[cured["memory"] <= base["memory"] - 0.1]
    worse = less["accuracy"] < base["accuracy"] - 0.05
    helpful = list(less.index[~worse])
    if not helpful:
        return f"{text} At {count} segments no cure gains as much as 0.1 without discriminating worse."
    best = plain(less.loc[helpful[0], "memory"])
    text += f" At {count} segments the best cure is {helpful[0]}: {best} instead of {plain(base['memory'])}."
    if helpful[1:]:
        text += f" At least 0.1 is also gained by {join(helpful[1:])}."
    if worse.any():
        text += f" The same gain by {join(less.index[worse])} comes only from discriminating worse."
    return text


def study(table, onsets, fits):
    """What the study of memorisation shows, a sentence each, with its scale.

    table, onsets, fits: memorisation.csv, onsets.csv and law.csv of `lib.studies.tables`.
    """
    keys = ["tracks", "minutes", "remix", "width", "seed", "mode"]
    last = table.groupby(keys).tail(5).groupby(keys).median(numeric_only=True)
    last["gap"] = last["bce_heldout"] - last["bce_train"]
    width = onsets["width"].min()
    plain_runs = onsets[(onsets["mode"] == "play") & ~onsets["remix"] & (onsets["width"] == width)]
    counts = plain_runs.groupby(["tracks", "minutes"])["onset_passes"].agg(["count", "size"])
    words = [f"{row['count']:.0f} of {row['size']:.0f} on {_tracks(*key)}" for key, row in counts.iterrows()]
    sentences = [f"Playing, a discriminator overfits in {join(words)}."]
    shortest = onsets.loc[onsets["tracks"] == 2, "minutes"].min()
    gaps = last.xs((2, shortest, False, width), level=["tracks", "minutes", "remix", "width"])["gap"]
    modes = {"play": "playing", "watch": "watching", "rest": "facing a generator at rest"}
    found = [
        f"{word} {_listed(gaps.xs(mode, level='mode'))}" for mode, word in modes.items() if mode in gaps.index.levels[1]
    ]
    sentences.append(f"At the end, the BCE gap on the same two tracks is, seed by seed: {join(found)}.")
    known = last[onsets.set_index(keys)["onset_passes"].reindex(last.index).notna()]
    others, own = known["membership_auc"].median(), known["membership_tracks"].median()
    sentences.append(
        f"Of those that overfit, the median AUC of training recordings is {plain(others)} against other tracks and "
        f"{plain(own)} against unseen thirds of the same tracks (0.5: no difference)."
    )
    if len(fits) and not fits["determined"].all():
        tracks = fits.set_index("by").loc["tracks"]
        sentences.append(
            f"How many passes it takes as tracks grow is not determined: the exponent is {plain(tracks['b'])} "
            f"({plain(tracks['b_low'])} to {plain(tracks['b_high'])}), and {tracks['censored']:.0f} of "
            f"{tracks['runs']:.0f} trainings never overfitted within {onsets['censored_passes'].max():.0f} passes."
        )
    return sentences


def _tracks(count, minutes):
    return f"{count} track{'s' if count > 1 else ''} of {60 * minutes / count:.0f} s"


def _listed(values):
    return join(plain(value) for value in values)
