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
