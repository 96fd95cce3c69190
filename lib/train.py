"""Train the generator with L1 alone or against a discriminator, on 1 to N processes.

A run is a folder: config.json (all parameters, and who made it), metrics.jsonl (one line per evaluation), state.pt
(everything to resume), model.safetensors (the generator's weights).

    python -m lib.train results/mine/l1 data=results/quick/data.json steps=500        # one process
    torchrun --nproc_per_node 16 -m lib.train results/mine/l1 data=… channels=100     # sixteen
    python -m lib.train results/mine/l1                                               # resume, same parameters

Source of the recipe: Défossez et al., arXiv 1911.13254, section 5; of the adversarial part: `lib.objective`.
"""

import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib import instruments
from lib.augment import Batches
from lib.config import parse
from lib.data import SAMPLERATE, SOURCES, Excerpts, read_index
from lib.demucs import Demucs, center_trim, save_weights
from lib.errors import UserError
from lib.files import atomic, read_json, write_json
from lib.game import Game, total_norm
from lib.launch import claim, status_line
from lib.objective import reconstruction_loss
from lib.provenance import ROOT


class Trainer:
    """Generator, discriminator, their optimizers and the data of one run, on one process of `world`."""

    def __init__(self, config, folder, *, rank=0, world=1, device="cpu"):
        self.config, self.folder, self.rank, self.world = config, Path(folder), rank, world
        self.device = torch.device(device)
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        self._build_networks()
        self._build_data()
        if (self.folder / "state.pt").exists():
            self._restore(self.folder / "state.pt")
        elif config.start_from:
            state = _load_state(ROOT / config.start_from / "state.pt", self.device)
            self._load_into(state, "generator", "optimizer")

    def _build_networks(self):
        c = self.config
        torch.manual_seed(c.seed)
        self.generator = Demucs(
            sources=len(SOURCES),
            channels=c.channels,
            depth=c.depth,
            lstm_layers=c.lstm_layers,
            projection=c.projection,
        ).to(self.device)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=c.lr, fused=True)
        self._generate = self.generator
        if self.world > 1:
            self._generate = DistributedDataParallel(self.generator, broadcast_buffers=False)
        self.averaged = None
        if c.ema:
            self.averaged = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(c.ema))
        self.game = Game(c, rank=self.rank, world=self.world, device=self.device) if c.adversarial else None

    @property
    def kept(self):
        """The generator that is evaluated and kept: the averaged one where there is one."""
        return self.averaged.module if self.averaged else self.generator

    def _build_data(self):
        c = self.config
        sets, _ = read_index(ROOT / c.data)
        sets["train"] = sets["train"][: c.tracks or None]
        time_ = self.generator.valid_length(round(c.seconds * SAMPLERATE))
        shift = round(c.shift_seconds * SAMPLERATE)
        self.batches = Batches(
            Excerpts(sets["train"], time_ + shift, round(c.stride_seconds * SAMPLERATE)),
            batch=c.batch,
            shift=shift,
            group=c.remix_group,
            seed=[c.seed, bool(c.start_from)],
            rank=self.rank,
            world=self.world,
        )
        self.evaluation = {
            "train": Excerpts(sets["train"], time_, time_),
            "heldout": Excerpts(sets["valid"], time_, time_),
        }
        for name, excerpts in self.evaluation.items():
            if not len(excerpts):
                raise UserError(f"There are no {name} tracks in {c.data}; both train and valid tracks are needed.")

    # One step

    def train_step(self):
        """One step of both networks; returns figures of it as a dictionary of scalar tensors."""
        c = self.config
        stems = self.batches(self.step).to(self.device, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = c.lr_final + (c.lr - c.lr_final) * (1 + math.cos(math.pi * self.step / c.steps)) / 2
        estimates = self._generate(stems.sum(1))
        stems = center_trim(stems, estimates)
        outputs = estimates.detach().requires_grad_()  # the losses' gradients meet here
        l1 = reconstruction_loss(outputs, stems)
        (gradient,) = torch.autograd.grad(l1, outputs)
        figures = {"l1_train": l1.detach()}
        if self.game:
            figures |= self.game.discriminator_step(self.step, stems, estimates.detach())
            adversarial, more = self.game.gradient(self.step, stems, outputs, gradient)
            gradient, figures = gradient + adversarial, figures | more
        self.optimizer.zero_grad(set_to_none=True)
        estimates.backward(gradient)
        figures["generator_gradient"] = total_norm(self.generator)
        self.optimizer.step()
        if self.averaged:
            self.averaged.update_parameters(self.generator)
        self.step += 1
        return figures

    # Evaluation

    @torch.no_grad()
    def evaluate(self):
        """Held-out L1 and, with a discriminator, the figures of `instruments`; the same on every rank."""
        self.kept.eval()
        figures, sets = {}, {}
        for part, excerpts in self.evaluation.items():
            count = min(self.config.evaluation_excerpts, len(excerpts))
            chosen = [i * len(excerpts) // count for i in range(count)]  # spread evenly over the tracks
            mine = [(i, *self._evaluate_excerpt(excerpts, i)) for i in chosen[self.rank :: self.world]]
            everyone = sorted(sum(self._gather(mine), []), key=lambda item: item[0])
            name = "l1_valid" if part == "heldout" else "l1_train_excerpts"
            figures[name] = sum(error for _, error, _ in everyone) / count
            for k, kind in enumerate(("real", "fake")):
                logits = [{sub: pair[k] for sub, pair in found.items()} for _, _, found in everyone]
                sets[f"{kind}_{part}"] = {sub: torch.stack([item[sub] for item in logits]) for sub in logits[0]}
        self.kept.train()
        if self.game:
            figures |= instruments.measure_all(sets, SOURCES) | {"p": self.game.p}
            self.game.observe(figures)
        return figures

    def _evaluate_excerpt(self, excerpts, index):
        stems = torch.empty(1, len(SOURCES), 2, excerpts.samples)
        for s in range(len(SOURCES)):
            excerpts.read(index, stems.numpy()[0, s], s)
        stems = stems.to(self.device)
        estimates = self.kept(stems.sum(1))
        stems = center_trim(stems, estimates)
        logits = self.game.logits(stems, estimates, index) if self.game else {}
        return reconstruction_loss(estimates, stems).item(), logits

    def _gather(self, mine):
        if self.world == 1:
            return [mine]
        everyone = [None] * self.world
        distributed.all_gather_object(everyone, mine)
        return everyone

    # Checkpoints

    def _networks(self):
        parts = {"generator": self.generator, "optimizer": self.optimizer}
        parts |= {"averaged": self.averaged} if self.averaged else {}
        return parts | ({"game": self.game} if self.game else {})

    def save(self):
        """Write state.pt atomically."""
        state = {name: part.state_dict() for name, part in self._networks().items()}
        state |= {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "config": dataclasses.asdict(self.config),
        }
        with atomic(self.folder / "state.pt") as temporary:
            torch.save(state, temporary)

    def _restore(self, path):
        state = _load_state(path, self.device)
        if state["config"] != dataclasses.asdict(self.config):
            raise UserError(
                f"{path} was trained with other parameters than config.json beside it; choose another folder."
            )
        self._load_into(state, *self._networks())
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]

    def _load_into(self, state, *names):
        try:
            for name in names:
                self._networks()[name].load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                "The checkpoint holds networks of another size than the parameters ask for "
                f"({self.config.start_from or self.folder}); make channels, depth and lstm_layers agree."
            ) from error

    # The run

    def run(self):
        """Train to the last step, from wherever the folder's state.pt stands."""
        c, log = self.config, self.folder / "metrics.jsonl"
        if self.rank == 0:
            _drop_lines_after(log, self.step)
        sums, began, first = {}, time.monotonic(), self.step
        while self.step < c.steps:
            for name, value in self.train_step().items():  # some figures are not there in every step
                total, count = sums.get(name, (0, 0))
                sums[name] = total + value, count + 1
            if self.step % c.evaluate_every and self.step < c.steps:
                continue
            means = self._means(sums)
            spent = time.monotonic() - began
            line = {"step": self.step, **means, **self.evaluate()}
            self.seconds += time.monotonic() - began
            line |= {"seconds": round(self.seconds, 2), "steps_per_second": round((self.step - first) / spent, 3)}
            if self.rank == 0:
                self._record(log, line)
            sums, began, first = {}, time.monotonic(), self.step
        if self.rank == 0:
            if c.keep == "last":
                save_weights(self.kept, self.folder / "model.safetensors")
            note = read_json(self.folder / "config.json")
            write_json(self.folder / "config.json", note | {"finished": True, "seconds": round(self.seconds, 1)})

    def _means(self, sums):
        names = sorted(sums)
        values = torch.stack([sums[name][0] / sums[name][1] for name in names]).double()
        if self.world > 1:
            distributed.all_reduce(values)
            values /= self.world
        if not values.isfinite().all():
            raise UserError(
                f"The loss became infinite or NaN before step {self.step} of {self.folder}; "
                "the last checkpoint is kept. Lower lr or discriminator_lr."
            )
        return dict(zip(names, values.tolist(), strict=True))

    def _record(self, log, line):
        print(status_line(self.folder.name, line, self.config.steps), flush=True)
        if self.config.keep == "best" and line["l1_valid"] < self.best:
            self.best = line["l1_valid"]
            save_weights(self.kept, self.folder / "model.safetensors")
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.save()


def _drop_lines_after(log, step):
    """A run that was killed may have recorded more than its last checkpoint holds."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        with atomic(log) as temporary:
            temporary.write_text("".join(kept))


def _load_state(path, device):
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; train the run it belongs to first.") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged or foreign file
        raise UserError(f"{path} is damaged or not a checkpoint of this program; delete it to start afresh.") from error


def main(arguments=None):
    """Command line, alone or under torchrun: FOLDER [name=value …]."""
    folder, *pairs = arguments if arguments is not None else sys.argv[1:] or ["--help"]
    if folder in ("-h", "--help"):
        print(__doc__)
        return
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        claimed = [claim(parse(pairs, folder), folder) if rank == 0 else None]
        if world > 1:
            distributed.broadcast_object_list(claimed)
        [(config, finished)] = claimed
        if not finished:
            Trainer(config, folder, rank=rank, world=world, device=device).run()
    finally:
        if world > 1:
            distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"UserError: {error}")
