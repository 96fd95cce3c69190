"""The answer of a run, short enough to stand above everything else; computed, like every other sentence."""

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.common.words import join, plain, signed
from lib.evaluation.results import ARMS, arms_table, published_seeds, published_systems
from lib.evaluation.stats import STEMS, prediction_interval
from lib.report.sentences.arms import arm_differences, is_shown
from lib.report.sentences.discriminator import gan_runs, verdicts
from lib.report.tables import DIFFERENCE

TEST = "Measured here, on: test"


def answer(run):
    """(headline, paragraph): does a discriminator raise the SDR; what became of the first report's figures, what the
    arms show, and whether their discriminators overfit. run: a folder of results."""
    try:
        differences = arm_differences(arms_table(run)).loc["SDR"]
    except UserError:  # no pair of arms
        return "No discriminator has been played against yet.", _first_report()
    raised = differences[differences.apply(is_shown, axis=1) & (differences["difference"] > 0)].drop(
        "all", level="stem"
    )
    gains = [f"{stem} ({ARMS.get(arm, arm)})" for arm, stem in raised.index]
    headline = (
        f"A discriminator raised the SDR of {join(gains)}." if gains else "A discriminator did not raise the SDR."
    )
    count, seeds = (int(differences[name].iloc[0]) for name in ("tracks", "seeds"))
    shown = [_verdict(arm, table.droplevel("arm")) for arm, table in differences.groupby("arm", sort=False)]
    tracks = f"{count} test tracks" + " of the embedded corpus" * (read_json(run / "data.json")["root"] == "embedded")
    words = verdicts(gan_runs(run))["verdict"]
    overfit = int((words == "overfits").sum())
    return headline, (
        f"{_first_report()} Trained again here from one common start, on {tracks} with {seeds} "
        f"seed{'s' * (seeds > 1)}, {'; '.join(shown)}. The first report suspected that its discriminator overfits; of "
        f"the {len(words)} here, {overfit or 'none'} {'do' if overfit > 1 else 'does'}."
    )


def tiles(table):
    """[(name, SDR, difference from L1)] of the arms on the test tracks, figures as text. table: sdr_table.csv."""
    rows = table[table["section"] == TEST].set_index("system")["all"]
    rows = rows.drop([name for name in rows.index if name.startswith(DIFFERENCE) or name == ARMS["mixture"]])
    base = rows.get(ARMS["l1"])
    return [
        (name, plain(value), signed(value - base) if base is not None and name != ARMS["l1"] else "")
        for name, value in rows.items()
    ]


def _first_report():
    seeds, gan = published_seeds(), published_systems().loc["Demucs v1 + GAN (first report)"]
    interval = prediction_interval(seeds)
    outside = [s for s in STEMS if abs(gan[s] - interval.loc[s, "mean"]) > interval.loc[s, "half_width"]]
    figures = join(f"{signed(gan[s] - interval.loc[s, 'mean'])} dB ({s})" for s in STEMS)
    return f"The first report of Demucs v1 + GAN gave {figures} against Demucs v1: " + (
        f"{join(outside)} left the range of one more plain run."
        if outside
        else "no more than what another random seed of plain Demucs v1 may bring."
    )


def _verdict(arm, table):
    """What the SDR of one arm shows against L1. table: rows by stem."""
    groups = {"helps": [], "harms": [], "shows no difference in": []}
    for stem in STEMS:
        row = table.loc[stem]
        word = ("helps" if row["difference"] > 0 else "harms") if is_shown(row) else "shows no difference in"
        groups[word].append(stem)
    return f"{ARMS.get(arm, arm)} " + join(f"{word} {join(stems)}" for word, stems in groups.items() if stems)
