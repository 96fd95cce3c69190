"""Bad input, part 4: profiles, scores and logs."""

import gzip
import shutil
from pathlib import Path

from bad_case import MINE, Case, rewrite, truncate

PROFILE = "python -m lib.pipeline MINE run=MINE"
QUICK = "python -m lib.pipeline quick run=MINE"
MUSEVAL = 'results.read_museval("…/study/l1-1/eval/test")'
MEASURED = 'results.measured(Path("…/study"))'
LOG = 'results.read_metrics("…/study/l1-1")'
SCORES = "…/study/l1-1/eval/test/tracks/I - J.json"
EVALUATED = Path("study/l1-1/eval/test")
SCORED = EVALUATED / "tracks" / "I - J.json"


def profile(content):
    return lambda place: MINE.write_bytes(content.encode() if isinstance(content, str) else content)


def scores(change):
    return lambda place: rewrite(place / SCORED, change)


def packed(place):
    (place / SCORED).with_suffix(".json.gz").write_bytes(gzip.compress((place / SCORED).read_bytes()))
    (place / SCORED).unlink()


def beside(name, content):
    def make(place):
        (place / EVALUATED / name).parent.mkdir(exist_ok=True)
        (place / EVALUATED / name).write_text(content)

    return make


def log(content):
    return lambda place: (place / "study/l1-1/metrics.jsonl").write_text(content)


CASES = [
    # The pipeline's words and profiles
    Case("a profile that does not exist", "python -m lib.pipeline huge", "There is no profile 'huge' in "
         "notebooks/profiles; choose one of …."),
    Case("a profile that is not YAML", PROFILE, "…MINE.yaml is not valid YAML (…)…", profile("seeds: [1\nnproc: }")),
    Case("a profile that is a list", PROFILE, "…MINE.yaml must hold lines of the form name: value.",
         profile("- 1\n- 2\n")),
    Case("a profile that is empty", PROFILE, "…MINE.yaml must hold lines of the form name: value.", profile("")),
    Case("a profile of bytes", PROFILE, "…MINE.yaml is not valid YAML (…)…", profile(bytes(range(256)))),
    Case("a profile that would run a program", PROFILE, "…MINE.yaml is not valid YAML (…)…",
         lambda place: profile(f"nproc: !!python/object/apply:os.mkdir ['{place}/it ran']")(place)),
    Case("a profile with an unknown parameter", PROFILE, "No notebook has a parameter 'colour'; did you mean 'cures'?",
         profile("colour: red\n")),
    Case("a profile with a number for a name", PROFILE, "No notebook has a parameter 7; known are ….",
         profile("7: red\n")),
    Case("a profile with a list for a number", PROFILE, "Parameter 'nproc' must be int, but [1] is list; correct it.",
         profile("nproc: [1]\n")),
    Case("a word that is no parameter", f"{QUICK} steps", "'steps' is not of the form name=value."),
    Case("a parameter misspelt", f"{QUICK} arm_stepz=3", "No notebook has a parameter 'arm_stepz'; did you mean "
         "'arm_steps'?"),
    Case("a word for a number", f"{QUICK} nproc=two", "Parameter 'nproc' must be int, but 'two' is str; correct it."),
    Case("a number for a truth value", f"{QUICK} compile=1", "Parameter 'compile' must be bool, but 1 is int; "
         "correct it."),
    Case("a list that does not end", f"{QUICK} 'seeds=[1'", "The value of seeds is not valid YAML: '[1'."),
    Case("words among numbers", f"{QUICK} 'seeds=[1, two]'", "Parameter 'seeds' must be list[int], but [1, 'two'] "
         "is list; correct it."),
    Case("no steps", f"{QUICK} arm_steps=0", "arm_steps = 0 must be above 0."),
    Case("no seeds", f"{QUICK} seeds=[]", "seeds = [] must hold at least one value."),
    Case("a metric that there is none of", f"{QUICK} metric=ear", "metric = 'ear' is unknown; choose one of fast, "
         "museval."),
    Case("a run that would leave results/", "python -m lib.pipeline quick run=../mine",
         "run = '../mine' must be a folder's name, without '/', and not reference or pictures."),
    Case("a batch of the report that is no multiple of the remix group", f"{QUICK} batch=7",
         "A batch of 7 over 2 process(es) cannot be split into remix groups of 4; make batch a multiple of 8."),
    Case("excerpts of the report longer than a track", f"{QUICK} seconds=90", "Track … lasts 15.0 s, less than one "
         "excerpt (90.6 s with context and shift); choose shorter excerpts."),
    Case("more processes of the report than excerpts in a batch", f"{QUICK} nproc=16",
         "A batch of 8 over 16 process(es) cannot be split into remix groups of 4; make batch a multiple of 64."),
    Case("a cure that there is none of", f"{QUICK} 'cures={{r_1: 1}}'", "Unknown training parameter r_1; all names "
         "are in lib/config.py."),
    Case("a discriminator of the report wider than any memory", f"{QUICK} discriminator_width=900000", "A "
         "discriminator (patch) of discriminator_width = 900000 is too large for this machine; choose a smaller one."),
    Case("a song that is not there", f"{QUICK} song=/nowhere.mp3",
         "song = '/nowhere.mp3' is no file; give the path of one, from the repository or from /."),
    Case("a discriminator to look at that is not trained", f"{QUICK} seeds=[43]", "arm = 'gan-42', which "
         "04-discriminator looks at, is none of the runs with a discriminator that arms and seeds ask for (gan-43, "
         "gan-cures-43); change one of them."),
    # Scores
    Case("a folder without scores", MUSEVAL, "No museval results (*.json or *.json.gz) in …/study/l1-1/eval/test; "
         "check the path or evaluate first.", lambda place: shutil.rmtree(place / EVALUATED)),
    Case("scores that are truncated", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         lambda place: truncate(place / SCORED)),
    Case("scores of 0 bytes", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         lambda place: (place / SCORED).write_bytes(b"")),
    Case("scores that are no text", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         lambda place: (place / SCORED).write_bytes(bytes(range(256)))),
    Case("scores that are a list", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         lambda place: (place / SCORED).write_text("[1]")),
    Case("scores without targets", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         scores(lambda value: value.pop("targets"))),
    Case("scores with a number for the targets", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         scores(lambda value: value.update(targets=3))),
    Case("scores with a target that has no name", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         scores(lambda value: value["targets"][0].pop("name"))),
    Case("a frame without metrics", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         scores(lambda value: value["targets"][1]["frames"][0].pop("metrics"))),
    Case("a frame without SDR", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         scores(lambda value: value["targets"][1]["frames"][0]["metrics"].pop("SDR"))),
    Case("a frame with a word for SDR", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         scores(lambda value: value["targets"][1]["frames"][0]["metrics"].update(SDR="loud"))),
    Case("packed scores that are not packed", MUSEVAL, "….json.gz …; evaluate that track again.",
         lambda place: (place / SCORED).rename((place / SCORED).with_suffix(".json.gz"))),
    Case("scores that are a folder", MUSEVAL, f"{SCORES} …; evaluate that track again.",
         lambda place: ((place / SCORED).unlink(), (place / SCORED).mkdir())),
    Case("a track with two scores", MUSEVAL, "…/study/l1-1/eval/test holds more than one result for I - J; remove "
         "all but one.",
         lambda place: (shutil.copy(place / SCORED, place / "x"), packed(place), (place / "x").rename(place / SCORED))),
    Case("a run without scores", MEASURED, "Nothing in …/study has been evaluated on 'test'; run 02-train for this "
         "run first.", lambda place: [shutil.rmtree(path) for path in (place / "study").glob("*/eval")]),
    Case("detectability.json is truncated", MEASURED, "Cannot read …/study/l1-1/eval/test/detectability.json as JSON "
         "(…); restore or remove it.", beside("detectability.json", '{"auc": {')),
    Case("detectability.json is a list", MEASURED, "…/study/l1-1/eval/test/detectability.json …",
         beside("detectability.json", "[1]")),
    Case("the spectral measures are a list", MEASURED, "…/study/l1-1/eval/test/spectral/I - J.json …",
         beside("spectral/I - J.json", "[1]")),
    # Logs
    Case("a run that was not trained", LOG, "Cannot read …/study/l1-1/metrics.jsonl (No such file or directory); "
         "train the run it belongs to, or train it again.",
         lambda place: (place / "study/l1-1/metrics.jsonl").unlink()),
    Case("a log of 0 bytes", LOG, "…/study/l1-1/metrics.jsonl holds no evaluation yet; train this arm first.", log("")),
    Case("a log with a bad line", LOG, "Line 1 of …/study/l1-1/metrics.jsonl is not one of a training's log; "
         "remove it, or train the run again.", log('{"step": \n{"step": 2}\n')),
    Case("an arm without a discriminator", 'sentences.discriminator.discriminator_metrics(Path("…/study/l1-1"))',
         "…/study/l1-1 was trained without a discriminator; choose a GAN arm."),
    Case("a run without an arm", 'folders.trained("…/musdb")', "…/musdb holds no trained arm; run the notebook "
         "02-train first."),
    Case("a test track that there is none of", 'listen.pick_track(Path("…/study"), 7)', "There is no test track 7: "
         "this run has 1, counted from 0."),
    Case("a stem that there is none of", f"{QUICK} detail_stem=piano", "detail_stem = 'piano' is unknown; choose one "
         "of drums, bass, other, vocals."),
    # What must work
    Case("a log whose last line a stopped run cut short", LOG, "works: the line is left out",
         lambda place: log((place / "study/l1-1/metrics.jsonl").read_text() + '{"step": 3, "l1')(place)),
    Case("scores with silent seconds", MUSEVAL, "works: they are left out of the medians",
         scores(lambda value: [f["metrics"].update(SDR=float("nan")) for f in value["targets"][0]["frames"][:1]])),
    Case("packed scores", MUSEVAL, "works", packed),
]  # fmt: skip
