"""The report's four answers and its abstract: what a reader learns first, of README.md and of the front pages.

A person wrote the sentences; a program fills in a verdict, a count or a list of stems from the committed tables, and
says what has not been run.
"""

from typing import NamedTuple

import pandas as pd

from lib.common.files import read_json
from lib.common.provenance import ROOT
from lib.common.words import join
from lib.data.tracks import SAMPLERATE
from lib.evaluation.results import arms_table
from lib.report.sentences import arms
from lib.report.sentences.discriminator import gan_runs, verdicts
from lib.runs.cures import REFERENCES
from lib.runs.folders import arm_and_seed

STUDY = ROOT / "results" / "study"
NOT_YET = "not run yet"


class Answer(NamedTuple):
    """A row of the table of answers."""

    question: str
    answer: str
    page: str  # the page that shows it, such as 03-sdr-table
    file: str  # of results/study: the evidence
    sure: str


def answers(run=STUDY):
    """The four `Answer`s. run: folder of the study's tables."""
    return [_chance(), _memory(run), _worth(arms.comparisons(arms_table(run))), _cures(run)]


def abstract(run=STUDY):
    """Five sentences: what was asked, what the first report can say, the scale, what was found, what is not shown."""
    one, mean, alike = arms.outside_noise()
    few, trainings, _, many, runs, _, passes = _memorised(run)
    differences = arms.comparisons(arms_table(run))
    missing = [
        "100 channels", "real music to learn from",
        *(["a comparison of cures"] * (not (run / "cures.csv").exists())),
        *(["a spectral discriminator with feature matching"] * ("spectral-gan" not in differences.index.levels[1])),
    ]  # fmt: skip
    return [
        "In 2021 an unpublished report added a pix2pix-style discriminator to Demucs v1, which separates a song into "
        "drums, bass, other and vocals; it reported no gain on average, suspected that the discriminator overfits, and "
        "promised an update: this one.",
        "Its numbers do not decide, since it does not say what they are: if one run, chance between seeds "
        f"{_explains(one)}; if a mean of five, {_edge(mean, alike)}.",
        f"Everything measured here is a miniature: networks of {join(scale())} channels (the paper: 100), trained for "
        "minutes on composed songs.",
        f"There, the discriminator overfitted in {few} of {trainings} trainings on few tracks. On many tracks it did "
        f"in {many} of {runs}, which heard each only {passes} times; by SDR, the field's score, at pix2pix's weight it "
        f"{_does(differences, 'gan')}.",
        f"Not shown, as {NOT_YET}: {join(missing)}.",
    ]


def summary(run=STUDY):
    """{Asked, Found, How sure: a sentence each}, the scale first."""
    _, _, _, found, missing = abstract(run)
    return {
        "Asked": "Does the pix2pix-style discriminator that a report of 2021 added to Demucs v1, which separates a "
        "song into four stems, improve it, and does it overfit?",
        "Found": f"In a miniature of {join(scale())} channels, trained for minutes on composed songs, "
        f"{found.removeprefix('There, ').replace('; by SDR', '. By SDR')}",
        "How sure": f"{_worth(arms.comparisons(arms_table(run))).sure.removesuffix('.')}. {missing}",
    }


def _explains(outside):
    """What chance explains, given the stems that lie outside it."""
    return f"does not explain those of {join(outside)}" if outside else "could explain every difference"


def scale():
    """The numbers of channels of the generators that the committed results come from, as text, in order."""
    files = [file for run in ("quick", "study") for file in (ROOT / "results" / run).glob("pretrain-*/config.json")]
    return [str(count) for count in sorted({read_json(file)["config"]["channels"] for file in files})]


def _chance():
    one, mean, alike = arms.outside_noise()
    return Answer(
        "Is the first report's difference more than chance?",
        f"If its scores are one run: {join(one) if one else 'in no stem'}. If they are a mean of five: "
        f"{_edge(mean, alike)}.",
        "03-sdr-table", "sdr_table.csv",
        "The arithmetic is sure; the report does not say which applies.",
    )  # fmt: skip


def _memory(run):
    few, trainings, most, many, runs, tracks, passes = _memorised(run)
    law = pd.read_csv(run / "law.csv")
    return Answer(
        "Does a discriminator overfit?",
        f"With 1 to {most} tracks in {few} of {trainings} trainings; with {tracks} in {many} of {runs}, which heard "
        f"each track only {passes} times.",
        "04-discriminator", "onsets.csv",
        ("Sure that it happens" if few else "It was not seen")
        + ("." if law["determined"].all() else "; how the onset depends on the number of tracks is not known."),
    )  # fmt: skip


def _worth(differences):
    row = differences.loc[("SDR", "gan", "l1", "all")]
    spectral = NOT_YET
    if "spectral-gan" in differences.index.levels[1]:
        spectral = f"beside a spectral loss it {_does(differences, 'spectral-gan', 'spectral')}"
    return Answer(
        "Does it raise the SDR?",
        f"At pix2pix's weight (λ = 100) it {_does(differences, 'gan')}; with noise and R1 it "
        f"{_does(differences, 'gan-cures')}. A spectral discriminator: {spectral}.",
        "03-sdr-table", "arms.csv",
        f"{row['seeds']:.0f} pre-trainings and {row['tracks']:.0f} test tracks: wide intervals.",
    )  # fmt: skip


def _cures(run):
    question, page = "Which cure works in the loop?", "04-discriminator"
    if not (run / "cures.csv").exists():
        return Answer(question, "Not compared yet.", page, "onsets.csv", "One pair of tracks is shown: no verdict.")
    table = pd.read_csv(run / "cures.csv")
    tried = table[(table["plan"] == "cures") & ~table["cure"].isin(REFERENCES)]
    scores = tried.set_index("cure")["score"].dropna().sort_values(kind="stable")
    confirmed = (table["plan"] == "confirm").any()
    return Answer(
        question, f"Of {len(scores)} tried on two tracks, {join(scores.index[:2])} left the least memory.",
        page, "cures.csv",
        "Chosen on one pair of tracks" + ("; repeated on others." if confirmed else f"; repeating it: {NOT_YET}."),
    )  # fmt: skip


def _memorised(run):
    """How often the first report's discriminator overfitted.

    Returns (trainings on few tracks in which it did, all of these, their most tracks; trainings of the arm `gan` in
    which it did, all of these, their tracks, and how often each heard a track).
    """
    onsets = pd.read_csv(run / "onsets.csv")
    played = onsets[onsets["mode"] == "play"]
    words = verdicts({name: metrics for name, metrics in gan_runs(run).items() if arm_and_seed(name)[0] == "gan"})
    tracks = len(read_json(run / "data.json")["sets"]["train"])
    few = played["onset_passes"].notna().sum(), len(played), played["tracks"].max()
    return *few, (words["verdict"] == "overfits").sum(), len(words), tracks, _passes(run, words.index)


def _passes(run, names):
    """How often the trainings `names` of a run drew as many excerpts as its tracks hold without overlap, at most."""
    tracks, found = read_json(run / "data.json")["sets"]["train"], []
    for name in names:
        c = read_json(run / name / "config.json")["config"]
        held = sum(track["samples"] / SAMPLERATE // c["seconds"] for track in tracks)
        found.append(c["steps"] * c["batch"] / held)
    return f"{max(found):.0f}"


def _edge(mean, alike):
    """Which stems chance does not explain in a mean of five, and which lie at its edge."""
    edge = [stem for stem in alike if stem not in mean]
    outside, at_edge = (join(stems) if stems else "" for stems in (mean, edge))
    said = [f"{outside} lie outside chance"] * bool(mean) + [f"{at_edge} lie at the edge of chance"] * bool(edge)
    return " and ".join(said) or "chance could explain every difference"


def _does(differences, arm, base="l1"):
    """What an arm does to the stems by SDR, in words. differences: `lib.report.sentences.arms.comparisons`."""
    pairs = differences.loc["SDR"]
    return arms.effect(pairs.loc[(arm, base)]) if (arm, base) in pairs.index.droplevel("stem") else f"was {NOT_YET}"
