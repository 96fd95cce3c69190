"""The trainings of each plan, as a list of `Run`.

law      passes until memorisation: 1, 2, 4, 8, 16 tracks; two tracks four times as long; remix and a second width at 2
         and 4 tracks; seeds 1 to 3
game     two tracks, the seeds of the law: the generator at rest, learning by L1 alone while the discriminator watches,
         and playing
cures    two tracks, seed 1, every cure; without a cure: seeds 1 to 3, seed 1 on all tracks, and with L1 alone
confirm  the two best of the cures, their combination where it is another, and none, on three pairs of tracks that no
         cure was chosen on
cues     no training: what the discriminators on two tracks look at (`lib.studies.cues`)
regimes  discriminators alone, against a generator at rest: few or many segments, a worse or a better generator
"""

import dataclasses
import math

import pandas as pd

from lib.common.errors import UserError
from lib.config import Config
from lib.memorisation import ALLOWED
from lib.runs.cures import CURES, REFERENCES, changes_of

LR = 3e-4  # of both networks, constant
TRACKS, SEEDS, FRESH = (1, 2, 4, 8, 16), (1, 2, 3), (4, 5, 6)
BESIDE = (2, 4)  # tracks with remix, and with a second width
LONG = 4  # times the length
PLANS = ("law", "game", "cures", "confirm", "cues", "regimes")
# The cells of regimes: segments × shares of the generator's error, and the points at which a second width is tried
SEGMENTS, ERRORS, WIDTHS, WIDER_AT = (8, 32, 128, 512), (1.0, 0.7, 0.4, 0.15), (16, 32), ((8, 0.15), (128, 0.4))


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its tracks, and what distinguishes it."""

    tracks: int
    seconds: float  # length of a track before it is split
    seed: int
    steps: int
    evaluate_every: int
    pass_excerpts: int  # excerpts in a pass: as many as the training pieces hold without overlap
    width: int
    mode: str = "play"  # or rest, watch, l1
    remix: bool = False
    cure: str = "none"  # of `CURES`, or several joined by " + "

    @property
    def name(self):
        """The name of its folder."""
        words = [self.mode, f"{self.tracks}x{self.seconds:g}", f"w{self.width}", *(["remix"] if self.remix else [])]
        if self.cure != "none":
            words.append("".join(letter if letter.isalnum() or letter in "+." else "_" for letter in self.cure))
        return "-".join([*words, str(self.steps), str(self.seed)])

    def config(self, settings, data, start):
        """Its `Config`. settings: parameters that all runs share; data: index; start: folder of the pre-training."""
        values = settings | {"data": data, "start_from": start, "seed": self.seed, "steps": self.steps}
        values |= {"evaluate_every": self.evaluate_every, "discriminator_width": self.width}
        values["remix_group"] = 4 if self.remix else 0
        changes = changes_of(self.cure)
        values["discriminator_width"] = max(round(self.width * changes.pop("width", 1)), 1)
        values |= changes
        if self.mode == "rest":
            values |= {"lr": 0.0, "lr_final": 0.0}
        elif self.mode == "watch":
            values["adversarial_start"] = self.steps + 1
        config = Config.from_dict(values)
        return config.without_adversary() if self.mode == "l1" else config


def shared(start, overrides):
    """The parameters that all runs share: the protocol, the generator of the pre-training, and `overrides`."""
    network = ("generator", "channels", "depth", "lstm_layers", "projection")
    protocol = dict(
        lr=LR, lr_final=LR, discriminator_lr=LR, batch=8, seconds=1.5, shift_seconds=0.5, stride_seconds=0.5,
        adversarial_weight=0.01, adversarial_loss="bce", discriminator="patch", discriminator_width=16,
        evaluation_excerpts=64,
    )  # fmt: skip
    return protocol | {name: getattr(start, name) for name in network} | overrides


def make(settings, count, seconds, seed, *, every, passes=0.0, steps=0, **changes):
    """A `Run` on `count` tracks cut to `seconds`, of so many passes or steps; every: passes between evaluations."""
    in_pass, batch = max(int(seconds * 2 / 3 // settings["seconds"]), 1) * count, settings["batch"]
    total = steps or math.ceil(passes * in_pass / batch)
    between = min(max(round(every * in_pass / batch), 1), total)
    changes = {"width": settings["discriminator_width"]} | changes
    return Run(count, seconds, seed, total, between, in_pass, **changes)


def plan(name, *, available, seconds, settings, passes, steps, every=3.0, table=None):
    """The runs of a plan.

    available: {length in seconds: number of tracks that are so long}; seconds: length to which tracks are cut; passes:
    of the law and the game; steps: of the cures; every: passes between evaluations; table: cures.csv, for "confirm".
    """

    def run(count, seed, length=seconds, by_steps=None, **changes):
        return make(settings, count, length, seed, every=every, passes=passes, steps=by_steps, **changes)

    enough = available[seconds]
    runs = []
    if name == "law":
        for seed in SEEDS:
            runs += [run(count, seed) for count in TRACKS if count <= enough]
            runs += [run(count, seed, remix=True) for count in BESIDE if count <= enough]
            wide = 2 * settings["discriminator_width"]
            runs += [run(count, seed, width=wide) for count in BESIDE if count <= enough]
            if available.get(LONG * seconds, 0) >= 2:
                runs.append(run(2, seed, length=LONG * seconds))
    elif name == "game":
        runs = [run(2, seed, mode=mode) for seed in SEEDS for mode in ("play", "watch", "rest")]
    elif name == "cures":
        runs = [run(2, seed, by_steps=steps) for seed in SEEDS]  # whose discriminators give the null of seed 1
        runs += [run(2, 1, by_steps=steps, mode="l1"), run(enough, 1, by_steps=steps)]
        runs += [run(2, 1, by_steps=steps, cure=cure) for cure in CURES]
    elif name == "confirm":
        best = ranking(table).index[:2].tolist()
        if len(best) < 2:
            raise UserError("cures.csv holds fewer than two cures; run the plan cures first.")
        together = " + ".join(best)
        new = changes_of(together) not in map(changes_of, best)  # one of the two may hold the other
        chosen = ["none", *best, *[together] * new]
        runs = [run(2, seed, by_steps=steps, cure=cure) for seed in FRESH for cure in chosen]
    else:
        raise UserError(f"plan = {name!r} is unknown; choose one of {', '.join(PLANS)}.")
    return list(dict.fromkeys(runs))


def cells():
    """The cells of the plan regimes: (segments, error, width, seed) each."""
    points = [(count, error, WIDTHS[0]) for count in SEGMENTS for error in ERRORS]
    points += [(count, error, WIDTHS[1]) for count, error in WIDER_AT]
    return [(*point, seed) for seed in SEEDS[:2] for point in points]


def score(row, naive):
    """How far a cure is from what it should reach, in units of what may be left, `ALLOWED`; 0 is best.

    The sum of the BCE gap, of the membership AUC above its null (0.5 where that is missing), and of the held-out AUC
    that is lost against `naive`, the same training without a cure; each counts as 0 if it is negative.
    """
    null = 0.5 if pd.isna(row["membership_null"]) else row["membership_null"]
    left = {
        "gap": row["bce_heldout"] - row["bce_train"],
        "memory": row["membership_auc"] - null,
        "auc": naive["auc_heldout"] - row["auc_heldout"],
    }
    return sum(max(left[name], 0) / allowed for name, allowed in ALLOWED.items())


def ranking(table):
    """The scores of the single cures of the plan "cures", best first: Series indexed by cure."""
    if table is None:
        raise UserError("cures.csv is missing; run the plan cures first.")
    rows = table[(table["plan"] == "cures") & ~table["cure"].isin(REFERENCES)]
    return rows.set_index("cure")["score"].dropna().sort_values(kind="stable")
