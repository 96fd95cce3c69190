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

from lib import discriminator, instruments
from lib.augment import Batches
from lib.config import Config, parse
from lib.data import SAMPLERATE, SOURCES, Excerpts, read_index
from lib.demucs import Demucs, center_trim, save_weights
from lib.errors import UserError
from lib.files import atomic, read_json, write_json
from lib.launch import claim, status_line
from lib.objective import adversarial_loss, discriminator_loss, reconstruction_loss
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
        self.generator = Demucs(sources=len(SOURCES), channels=c.channels, depth=c.depth, lstm_layers=c.lstm_layers).to(
            self.device
        )
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=c.lr, fused=True)
        self.discriminator = None
        if c.adversarial_weight:
            torch.manual_seed(c.seed + 1)  # its start does not depend on the generator's size
            self.discriminator = discriminator.build(c.discriminator, width=c.discriminator_width).to(self.device)
            self.discriminator_optimizer = torch.optim.Adam(
                self.discriminator.parameters(), lr=c.discriminator_lr, betas=(0.5, 0.999), fused=True
            )  # pix2pix's betas
        self._generate, self._discriminate = self.generator, self.discriminator
        if self.world > 1:
            self._generate = DistributedDataParallel(self.generator, broadcast_buffers=False)
            if self.discriminator is not None:
                self._discriminate = DistributedDataParallel(self.discriminator, broadcast_buffers=False)

    def _build_data(self):
        c = self.config
        sets, _ = read_index(ROOT / c.data)
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
        """One step of both networks; returns the losses as a dictionary of scalar tensors."""
        c = self.config
        stems = self.batches(self.step).to(self.device, non_blocking=True)
        mixture = stems.sum(1)
        for group in self.optimizer.param_groups:
            group["lr"] = c.lr_final + (c.lr - c.lr_final) * (1 + math.cos(math.pi * self.step / c.steps)) / 2
        estimates = self._generate(mixture)
        stems, mixture = center_trim(stems, estimates), center_trim(mixture, estimates)
        loss = l1 = reconstruction_loss(estimates, stems)
        losses = {"l1_train": l1.detach()}
        if self.discriminator is not None:
            losses["discriminator"] = self._discriminator_step(mixture, stems, estimates.detach())
            weight = self._adversarial_weight()
            if weight:
                self.discriminator.requires_grad_(False)
                adversarial = adversarial_loss(self.discriminator(mixture, estimates)[-1])
                self.discriminator.requires_grad_(True)
                loss = l1 + weight * adversarial
                losses["adversarial"] = adversarial.detach()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return losses

    def _discriminator_step(self, mixture, stems, estimates):
        # One forward for both: under DistributedDataParallel two would synchronise twice.
        logits = self._discriminate(torch.cat([mixture, mixture]), torch.cat([stems, estimates]))[-1]
        loss = discriminator_loss(*logits.chunk(2))
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        return loss.detach()

    def _adversarial_weight(self):
        c = self.config
        done = self.step - c.adversarial_start
        ramp = 1.0 if not c.adversarial_ramp else min((done + 1) / c.adversarial_ramp, 1.0)
        return c.adversarial_weight * ramp if done >= 0 else 0.0

    # Evaluation

    @torch.no_grad()
    def evaluate(self):
        """Held-out L1 and, with a discriminator, the figures of `instruments`; the same on every rank."""
        self.generator.eval()
        errors, logits = {}, {}
        for part, excerpts in self.evaluation.items():
            count = min(self.config.evaluation_excerpts, len(excerpts))
            chosen = [i * len(excerpts) // count for i in range(count)]  # spread evenly over the tracks
            mine = [(i, *self._evaluate_excerpt(excerpts, i)) for i in chosen[self.rank :: self.world]]
            everyone = sorted(sum(self._gather(mine), []), key=lambda item: item[0])
            errors[part] = sum(error for _, error, _, _ in everyone) / count
            for k, kind in ((2, "real"), (3, "fake")):
                logits[f"{kind}_{part}"] = torch.cat([item[k] for item in everyone]) if self.discriminator else None
        self.generator.train()
        figures = {"l1_valid": errors["heldout"], "l1_train_excerpts": errors["train"]}
        return figures | (instruments.measure(logits) | {"p": 0.0} if self.discriminator is not None else {})

    def _evaluate_excerpt(self, excerpts, index):
        stems = torch.empty(1, len(SOURCES), 2, excerpts.samples)
        for s in range(len(SOURCES)):
            excerpts.read(index, stems.numpy()[0, s], s)
        stems = stems.to(self.device)
        mixture = stems.sum(1)
        estimates = self.generator(mixture)
        stems, mixture = center_trim(stems, estimates), center_trim(mixture, estimates)
        error = reconstruction_loss(estimates, stems).item()
        if self.discriminator is None:
            return error, None, None
        real, fake = (self.discriminator(mixture, x)[-1].flatten().cpu() for x in (stems, estimates))
        return error, real, fake

    def _gather(self, mine):
        if self.world == 1:
            return [mine]
        everyone = [None] * self.world
        distributed.all_gather_object(everyone, mine)
        return everyone

    # Checkpoints

    def _networks(self):
        parts = {"generator": self.generator, "optimizer": self.optimizer}
        if self.discriminator is not None:
            parts |= {"discriminator": self.discriminator, "discriminator_optimizer": self.discriminator_optimizer}
        return parts

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
            for name, value in self.train_step().items():
                sums[name] = sums.get(name, 0) + value
            if self.step % c.evaluate_every and self.step < c.steps:
                continue
            means = self._means(sums, self.step - first)
            spent = time.monotonic() - began
            line = {"step": self.step, **means, **self.evaluate()}
            self.seconds += time.monotonic() - began
            line |= {"seconds": round(self.seconds, 2), "steps_per_second": round((self.step - first) / spent, 3)}
            if self.rank == 0:
                self._record(log, line)
            sums, began, first = {}, time.monotonic(), self.step
        if self.rank == 0:
            if c.keep == "last":
                save_weights(self.generator, self.folder / "model.safetensors")
            note = read_json(self.folder / "config.json")
            write_json(self.folder / "config.json", note | {"finished": True, "seconds": round(self.seconds, 1)})

    def _means(self, sums, steps):
        names = sorted(sums)
        values = torch.stack([sums[name] for name in names]).double() / steps
        if self.world > 1:
            distributed.all_reduce(values)
            values /= self.world
        if not values.isfinite().all():
            raise UserError(
                f"The loss became infinite or NaN between steps {self.step - steps} and {self.step} of {self.folder}; "
                "the last checkpoint is kept. Lower lr or discriminator_lr."
            )
        return dict(zip(names, values.tolist(), strict=True))

    def _record(self, log, line):
        print(status_line(self.folder.name, line, self.config.steps), flush=True)
        if self.config.keep == "best" and line["l1_valid"] < self.best:
            self.best = line["l1_valid"]
            save_weights(self.generator, self.folder / "model.safetensors")
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
        if rank == 0:
            config, finished = claim(parse(pairs, folder), folder)
        if world > 1:
            distributed.barrier()
        if rank:
            note = read_json(Path(folder, "config.json"))
            config, finished = Config.from_dict(note["config"]), note.get("finished")
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
