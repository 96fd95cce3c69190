"""Write the generated blocks of README.md and docs/ from the committed results and benchmarks.

    python -m lib.report.readme

A block stands between the lines <!-- NAME:start --> and <!-- NAME:end -->. A new block is one entry of `BLOCKS` and its
two markers; a test says when one is out of date.
"""

import textwrap
from pathlib import Path

import pandas as pd

from lib.common.errors import UserError
from lib.common.files import read_json, write_bytes
from lib.common.provenance import ROOT
from lib.common.words import signed
from lib.config import read_note
from lib.data.tracks import SOURCES
from lib.evaluation.results import ARMS, arms_table
from lib.evaluation.stats import COLUMNS
from lib.models.weights import BUNDLED
from lib.report.sentences import answers, discriminator
from lib.report.sentences.answers import STUDY
from lib.report.sentences.arms import MAIN, NEGLIGIBLE, comparisons, main_findings, seed_noise
from lib.report.sentences.discriminator import gan_runs, verdict_sentences, verdicts
from lib.report.tables import DIFFERENCE, PUBLISHED, TEST, complete, shown

EACH_STEM = {"gain ±{:g} dB": "stem_gain_db", "equaliser ±{:g} dB": "stem_eq_db", "speed ±{:.0%}": "stem_speed"}
FIRST = "l1-42"  # of results/carried: the training from which others began


def markdown_table(table):
    """The published rows and those of the test tracks as a Markdown table. table: sdr_table.csv.

    Of arms that not every pre-training has, the difference from L1 of their own ones alone.
    """
    lines = ["| SDR in dB | Drums | Bass | Other | Vocals | All |", "|---|--:|--:|--:|--:|--:|"]
    for section in (PUBLISHED, TEST):
        lines.append(f"| *{section}* | | | | | |")
        rows = table[table["section"] == section]
        for (_, row), whole in zip(rows.iterrows(), complete(rows), strict=True):
            if whole or row["system"].startswith(DIFFERENCE):
                name = row["system"] + ("" if whole else ", one pre-training")
                lines.append(f"| {name} | {' | '.join(shown(row, column) for column in COLUMNS)} |")
    return "\n".join(lines)


def benchmark(file, *starts):
    """The paragraphs and tables of benchmarks/`file` that begin with `starts`."""
    blocks = (ROOT / "benchmarks" / file).read_text(encoding="utf-8").split("\n\n")
    found = [next(block for block in blocks if block.startswith(start)) for start in starts]
    return "\n\n".join(block if block.startswith("|") else _filled(block) for block in found)


def _filled(text, mark=""):
    """`text` in lines of at most 120 characters; none begins with "+", which Markdown takes for a list."""
    lines = textwrap.wrap(
        text.replace(" + ", "\N{NO-BREAK SPACE}+ "), 120, initial_indent=mark, subsequent_indent=" " * len(mark),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def _bullets(sentences):
    return "\n".join(_filled(sentence, "- ") for sentence in sentences)


def _table(run):
    return pd.read_csv(ROOT / "results" / run / "sdr_table.csv")


def _answers():
    """The table of answers in Markdown."""
    lines = ["| question | answer | evidence | how sure |", "|---|---|---|---|"]
    for row in answers.answers():
        evidence = ", ".join(f"[{Path(path).name.partition('-')[0]}]({path})" for path in row.evidence)
        lines.append(f"| {row.question} | {row.answer} | {evidence} | {row.sure} |")
    return "\n".join(lines)


def _of_table(name):
    """What a table of the study shows, a sentence each; none without it."""
    table = STUDY / f"{name}.csv"
    return getattr(discriminator, name)(pd.read_csv(table)) if table.exists() else []


def _sizes():
    """The main differences of the study's first pre-training at two sizes of network, as a Markdown table."""
    found = {}
    for run in ("study", "study-half"):
        folder, seed = ROOT / "results" / run, 42
        channels = read_json(folder / f"pretrain-{seed}" / "config.json")["config"]["channels"]
        rows = arms_table(folder)
        found[channels] = comparisons(rows[rows["seed"] == seed], [*NEGLIGIBLE])
    pairs = [pair for pair in MAIN if all(("SDR", *pair) in table.index for table in found.values())]
    lines = [
        f"| change in dB | {' | '.join(f'{name}, {count} channels' for name in ('SDR', 'detail') for count in found)} |"
    ]
    lines.append(f"|---{'|--:' * 2 * len(found)}|")
    for arm, base in pairs:
        cells = [signed(found[n].loc[(metric, arm, base, "all"), "difference"]) for metric in NEGLIGIBLE for n in found]
        lines.append(f"| {ARMS[arm]} − {ARMS[base]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bases():
    """The short trials of other pre-trainings as a Markdown table. results/study/bases.csv: of `lib.studies.bases`."""
    table = pd.read_csv(STUDY / "bases.csv")
    stems = [name for name in table if name.endswith("_above")]
    heads = ["base", "steps", "minutes", "held-out L1", *(name.removesuffix("_above") for name in stems)]
    lines = [f"| {' | '.join(heads)} |", f"|---{'|--:' * (len(heads) - 1)}|"]
    for row in table.to_dict("records"):
        cells = [row["base"].replace("-", " "), str(row["steps"]), f"{row['seconds'] / 60:.1f}"]
        cells.append(f"{row['l1_heldout']:.3f}")
        lines.append(f"| {' | '.join([*cells, *(signed(row[name]) for name in stems)])} |")
    return "\n".join(lines)


def _carried(scores="songs.csv"):
    """The carried model and what was tried for its place, in Markdown: SDR above the mixture ÷ 4.

    scores: of results/carried/*, the files of `lib.evaluation.songs` to read.
    """
    lines = ["| weights | steps | batch × seconds | " + " | ".join(SOURCES) + " |", "|---|--:|--:|--:|--:|--:|--:|"]
    for file in sorted(ROOT.glob(f"results/carried/*/{scores}"), key=_place):
        medians = pd.read_csv(file).groupby("stem")[["sdr", "mixture"]].median()
        cells = [signed(medians.loc[stem, "sdr"] - medians.loc[stem, "mixture"]) for stem in SOURCES]
        lines.append(f"| {' | '.join([*_weights(file.parent), *cells])} |")
    return "\n".join(lines)


def _place(file):
    """What sorts the rows of `_carried`: the first training, other trainings, then what was made of them."""
    return file.parent.name != FIRST, not read_note(file.parent), file


def _weights(folder):
    """The first cells of a row of `_carried`: what the weights are, and a training's steps, batch and seconds."""
    if note := read_note(folder):
        config = note["config"]
        changes = ["**first**"] * (folder.name == FIRST) + ["from the first"] * bool(config["start_from"])
        changes += [kind.format(config[field]) for kind, field in EACH_STEM.items() if config.get(field)]
        changes += ["estimates sum to the mixture"] * config["projection"]
        return ", ".join(changes), f"{config['steps']:,}", f"{config['batch']} × {config['seconds']:g}"
    about = BUNDLED.with_suffix(".json")
    carried = not (folder / about.name).exists()  # its description stands beside the bundled weights
    made = read_json(about if carried else folder / about.name)
    words = ["**carried**"] * carried
    words += ["mean of the first and those from it" if len(made["mean of"]) > 1 else "the first"]
    return ", ".join(words + ["calibrated"] * ("calibrated on" in made)), "", ""


# {file: {block: what writes it}}
BLOCKS = {
    "README.md": {"abstract": lambda: _filled(" ".join(answers.abstract())), "answers": _answers},
    "docs/results.md": {
        "findings": lambda: _bullets([seed_noise(), *main_findings(comparisons(arms_table(STUDY), [*NEGLIGIBLE]))]),
        "discriminators": lambda: _bullets(verdict_sentences(verdicts(gan_runs(STUDY)))),
        "cures": lambda: _bullets(_of_table("cures")),
        "cues": lambda: _bullets(_of_table("cues")),
        "regimes": lambda: _bullets(_of_table("regimes")),
        "table": lambda: markdown_table(_table("study")),
        "sizes": _sizes,
        "bases": _bases,
        "carried": _carried,
        "excerpt": lambda: _carried("excerpt.csv"),
        "styles": lambda: _carried("other-styles.csv"),
    },
    "docs/speed.md": {
        "train": lambda: benchmark("train.md", "| channels"),
        "adversarial": lambda: benchmark("train.md", "| step", "The patch", "| discriminator"),
        "separate": lambda: benchmark("separate.md", "| channels"),
        "ranks": lambda: benchmark("train.md", "| ranks"),
        "loading": lambda: benchmark("data.md", "| excerpt"),
        "report": lambda: benchmark("report.md", "| commit"),
        "bsseval": lambda: benchmark("bsseval.md", "| signals"),
        "memory": lambda: benchmark("growth.md", "| run, MiB"),
        "gpu": lambda: benchmark("gpu.md", "With 100 channels", "| what"),
        "scaling": lambda: benchmark("scaling.md", "**Not measured", "| slowest link", "On one machine"),
    },
}


def updated(file, text):
    """`text` of `file` with every block written anew; raises `UserError` for a block without its two markers."""
    for name, write in BLOCKS[file].items():
        start, end = f"<!-- {name}:start -->\n", f"<!-- {name}:end -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise UserError(f"{file} lacks the markers of the block '{name}': {start.strip()} and {end}.")
        text = f"{before}{start}{write()}\n{end}{after}"
    return text


if __name__ == "__main__":
    for name in BLOCKS:
        path = ROOT / name
        write_bytes(path, updated(name, path.read_text(encoding="utf-8")).encode())
