"""What the instruments say of a discriminator, in words: its logits, its verdict, the D-probe."""

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join, plain
from lib.evaluation.results import ARMS, read_metrics
from lib.memorisation import PART_METRICS, SETS, verdict
from lib.runs.folders import arm_and_seed, runs_in


def discriminator_metrics(folder):
    """`metrics.jsonl` of an arm that has a discriminator; raises `UserError` where it has none."""
    metrics = read_metrics(folder)
    if "r_v_sigma" not in metrics:
        raise UserError(f"{folder} was trained without a discriminator; choose a GAN arm.")
    return metrics


def gan_runs(run):
    """{<arm>-<seed>: metrics} of all arms of a run's folder that have a discriminator, "gan" first, each by its seeds.

    Raises `UserError` when there are none.
    """
    found = {folder.name: read_metrics(folder) for _, _, folder in runs_in(run, "metrics.jsonl")}
    found = {name: metrics for name, metrics in found.items() if "r_v_sigma" in metrics}
    if not found:
        raise UserError(f"{run} holds no arm with a discriminator; run 02-train with gan among its arms.")
    return found


def _arm(name):
    return arm_and_seed(name)[0]


def logits(metrics):
    """What the four sets of logits say at the last evaluation."""
    last = metrics.iloc[-1]
    means = {name: plain(last[f"{name}_mean"]) for name in SETS}
    return (
        f"At the last evaluation (step {last['step']:,.0f}) the mean logit of real stems is {means['real_train']} on "
        f"training tracks and {means['real_heldout']} on held-out ones; of generated stems {means['generated_train']} "
        f"and {means['generated_heldout']}."
    )


def verdicts(runs):
    """The verdict on every run with the figures that made it so: DataFrame, one row per run of `gan_runs`."""
    rows = {}
    for name, metrics in runs.items():
        last = metrics.iloc[-1]
        word, reason = verdict(last)
        figures = {figure: last[figure] for figure in ("tpr_train", "tnr_train", *PART_METRICS, "p")}
        rows[name] = {"verdict": word, "reason": reason, "step": int(last["step"])} | figures
    return pd.DataFrame(rows).T.rename_axis("run")


def diagnoses(table):
    """The verdicts of `verdicts`, a line per arm: in words, over its seeds."""
    lines = []
    for arm, rows in table.groupby(table.index.map(_arm), sort=False):
        words = rows["verdict"].value_counts()
        seeds = f"in {join(f'{count} of {len(rows)} seeds it **{word}**' for word, count in words.items())}"
        r_v, tpr, tnr = (rows[name].astype(float) for name in ("r_v_sigma", "tpr_heldout", "tnr_heldout"))
        lines.append(
            f"- **{ARMS.get(arm, arm)}**: {seeds}. r_v {_range(r_v)}; it recognises {_range(tpr, '%')} "
            f"of real and {_range(tnr, '%')} of generated patches of held-out tracks. {rows['reason'].iloc[0]}"
        )
    return "\n".join(lines)


def _range(values, unit=""):
    low, high = values.min(), values.max()
    if unit:
        return f"{low:.0%}" if round(low, 2) == round(high, 2) else f"{low:.0%} to {high:.0%}"
    return plain(low) if round(low, 2) == round(high, 2) else f"{plain(low)} to {plain(high)}"


def probe(table):
    """What the D-probe shows: where memory is visible without a cure, and what the cures do there.

    By r_v + r_f, the share of the distance between real and generated that is lost on held-out tracks. What knows
    nothing has nothing to lose: a cure counts only if it is right as often on held-out patches, within 5 %.
    """
    table = table.assign(
        memory=table["r_v_sigma"] + table["r_f"], right=(table["tpr_heldout"] + table["tnr_heldout"]) / 2
    )
    means = table.groupby(["segments", "cure"])[["memory", "right", "r_v_sigma", "tpr_heldout", "bce_heldout"]].mean()
    bare = means.xs("none", level="cure")
    count = 16 if 16 in bare.index else bare["memory"].idxmax()
    lost = ", ".join(f"{plain(value)} at {segments}" for segments, value in bare["memory"].items())
    r_v = ", ".join(plain(value) for value in bare["r_v_sigma"])
    text = (
        f"Without a cure, the share of real against generated that is lost on held-out tracks is {lost} segments "
        + (
            f"(r_v + r_f; r_v alone {r_v}): "
            + (
                "**the fewer segments, the more a discriminator relies on memory.** "
                if bare["memory"].iloc[0] > bare["memory"].iloc[-1] + 0.1
                else "**memory plays no great part here, whatever the number of segments.** "
            )
        )
    )
    cells = means.xs(count, level="segments")
    base, cured = cells.loc["none"], cells.drop("none").sort_values("memory")
    if cured.empty:
        return text
    less = cured["memory"] <= base["memory"] - 0.1
    gains = less & (cured["right"] >= base["right"] - 0.05)
    best = (cured[gains] if gains.any() else cured).iloc[0]
    text += (
        f"At {count} segments the best cure is **{best.name}**: lost {plain(best['memory'])} instead of "
        f"{plain(base['memory'])}, r_v {plain(best['r_v_sigma'])} instead of {plain(base['r_v_sigma'])}, held-out TPR "
        f"{best['tpr_heldout']:.0%} instead of {base['tpr_heldout']:.0%}, held-out cross-entropy "
        f"{plain(best['bce_heldout'])} instead of {plain(base['bce_heldout'])}. "
    )
    helpful = [f"{name} ({plain(cured.loc[name, 'memory'])})" for name in cured.index[gains]]
    text += f"At least 0.1 is gained by {join(helpful)}. " if helpful else "No cure gains as much as 0.1. "
    if not less.all():
        text += f"Less, or nothing, by {join(cured.index[~less])}. "
    for name, row in cured[less & ~gains].iterrows():
        text += (
            f"{name.capitalize()} also loses less ({plain(row['memory'])}), but only because it discriminates worse: "
            f"its balanced accuracy on held-out patches is {row['right']:.0%} instead of {base['right']:.0%}. "
        )
    return text.strip()


def outcomes(arms, test_set="test"):
    """What became of each run's generator: {<arm>-<seed>: mean over stems of SDR (dB), LSD at 8 to 16 kHz (dB)}.

    arms: `lib.evaluation.results.arms_table`, or arms.csv.
    """
    rows = arms[(arms["test_set"] == test_set) & arms["seed"].notna()]
    names = rows["arm"] + "-" + rows["seed"].astype(int).astype(str)
    medians = rows.groupby([names, "target"])[["SDR", "lsd_8k_16k"]].median()
    return medians.groupby(level=0).mean()
