"""The report's four answers and its abstract: what a reader learns first, of README.md and of the front pages.

A person wrote the sentences; a program fills in a verdict, a count or a list of stems from the committed tables, and
says what has not been run.
"""

from typing import NamedTuple

import pandas as pd

from lib.common.files import read_json
from lib.common.provenance import ROOT
from lib.common.words import join, plain, signed
from lib.data.tracks import SAMPLERATE
from lib.evaluation.results import PRIMARY_DETAIL, arms_table
from lib.memorisation import diagnose
from lib.report.sentences import arms
from lib.report.sentences.discriminator import confirmed, gan_runs, learns_less
from lib.runs.cures import REFERENCES
from lib.runs.folders import arm_and_seed

STUDY = ROOT / "results" / "study"
NOT_YET = "not run yet"
WORDS = {"helps": "Yes", "harms": "No", "negligible": "No"}  # {verdict on the mean over stems: answer}


class Answer(NamedTuple):
    """A row of the table of answers."""

    question: str
    answer: str
    evidence: tuple  # of paths in the repository: a page, and the file that holds the numbers
    sure: str


def answers(run=STUDY):
    """The four `Answer`s. run: folder of the study's tables."""
    return [_chance(), _memory(run), _worth(_compared(run)), _cures(run)]


def abstract(run=STUDY):
    """Five parts: what was asked, what the first report can say, the scale, what was found, what is not shown."""
    few, trainings, most, within, many, runs, tracks, passes = _memorised(run)
    differences = _compared(run)
    missing = [
        "100 channels", "real music to learn from",
        *(["a comparison of cures"] * (not (run / "cures.csv").exists())),
        *(["a spectral discriminator with feature matching"] * ("spectral-gan" not in differences.index.levels[1])),
    ]  # fmt: skip
    return [
        "In 2021 an unpublished report added a pix2pix-style discriminator to Demucs v1, which separates a song into "
        "drums, bass, other and vocals. It reported no gain on average, stated without showing it that the "
        "discriminator overfits, and promised an update: this one.",
        f"That report's scores may be one run or a mean of five, which it leaves open; {_beyond_chance()} differs from "
        "chance in either case, once four tests are corrected for.",
        f"Everything measured here is a miniature: networks of {join(scale())} channels (Demucs v1 has 100), trained "
        f"for minutes on songs that a program composed. In the study, L1 alone reaches an SDR of {_level(run)}.",
        f"The discriminator overfitted in {few} of {trainings} trainings on at most {most} short tracks, within "
        f"{within} passes. On {tracks} songs it did in {many} of {runs}, but within {passes} passes: too few to tell. "
        f"With pix2pix's weight it changes the SDR of L1 alone by {_size(differences, 'gan')}, mean over stems. A "
        "spectral discriminator changes that of a spectral loss by "
        f"{_size(differences, 'spectral-gan', 'spectral')}.",
        f"Not shown, as {NOT_YET}: {join(missing)}.",
    ]


def summary(run=STUDY):
    """{Asked, Found, How sure}: the abstract for a front page, the scale first."""
    _, _, miniature, found, missing = abstract(run)
    return {
        "Asked": "Does the pix2pix-style discriminator that a report of 2021 added to Demucs v1, which separates a "
        "song into four stems, improve it, and does it overfit?",
        "Found": f"{miniature} {found}",
        "How sure": f"Overfitting on few tracks is sure. Of SDR: {_worth(_compared(run)).sure} {missing}",
    }


def scale():
    """The numbers of channels of the generators that the committed results come from, as text, in order."""
    files = [file for run in ("quick", "study") for file in (ROOT / "results" / run).glob("pretrain-*/config.json")]
    return [str(count) for count in sorted({read_json(file)["config"]["channels"] for file in files})]


def _chance():
    _, _, alike, _ = arms.outside_noise()
    return Answer(
        "Is the first report's difference more than chance?",
        f"In {_beyond_chance()}, whether its scores are one run or a mean of five, once four tests are corrected for. "
        f"Uncorrected, and only as a mean of five, perhaps in {join(alike)}.",
        ("results/quick/03-sdr-table.ipynb", "results/study/sdr_table.csv"),
        "The arithmetic is sure; the first report does not say which applies.",
    )


def _beyond_chance():
    """The stems in which the first report differs from chance in either reading."""
    one, _, _, corrected = arms.outside_noise()
    return join(stems) if (stems := dict.fromkeys([*one, *corrected])) else "no stem"


def _memory(run):
    few, trainings, most, within, many, runs, tracks, passes = _memorised(run)
    law = pd.read_csv(run / "law.csv")
    return Answer(
        "Does a discriminator overfit?",
        f"On 1 to {most} short tracks in {few} of {trainings} trainings, within {within} passes; by the same rule, on "
        f"{tracks} songs in {many} of {runs}, but within {passes} passes only.",
        ("results/quick/04-discriminator.ipynb", "results/study/onsets.csv"),
        ("Sure that it happens. " if few else "It was not seen. ")
        + "The two kinds of training also differ in channels, learning rate and remix"
        + ("." if law["determined"].all() else "; how onset depends on the number of tracks is not known."),
    )  # fmt: skip


def _compared(run):
    return arms.comparisons(arms_table(run), [*arms.NEGLIGIBLE])


def _worth(differences):
    rows = differences.loc["SDR"].loc[["gan"]]
    whole, stems = rows.xs("all", level="stem").iloc[0], rows.drop("all", level="stem")
    shown = stems.index.get_level_values("stem")[stems["p_holm"] < 0.05]
    return Answer(
        "Does it raise the SDR, or bring detail?",
        f"{WORDS.get(arms.verdict(whole), 'Not decided')}: with pix2pix's weight (λ = 100) it changes the mean over "
        f"stems by {_size(differences, 'gan')}; with strong R1: {_size(differences, 'gan-cures')}. A spectral "
        f"discriminator, beside a spectral loss: {_size(differences, 'spectral-gan', 'spectral')}."
        f"{_detail(differences)}",
        ("docs/results.md", "results/study/arms.csv"),
        f"{whole['seeds']:.0f} pre-trainings, {whole['tracks']:.0f} test tracks. Of pix2pix's differences stem by "
        f"stem, {f'those in {join(shown)} survive' if len(shown) else 'none survives'} Holm's correction.",
    )


def _detail(differences):
    """In which stems a discriminator brings detail, in a sentence; none where detail was not measured."""
    if PRIMARY_DETAIL not in differences.index.unique("metric"):
        return ""
    words = arms.verdicts(arms.discriminator_alone(differences), PRIMARY_DETAIL)
    gains = dict.fromkeys(words.index.get_level_values("stem")[words == "helps"])
    return f" A gain of detail from 2 to 16 kHz is shown in {join(gains) if gains else 'no stem'}."


def _size(differences, arm, base="l1"):
    """What an arm adds to the mean over stems of SDR, with its interval. differences: `arms.comparisons`."""
    if arm not in differences.index.levels[1]:
        return NOT_YET
    row = differences.loc[("SDR", arm, base, "all")]
    interval = f"95 % {plain(row['low'])} to {plain(row['high'])}" if row["seeds"] > 1 else "one pre-training"
    return f"{signed(row['difference'])} dB ({interval})"


def _level(run):
    """The SDR of L1 on the study's test tracks, mean over stems and pre-trainings, and that of the mixture ÷ 4."""
    rows = arms_table(run).query("test_set == 'test'")
    means = {arm: rows[rows["arm"] == arm].groupby(["seed", "target"], dropna=False)["SDR"].median().mean()
             for arm in ("l1", "mixture")}  # fmt: skip
    return f"{plain(means['l1'])} dB; the mixture ÷ 4, which separates nothing, has {plain(means['mixture'])}"


def _cures(run):
    question, page = "What keeps it from overfitting?", "results/quick/04-discriminator.ipynb"
    if not (run / "cures.csv").exists():
        evidence = (page, "results/quick/memorisation.csv")
        return Answer(question, "Not compared yet.", evidence, "One example is shown: no verdict.")
    table = pd.read_csv(run / "cures.csv")
    tried = table[(table["plan"] == "cures") & ~table["cure"].isin(REFERENCES)]
    scores = tried.set_index("cure")["score"].dropna().sort_values(kind="stable")
    best, again = scores.index[0], confirmed(table)
    said = f"Of {len(scores)} cures tried on two tracks, {best} left the least memorisation, then {scores.index[1]}."
    sure = f"Chosen on one pair of tracks; repeating it: {NOT_YET}."
    if best in again:
        said += f" On other pairs of tracks, {best} kept to our limits in {again[best][0]} of {again[best][1]}."
        sure = "One size of networks and of tracks. The others were tried on one pair alone."
        sure += f" With {best} the discriminator also learns less." if learns_less(table, best) else ""
    return Answer(question, said, (page, "results/study/cures.csv"), sure)


def _memorised(run):
    """How often the first report's discriminator overfitted, by `lib.memorisation.diagnose`.

    Returns, of trainings on few tracks, how many did, how many there are, their most tracks and most passes; and the
    same of the arm `gan`.
    """
    onsets = pd.read_csv(run / "onsets.csv")
    played = onsets[onsets["mode"] == "play"]
    within = played[["onset_passes", "censored_passes"]].max().max()
    arm = {name: metrics for name, metrics in gan_runs(run).items() if arm_and_seed(name)[0] == "gan"}
    many = sum(diagnose(metrics.to_dict("records"))[0] == "overfits" for metrics in arm.values())
    tracks = len(read_json(run / "data.json")["sets"]["train"])
    few = played["onset_passes"].notna().sum(), len(played), played["tracks"].max(), f"{within:.0f}"
    return *few, many, len(arm), tracks, _passes(run, arm)


def _passes(run, names):
    """How often the trainings `names` of a run drew as many excerpts as its tracks hold without overlap, at most."""
    tracks, found = read_json(run / "data.json")["sets"]["train"], []
    for name in names:
        c = read_json(run / name / "config.json")["config"]
        held = sum(track["samples"] / SAMPLERATE // c["seconds"] for track in tracks)
        found.append(c["steps"] * c["batch"] / held)
    return f"{max(found):.0f}"
