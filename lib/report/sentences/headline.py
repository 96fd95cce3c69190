"""The result of a run: its headline, the tiles under it, and every finding."""

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.common.words import join, plain, signed
from lib.evaluation.results import ARMS, arms_table
from lib.evaluation.stats import arm_means
from lib.report.sentences import arms
from lib.report.sentences.arms import comparisons, gan_helps, seed_noise
from lib.report.sentences.discriminator import diagnoses, gan_runs, verdicts
from lib.report.tables import DIFFERENCE, TEST

TEST_SETS = {
    "test": "the test tracks of this run",
    "shifted": "test tracks in styles never trained on",
    "real excerpt": "six seconds of real music",
}


def headline(run):
    """(headline, paragraph) of a run's folder.

    The headline says whether a discriminator raised the SDR; the paragraph, what became of the first report's
    differences, what each arm shows against L1, and how many discriminators overfit.
    """
    try:
        differences = comparisons(arms_table(run))
    except UserError:  # no pair of arms
        return "No arm has been trained with a discriminator yet.", seed_noise()
    alone = arms.discriminator_alone(differences)
    if alone.empty:
        return "No arm has been trained with a discriminator yet.", seed_noise()
    found, rows = arms.verdicts(alone), alone.drop("all", level="stem")
    gains = [f"{stem} ({ARMS.get(arm, arm)})" for arm, _, stem in found.index[found == "helps"]]
    lead = "Whether a discriminator raises the SDR is not decided here."
    if gains:
        lead = f"A discriminator raised the SDR of {join(gains)}."
    elif (rows["seeds"] > 1).all() and (rows["high"] < arms.NEGLIGIBLE["SDR"]).all():
        lead = "A discriminator did not raise the SDR."
    tracks = "test tracks" + " of the embedded corpus" * (read_json(run / "data.json")["root"] == "embedded")
    words = verdicts(gan_runs(run))["verdict"]
    overfit = int((words == "overfits").sum())
    return lead, (
        f"{seed_noise()} Trained again here from one common start, on {tracks}, by SDR "
        f"{'; '.join(_against(differences))}. The first report suspected that its discriminator overfits; of "
        f"the {len(words)} here, {overfit or 'none'} {'do' if overfit > 1 else 'does'}."
    )


def tiles(table):
    """[(name, SDR, difference from L1)] of the arms on the test tracks, values as text. table: sdr_table.csv."""
    rows = table[table["section"] == TEST].set_index("system")["all"]
    without = ARMS["mixture"], ARMS["pretrain"]
    rows = rows.drop([name for name in rows.index if name.startswith(DIFFERENCE) or name in without])
    base = rows.get(ARMS["l1"])
    return [
        (name, plain(value), signed(value - base) if base is not None and name != ARMS["l1"] else "")
        for name, value in rows.items()
    ]


def findings(run):
    """Every finding of a run's folder: noise of seeds, `scores`, the verdicts on its discriminators."""
    sentences = [seed_noise(), *scores(run)]
    if set(arms_table(run)["arm"]) - {"l1", "mixture"}:
        sentences += [f"The discriminator of {line}" for line in diagnoses(verdicts(gan_runs(run)))]
    return sentences


def scores(run):
    """The scores in sentences: mean SDR on every test set, and which stems an arm helps or harms."""
    tracks, sentences = arms_table(run), []
    for test_set, rows in tracks.groupby("test_set", sort=False):
        means = arm_means(rows)["SDR"].groupby("arm", sort=False).mean()
        shown = ", ".join(f"{ARMS.get(arm, arm)} {plain(value)} dB" for arm, value in means.items())
        sentences.append(f"On {TEST_SETS.get(test_set, test_set)}, mean SDR over the stems: {shown}.")
    if "l1" in (trained := set(tracks["arm"])) and trained - {"l1", "mixture"}:
        sentences += [f"By SDR {words}." for words in _against(comparisons(tracks))]
    return sentences


def _against(differences):
    """What every arm does to the stems by SDR, against which other. differences: `comparisons`."""
    return [f"against {ARMS.get(base, base)}, {words}" for (_, base), words in gan_helps(differences).items()]
