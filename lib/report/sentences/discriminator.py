"""What the metrics of memorisation show of a discriminator: its logits, its verdict, the D-probe."""

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join, plain
from lib.evaluation.results import ARMS, read_metrics
from lib.memorisation import PART_METRICS, SETS, verdict
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


def logits(metrics):
    """The mean logits of the four sets at the last evaluation."""
    last = metrics.iloc[-1]
    means = {name: plain(last[f"{name}_mean"]) for name in SETS}
    return (
        f"At the last evaluation (step {last['step']:,.0f}) the mean logit of real stems is {means['real_train']} on "
        f"training tracks and {means['real_heldout']} on held-out ones; of generated stems {means['generated_train']} "
        f"and {means['generated_heldout']}."
    )


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
    """The table of `verdicts` in words: a line per arm, over its seeds."""
    lines = []
    for arm, rows in table.groupby(table.index.map(lambda name: arm_and_seed(name)[0]), sort=False):
        words = rows["verdict"].value_counts()
        seeds = f"in {join(f'{count} of {len(rows)} seeds it **{word}**' for word, count in words.items())}"
        r_v, tpr, tnr = (rows[name].astype(float) for name in ("r_v_sigma", "tpr_heldout", "tnr_heldout"))
        lines.append(
            f"- **{ARMS.get(arm, arm)}**: {seeds}. r_v {_range(r_v)}; it recognises {_range(tpr, PERCENT)} "
            f"of real and {_range(tnr, PERCENT)} of generated patches of held-out tracks. {rows['reason'].iloc[0]}"
        )
    return "\n".join(lines)


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
    means = cells[["memory", "accuracy", "r_v_sigma", "tpr_heldout", "bce_heldout"]].mean()
    bare = means.xs("none", level="cure")
    lost = ", ".join(f"{plain(value)} at {segments}" for segments, value in bare["memory"].items())
    grows = bare["memory"].iloc[0] > bare["memory"].iloc[-1] + 0.1
    text = (
        f"Without a cure, the share of real against generated that is lost on held-out tracks is {lost} segments "
        f"(r_v + r_f; r_v alone {', '.join(map(plain, bare['r_v_sigma']))}): "
    )
    text += (
        "**the fewer segments, the more a discriminator relies on memory.** "
        if grows
        else "**memory plays no great part here, whatever the number of segments.** "
    )
    count = 16 if 16 in bare.index else bare["memory"].idxmax()
    base, cured = bare.loc[count], means.xs(count, level="segments").drop("none").sort_values("memory")
    if cured.empty:
        return text
    less = cured["memory"] <= base["memory"] - 0.1
    gains = less & (cured["accuracy"] >= base["accuracy"] - 0.05)
    best = (cured[gains] if gains.any() else cured).iloc[0]
    text += (
        f"At {count} segments the best cure is **{best.name}**: lost {plain(best['memory'])} instead of "
        f"{plain(base['memory'])}, r_v {plain(best['r_v_sigma'])} instead of {plain(base['r_v_sigma'])}, held-out TPR "
        f"{best['tpr_heldout']:.0%} instead of {base['tpr_heldout']:.0%}, held-out cross-entropy "
        f"{plain(best['bce_heldout'])} instead of {plain(base['bce_heldout'])}. "
    )
    helpful = [f"{name} ({plain(value)})" for name, value in cured.loc[gains, "memory"].items()]
    text += f"At least 0.1 is gained by {join(helpful)}. " if helpful else "No cure gains as much as 0.1. "
    if not less.all():
        text += f"Less, or nothing, by {join(cured.index[~less])}. "
    for name, row in cured[less & ~gains].iterrows():
        text += (
            f"{name.capitalize()} also loses less ({plain(row['memory'])}), but only because it discriminates worse: "
            f"its balanced accuracy on held-out patches is {row['accuracy']:.0%} instead of {base['accuracy']:.0%}. "
        )
    return text.strip()


def outcomes(arms):
    """SDR and log-spectral distance at 8 to 16 kHz (dB) of every <arm>-<seed> on the test tracks.

    Medians over tracks, then means over stems. arms: `lib.evaluation.results.arms_table`, or arms.csv.
    """
    rows = arms[(arms["test_set"] == "test") & arms["seed"].notna()]
    names = rows["arm"] + "-" + rows["seed"].astype(int).astype(str)
    medians = rows.groupby([names, "target"])[["SDR", "lsd_8k_16k"]].median()
    return medians.groupby(level=0).mean()
