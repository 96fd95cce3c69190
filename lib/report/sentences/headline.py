"""The result of a run: its headline, the tiles under it, and every finding."""

import numpy as np

from lib.common.errors import UserError
from lib.common.words import join
from lib.evaluation.results import ARMS, arms_table
from lib.report.sentences import arms
from lib.report.sentences.arms import comparisons, main_findings, seed_noise
from lib.report.sentences.discriminator import gan_runs, verdict_sentences, verdicts
from lib.report.tables import DIFFERENCE, TEST


def headline(run):
    """Whether a discriminator raised the SDR in a run's folder, in a sentence."""
    try:
        alone = arms.discriminator_alone(comparisons(arms_table(run)))
    except UserError:  # no pair of arms
        return "No arm has been trained with a discriminator yet."
    if alone.empty:
        return "No arm has been trained with a discriminator yet."
    found, rows = arms.verdicts(alone), alone.drop("all", level="stem")
    if gains := [f"{stem} ({ARMS.get(arm, arm)})" for arm, _, stem in found.index[found == "helps"]]:
        return f"A discriminator raised the SDR of {join(gains)}."
    if (rows["seeds"] > 1).all() and (rows["high"] < arms.NEGLIGIBLE["SDR"]).all():
        return "A discriminator did not raise the SDR."
    return "In this run alone, it is not decided whether a discriminator raises the SDR."


def tiles(run, table):
    """[(arm, SDR, difference from L1, its 95 % interval's ends, verdict)] of the arms on the test tracks, in dB.

    run: folder; table: its sdr_table.csv. Without a pair of arms or for l1, the difference is NaN; without a second
    seed, the interval.
    """
    rows = table[table["section"] == TEST].set_index("system")["all"]
    names = {label: arm for arm, label in ARMS.items() if arm not in arms.NO_ARM}
    try:
        differences = arms.arm_differences(arms_table(run)).loc["SDR"]
    except UserError:
        differences = {}
    found = []
    for name, sdr in rows.items():
        arm = names.get(name, name)
        if name.startswith((DIFFERENCE, "Mixture")) or arm == ARMS["pretrain"]:
            continue
        if len(differences) and arm in differences.index.unique("arm"):
            row = differences.loc[(arm, "all")]
            found.append((arm, sdr, row["difference"], row["low"], row["high"], arms.verdict(row)))
        else:
            found.append((arm, sdr, np.nan, np.nan, np.nan, ""))
    return found


def findings(run):
    """Every finding of a run's folder: noise of seeds, each arm's effect, the verdicts on discriminators."""
    tracks, sentences = arms_table(run), [seed_noise()]
    if "l1" in (trained := set(tracks["arm"])) and trained - {"l1", *arms.NO_ARM}:
        sentences += main_findings(comparisons(tracks, [*arms.NEGLIGIBLE]))
        sentences += [f"The discriminator of {line}" for line in verdict_sentences(verdicts(gan_runs(run)))]
    return sentences
