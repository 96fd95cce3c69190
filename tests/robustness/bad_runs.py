"""Bad input, part 2: parameters of a training, its folder and its checkpoints."""

import json
from dataclasses import fields

import torch
from bad_case import Case, harmful, rewrite, truncate

from lib.config import Config
from lib.demucs import Demucs
from lib.models.weights import save_weights

TRAIN = "python -m lib.train …/study/l1-1"
LAUNCH = 'launch.launch(config.parse([WORDS], "…/study/l1-1"), "…/study/l1-1", nproc=NPROC)'
JOIN = "python -m lib.runs.launch …/study"
WORDS = "write nproc=8 nnodes=2 rdzv_endpoint=host:port."
SMALL = "steps=1 batch=4 channels=4 depth=3 seconds=0.1 shift_seconds=0 stride_seconds=0.1 evaluation_excerpts=1"
OURS = "is damaged or not a checkpoint of this program; delete it to start afresh."
LOG = "is not one of a training's log; remove it, or train the run again."
PLACE = "study/l1-1"


def named(*kinds, without=()):
    return tuple(field.name for field in fields(Config) if field.type in kinds and field.name not in without)


NUMBERS = named(int, float)
CHOICES = ("precision", "generator", "adversarial_loss", "discriminator", "keep")
NOT_ZERO = (
    *("steps", "batch", "channels", "depth", "seconds", "stride_seconds", "discriminator_width", "keep_states"),
    *("discriminator_lr", "augment_steps", "r1_every", "evaluate_every", "evaluation_excerpts"),
)
SHARES = ("ema", "adversarial_share", "dropout", "augment_p", "augment_target", "discriminator_updates")


def launched(words="", nproc=1):
    return LAUNCH.replace("WORDS", ", ".join(f'"{word}"' for word in words.split())).replace("NPROC", str(nproc))


def unfinished(place):
    rewrite(place / PLACE / "config.json", lambda note: note.pop("finished"))


def state(change):
    """A change of the unfinished run's state.pt, which is loaded, changed, and saved."""

    def make(place):
        unfinished(place)
        path = place / PLACE / "state.pt"
        value = torch.load(path, weights_only=True)
        torch.save(change(value, place) or value, path)

    return make


def noted(change):
    return lambda place: rewrite(place / PLACE / "config.json", change)


def replaced(name, content):
    return lambda place: (unfinished(place), (place / PLACE / name).write_text(content))


def logged(line):
    def make(place):
        unfinished(place)
        path = place / PLACE / "metrics.jsonl"
        first, *rest = path.read_text().splitlines(keepends=True)
        path.write_text("".join([first, line + "\n", *rest]))

    return make


def smaller_start(place):
    save_weights(Demucs(channels=5, depth=3, lstm_layers=1), place / "study/pretrain-1/model.safetensors")


def stem_of(place):
    (place / PLACE / "state.pt").unlink()
    (place / PLACE / "state.pt").mkdir()
    unfinished(place)


CASES = [
    # Words
    Case("a word that is no parameter", f"{TRAIN} steps", "UserError: 'steps' is not a parameter; write name=value, "
         "with a name of lib/config.py's Config."),
    Case("a parameter misspelt (every one)", f"{TRAIN} NAMEz=1", "UserError: 'NAMEz=1' is not a parameter; write "
         "name=value, with a name of lib/config.py's Config.", names=named(int, float, bool, str)),
    Case("a word for a number (every one)", f"{TRAIN} NAME=many", "UserError: NAME = 'many' must be of type ….",
         names=NUMBERS),
    Case("a fraction for a whole number (every one)", f"{TRAIN} NAME=2.5", "UserError: NAME = '2.5' must be of type "
         "int.", names=named(int)),
    Case("neither true nor false (every one)", f"{TRAIN} NAME=yes", "UserError: NAME = 'yes' must be of type bool.",
         names=named(bool)),
    Case("NaN for a number (every one)", f"{TRAIN} NAME=nan", "UserError: NAME = nan must be a finite number.",
         names=named(float)),
    Case("an infinite number (every one)", f"{TRAIN} NAME=inf", "UserError: NAME = inf must be a finite number.",
         names=named(float)),
    Case("a negative number (every one)", f"{TRAIN} NAME=-1", "UserError: NAME = -1… must ….", names=NUMBERS),
    Case("0 where there must be some (every one)", f"{TRAIN} NAME=0", "UserError: NAME = 0… must be above 0.",
         names=NOT_ZERO),
    Case("more than the whole of a share (every one)", f"{TRAIN} NAME=1.5", "UserError: NAME = 1.5 must be at least "
         "0 and ….", names=SHARES),
    Case("a name that is no choice (every one)", f"{TRAIN} NAME=magic", "UserError: NAME = 'magic' is unknown; "
         "choose one of ….", names=CHOICES),
    Case("a list for a parameter, in a profile's cures (every one)",
         'config.Config.from_dict({"data": "x", "NAME": []})', "NAME = [] must be …",
         names=named(int, float, bool, str)),
    Case("a parameter misspelt in a profile's cures", 'config.Config.from_dict({"data": "x", "r_1": 0.3})',
         "Unknown training parameter r_1; all names are in lib/config.py."),
    Case("a run without data", "python -m lib.train …/study/new steps=2", "UserError: Training parameter data is "
         "missing: the index that 01-data wrote."),
    # What does not go together
    Case("a batch that is no multiple of the remix group", f"{TRAIN} batch=3", "UserError: A batch of 3 over 1 "
         "process(es) cannot be split into remix groups of 2; make batch a multiple of 2."),
    Case("a batch that the processes cannot share", launched("seed=2", nproc=3), "A batch of 4 over 3 process(es) "
         "cannot be split into remix groups of 2; make batch a multiple of 6."),
    Case("more processes than excerpts in a batch", launched("seed=2", nproc=8), "A batch of 4 over 8 process(es) "
         "cannot be split into remix groups of 2; make batch a multiple of 16."),
    Case("a batch of more excerpts than the tracks hold", f"{TRAIN} batch=4000", "UserError: The training tracks "
         "hold … excerpts, fewer than a batch of 4000."),
    Case("excerpts longer than a track", f"{TRAIN} seconds=30", "UserError: Track … lasts 0.5 s, less than one "
         "excerpt (30.1 s with context and shift); choose shorter excerpts."),
    Case("a shift longer than a track", f"{TRAIN} shift_seconds=1e9", "UserError: Track … lasts 0.5 s, less than "
         "one excerpt (1000000000.1 s with context and shift); choose shorter excerpts."),
    Case("a stride below one sample", f"{TRAIN} stride_seconds=1e-9", "UserError: stride_seconds = 1e-09 must be at "
         "least one sample, 1/44100 s."),
    Case("a seed of 33 bits", f"{TRAIN} seed=4294967296", "UserError: seed = 4294967296 must be below 2^32."),
    Case("a network without end", f"{TRAIN} depth=90", "UserError: A generator (demucs) of channels = 4, depth = 90 "
         "and lstm_layers = 1 is too large for this machine; choose a smaller one."),
    Case("a network wider than any memory", f"{TRAIN} channels=4000000", "UserError: A generator (demucs) of "
         "channels = 4000000, depth = 3 and lstm_layers = 1 is too large for this machine; choose a smaller one."),
    Case("a discriminator wider than any memory", f"{TRAIN} adversarial_weight=1 discriminator_width=900000",
         "UserError: A discriminator (patch) of discriminator_width = 900000 is too large for this machine; choose "
         "a smaller one."),
    Case("excerpts shorter than a discriminator can see", f"{TRAIN} adversarial_weight=1 seconds=0.001",
         "UserError: Excerpts of seconds = 0.001 are too short for the discriminator patch; choose longer ones."),
    Case("excerpts shorter than another discriminator can see", f"{TRAIN} adversarial_weight=1 seconds=0.001 "
         "discriminator=msstft", "UserError: Excerpts of seconds = 0.001 are too short for the discriminator "
         "msstft; choose longer ones."),
    Case("an LSTM for conv_tasnet", f"{TRAIN} generator=conv_tasnet", "UserError: lstm_layers = 1 must be 0 for "
         "conv_tasnet, which has no LSTM."),
    Case("a depth that hdemucs lacks", f"{TRAIN} generator=hdemucs depth=3", "UserError: depth = 3 must be 5 or 6 "
         "for hdemucs, whose layers belong to its spectrogram."),
    Case("bf16 for a network that is not tested for it", f"{TRAIN} generator=conv_tasnet lstm_layers=0 start_from= "
         "precision=bf16", "UserError: precision = bf16 is not tested for ConvTasNet; choose fp32."),
    Case("data from nowhere", f"{TRAIN} data=nowhere.json", "UserError: …nowhere.json is missing; run the notebook "
         "01-data first."),
    Case("a start from nowhere", f"{TRAIN} start_from=nowhere", "UserError: Cannot read …nowhere/model.safetensors: "
         "…; give the path of a weights file of this project."),
    Case("a start from a truncated file", f"{TRAIN} seed=2", "UserError: …/study/pretrain-1/model.safetensors is "
         "damaged or not a weights file of this project; get it again, or give another.",
         lambda place: truncate(place / "study/pretrain-1/model.safetensors")),
    Case("a start from a network of another size", f"{TRAIN} channels=5", "UserError: start_from = "
         "…/study/pretrain-1 holds a network of another size than the parameters ask for; make generator, channels, "
         "depth and lstm_layers agree."),
    # The folder of a run
    Case("the run's folder is a file", f"python -m lib.train …/song.wav data=…/data.json {SMALL}", "UserError: "
         "…/song.wav is a file; choose another folder."),
    Case("the run's folder lies below a file", "python -m lib.train …/song.wav/run data=…/data.json", "UserError: "
         "Cannot write beside …/song.wav/run: …; choose another folder."),
    Case("the run's folder lies in a read-only one", "python -m lib.train …/locked/run data=…/data.json",
         "UserError: Cannot write beside …/locked/run: Permission denied; choose another folder."),
    Case("config.json is truncated", f"{TRAIN} seed=2", "UserError: Cannot read …/study/l1-1/config.json as JSON (…)…",
         lambda place: truncate(place / PLACE / "config.json")),
    Case("config.json is a list", f"{TRAIN} seed=2", "UserError: …/study/l1-1/config.json …; restore or remove it.",
         lambda place: (place / PLACE / "config.json").write_text("[1]")),
    Case("config.json holds no parameters", f"{TRAIN} seed=2", "UserError: …/study/l1-1/config.json …; restore or "
         "remove it.", noted(lambda note: note.pop("config"))),
    Case("config.json holds an unknown parameter", TRAIN, "UserError: Unknown training parameter colour; all names "
         "are in lib/config.py.", noted(lambda note: note["config"].update(colour=1))),
    Case("config.json holds text for a number", TRAIN, "UserError: steps = 'many' must be of type int.",
         noted(lambda note: note["config"].update(steps="many"))),
    Case("the config.json of a run beside it is a list", f"{TRAIN} seed=2", "UserError: …/study/gan-1/config.json …; "
         "restore or remove it.", lambda place: (place / "study/gan-1/config.json").write_text("[1]")),
    Case("a line of the log is no JSON", TRAIN, f"UserError: Line 2 of …/study/l1-1/metrics.jsonl {LOG}",
         logged('{"step": 1, "l1_')),
    Case("a line of the log is a list", TRAIN, f"UserError: Line 2 of …/study/l1-1/metrics.jsonl {LOG}", logged("[1]")),
    Case("a line of the log without its step", TRAIN, f"UserError: Line 2 of …/study/l1-1/metrics.jsonl {LOG}",
         logged('{"l1_batches": 1.0}')),
    # Checkpoints
    Case("a truncated checkpoint", TRAIN, f"UserError: …/study/l1-1/state.pt {OURS}",
         lambda place: (unfinished(place), truncate(place / PLACE / "state.pt"))),
    Case("an empty checkpoint", TRAIN, f"UserError: …/study/l1-1/state.pt {OURS}", replaced("state.pt", "")),
    Case("a checkpoint that is text", TRAIN, f"UserError: …/study/l1-1/state.pt {OURS}",
         replaced("state.pt", "weights")),
    Case("a checkpoint that is a folder", TRAIN, f"UserError: …/study/l1-1/state.pt {OURS}", stem_of),
    Case("a checkpoint of another program", TRAIN, "UserError: …/study/l1-1/state.pt is not a checkpoint of this "
         "program; delete it to start afresh.", state(lambda value, place: {"state_dict": {}, "epoch": 3})),
    Case("a checkpoint that is a list", TRAIN, "UserError: …/study/l1-1/state.pt is not a checkpoint of this "
         "program; delete it to start afresh.", state(lambda value, place: [1, 2])),
    Case("a checkpoint of another configuration", TRAIN, "UserError: …/study/l1-1/state.pt was trained with other "
         "parameters than config.json beside it; choose another folder.",
         state(lambda value, place: value["config"].update(lr=0.5))),
    Case("a checkpoint without its optimizer", TRAIN, "UserError: …/study/l1-1/state.pt is not a checkpoint of this "
         "program; delete it to start afresh.", state(lambda value, place: value.pop("optimizer") and None)),
    Case("a checkpoint with the weights of another network", TRAIN, "UserError: …/study/l1-1/state.pt holds networks "
         "of another size than the parameters ask for; make generator, channels, depth and lstm_layers agree.",
         state(lambda value, place: value.update(generator=Demucs(channels=5, depth=3).state_dict()))),
    Case("a checkpoint with text for its step", TRAIN, "UserError: …/study/l1-1/state.pt is not a checkpoint of this "
         "program; delete it to start afresh.", state(lambda value, place: value.update(step="two"))),
    Case("a checkpoint that would run a program", TRAIN, f"UserError: …/study/l1-1/state.pt {OURS}",
         state(lambda value, place: {"generator": harmful(place)})),
    # Processes and machines
    Case("no process", launched(nproc=0), "nproc = 0 and nnodes = 1 must be at least 1: processes, and machines."),
    Case("a machine joins without words", JOIN, f"Missing or wrong: …; {WORDS}"),
    Case("a machine joins with a word for a number", f"{JOIN} nproc=two nnodes=2 rdzv_endpoint=a:1",
         f"Missing or wrong: …; {WORDS}"),
    Case("a machine joins none", f"{JOIN} nproc=0 nnodes=2 rdzv_endpoint=a:1", "nproc = 0 and nnodes = 2 "
         "must be at least 1: processes, and machines."),
    Case("an address without a port", f"{JOIN} nproc=1 nnodes=2 rdzv_endpoint=here", "rdzv_endpoint = "
         "'here' must be host:port of the first machine."),
    Case("a port that is no number", f"{JOIN} nproc=1 nnodes=2 rdzv_endpoint=here:there", "rdzv_endpoint "
         "= 'here:there' must be host:port of the first machine."),
    Case("an arm that nobody knows", "python -m lib.pipeline quick run=MINE 'arms=[l1, magic]'", "arms = ['l1', "
         "'magic'] is unknown; choose one of l1, l1-long, spectral, spectral-adv, spectral-gan, frozen, gan, "
         "gan-cures, gan-share-0.03, gan-share-0.1, gan-share-0.4, gan-share-0.8."),
    # What must work
    Case("a finished run whose decoded tracks are gone", TRAIN, "works: it is not repeated",
         lambda place: [path.unlink() for path in (place / "cache-1").iterdir()]),
    Case("more processes than tracks", f"torchrun --nproc_per_node 3 -m lib.train …/new data=…/data.json {SMALL} "
         "tracks=1 batch=3 remix_group=0", "works",
         check=lambda place, answer: json.loads((place / "new/config.json").read_text())),
    Case("a folder with spaces, quotes and accents", "python -m lib.train \"…/Étude n° 1 'live'\" data=…/data.json "
         f"{SMALL}", "works",
         check=lambda place, answer: json.loads((place / "Étude n° 1 'live'" / "config.json").read_text())["finished"]),
]  # fmt: skip
