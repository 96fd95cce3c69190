"""The result of a run: its headline, the tiles under it, and every finding."""

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.common.words import join, plain, signed
from lib.evaluation.probe import read_probe
from lib.evaluation.results import ARMS, arms_table
from lib.evaluation.stats import STEMS, arm_means
from lib.report.sentences.arms import arm_differences, effect, gan_helps, published_differences
from lib.report.sentences.discriminator import diagnoses, gan_runs, probe, verdicts
from lib.report.tables import DIFFERENCE, TEST

EFFECTS = ("helps", "harms", "shows no difference in")
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
        differences = arm_differences(arms_table(run)).loc["SDR"].drop("all", level="stem")
    except UserError:  # no pair of arms
        return "No arm has been trained with a discriminator yet.", _first_report()
    effects = differences.apply(effect, axis=1, words=EFFECTS)
    gains = [f"{stem} ({ARMS.get(arm, arm)})" for arm, stem in effects.index[effects == "helps"]]
    shown = []
    for arm, words in effects.groupby("arm", sort=False):
        stems = {word: words.droplevel("arm").index[words == word] for word in EFFECTS}
        says = (f"{word} {join(found)}" for word, found in stems.items() if len(found))
        shown.append(f"{ARMS.get(arm, arm)} {join(says)}")
    count, seeds = (int(differences[name].iloc[0]) for name in ("tracks", "seeds"))
    tracks = f"{count} test tracks" + " of the embedded corpus" * (read_json(run / "data.json")["root"] == "embedded")
    words = verdicts(gan_runs(run))["verdict"]
    overfit = int((words == "overfits").sum())
    return f"A discriminator {f'raised the SDR of {join(gains)}' if gains else 'did not raise the SDR'}.", (
        f"{_first_report()} Trained again here from one common start, on {tracks} with {seeds} "
        f"seed{'s' * (seeds > 1)}, {'; '.join(shown)}. The first report suspected that its discriminator overfits; of "
        f"the {len(words)} here, {overfit or 'none'} {'do' if overfit > 1 else 'does'}."
    )


def _first_report():
    table = published_differences().loc[list(STEMS)]
    given = join(f"{signed(value)} dB ({stem})" for stem, value in table["difference"].items())
    outside = table.index[~table["inside"]]
    return f"The first report of Demucs v1 + GAN gave {given} against Demucs v1: " + (
        f"{join(outside)} left the range of one more plain run."
        if len(outside)
        else "no more than what another random seed of plain Demucs v1 may bring."
    )


def tiles(table):
    """[(name, SDR, difference from L1)] of the arms on the test tracks, values as text. table: sdr_table.csv."""
    rows = table[table["section"] == TEST].set_index("system")["all"]
    rows = rows.drop([name for name in rows.index if name.startswith(DIFFERENCE) or name == ARMS["mixture"]])
    base = rows.get(ARMS["l1"])
    return [
        (name, plain(value), signed(value - base) if base is not None and name != ARMS["l1"] else "")
        for name, value in rows.items()
    ]


def findings(run):
    """Every finding of a run's folder: `scores`, the verdicts on its discriminators, the D-probe."""
    sentences = scores(run)
    if set(arms_table(run)["arm"]) - {"l1", "mixture"}:
        sentences += ["The discriminator of " + line for line in _lines(diagnoses(verdicts(gan_runs(run))))]
    if (cells := read_probe(run)) is not None:
        sentences += ["A discriminator alone: " + line for line in _lines(probe(cells))]
    return sentences


def scores(run):
    """The scores in sentences: noise of seeds, mean SDR on every test set, and whether an arm helps, per stem."""
    published, tracks = published_differences().loc[list(STEMS)], arms_table(run)
    inside = published["inside"].sum()
    sentences = [
        "One more run of plain Demucs v1 may differ from its published mean by "
        + join(f"±{value:.2f} dB ({stem})" for stem, value in published["half_width"].items())
        + "; of the four differences that the first report of Demucs v1 + GAN gave "
        f"({', '.join(f'{stem} {signed(value)}' for stem, value in published['difference'].items())}), "
        f"{'all four' if inside == 4 else inside} lie inside."
    ]
    for test_set, rows in tracks.groupby("test_set", sort=False):
        means = arm_means(rows)["SDR"].groupby("arm", sort=False).mean()
        shown = ", ".join(f"{ARMS.get(arm, arm)} {plain(value)} dB" for arm, value in means.items())
        sentences.append(f"On {TEST_SETS.get(test_set, test_set)}, mean SDR over the stems: {shown}.")
    if "l1" in (trained := set(tracks["arm"])) and trained - {"l1", "mixture"}:
        sentences += _lines(gan_helps(arm_differences(tracks)))
    return sentences


def _lines(markdown):
    """The items of a list in Markdown, without its marks."""
    return [line.removeprefix("- ").replace("**", "") for line in markdown.splitlines()]
