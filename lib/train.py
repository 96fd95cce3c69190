"""Train the generator with L1 alone or against a discriminator, on 1 to N processes.

A run is a folder: config.json (all parameters, and who made it), metrics.jsonl (one line per evaluation), state.pt
(everything to resume), model.safetensors (the generator's weights).

    python -m lib.train results/mine/l1 data=results/quick/data.json steps=500        # one process
    torchrun --nproc_per_node 16 -m lib.train results/mine/l1 data=… channels=100     # sixteen
    python -m lib.train results/mine/l1                                               # resume, same parameters

SIGTERM, as a cloud or Slurm sends before it takes the machine away, saves after the step and ends with status 143; the
same command then goes on from there. `--nnodes`, `--max-restarts` and the Slurm script: README.

Source of the recipe: Défossez et al., arXiv 1911.13254, section 5; of the adversarial part: `lib.losses`.
"""

import contextlib
import dataclasses
import gc
import math
import signal
import sys
import time
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib import memorisation as instruments
from lib.common.errors import UserError
from lib.common.files import locked, read_json, write_json
from lib.common.processes import end_with_parent
from lib.common.provenance import ROOT
from lib.config import Config, parse
from lib.data.tracks import SOURCES
from lib.demucs import center_trim
from lib.gan import Adversary, total_norm
from lib.losses import reconstruction_loss
from lib.models.cpu.prepare import keep_buffers, prepare
from lib.models.weights import save_weights
from lib.runs.build import build_data, build_discriminator, build_generator
from lib.runs.checkpoint import append_line, drop_lines_after, load_state, save_state
from lib.runs.distributed import Ranks
from lib.runs.launch import claim, status_line

INTERRUPTED = 128 + signal.SIGTERM  # exit status of a run that saved and stopped


class Interrupted(Exception):
    """Somebody asked the run to stop; it has saved."""


class Trainer:
    """Generator, discriminator, their optimizers and the data of one run, on one of its processes."""

    def __init__(self, config, folder, ranks):
        self.config, self.folder, self.ranks, self.device = config, Path(folder), ranks, ranks.device
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        self.sums = {}  # {figure: (sum, count)} of the steps since the last evaluation
        self.first_bad = torch.tensor(-1, device=self.device)  # the first step with a figure that is no number
        self.stopping = False  # somebody asked for it
        self._build_networks()
        self.batches, self.evaluation = build_data(
            config, self.generator, rank=ranks.rank, world_size=ranks.world_size, prefetch=self.device.type == "cuda"
        )
        if (self.folder / "state.pt").exists():
            self._restore(self.folder / "state.pt")
        elif config.start_from:
            path = ROOT / config.start_from / "state.pt"
            self._load_into(load_state(path, self.device), path, "generator", "optimizer")

    def _build_networks(self):
        c = self.config
        torch.manual_seed(c.seed)
        self.generator = build_generator(c).to(self.device)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=c.lr, fused=True)
        self._generate = prepare(self.generator, precision=c.precision, compile=c.compile, report=self._say)
        if self.ranks.world_size > 1:
            # It sends the gradients of one layer while the next one's are computed.
            self._generate = DistributedDataParallel(
                self._generate, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        self.ema = None
        if c.ema:
            self.ema = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(c.ema))
        self._estimate = prepare(self.kept)
        self.adversary = None
        if c.adversarial:
            self.adversary = Adversary(
                c, build_discriminator(c), rank=self.ranks.rank, world_size=self.ranks.world_size, device=self.device
            )

    @property
    def kept(self):
        """The generator that is evaluated and kept: the averaged one where there is one."""
        return self.ema.module if self.ema else self.generator

    def _say(self, line):
        if self.ranks.rank == 0:
            print(f"{self.folder.name:<14} {line}", flush=True)

    # One step

    def train_step(self):
        """One step of both networks; returns metrics of it as a dictionary of scalar tensors."""
        c = self.config
        stems = self.batches(self.step).to(self.device, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = c.lr_final + (c.lr - c.lr_final) * (1 + math.cos(math.pi * self.step / c.steps)) / 2
        parts = stems.sum(1).split(c.micro_batch or len(stems))
        with torch.set_grad_enabled(len(parts) == 1):
            estimates = torch.cat([self._generate(part) for part in parts])
        stems = center_trim(stems, estimates)
        outputs = estimates.detach().requires_grad_()  # the losses' gradients meet here
        l1 = reconstruction_loss(outputs, stems)
        (gradient,) = torch.autograd.grad(l1, outputs)
        metrics = {"l1_batches": l1.detach()}
        if self.adversary:
            metrics |= self.adversary.discriminator_step(self.step, stems, estimates.detach())
            adversarial, more = self.adversary.gradient(self.step, stems, outputs, gradient)
            gradient, metrics = gradient + adversarial, metrics | more
        self.optimizer.zero_grad(set_to_none=True)
        if len(parts) == 1:
            estimates.backward(gradient)
        else:
            self._backward_by_parts(parts, gradient)
        metrics["generator_gradient"] = total_norm(self.generator)
        self.optimizer.step()
        if self.ema:
            self.ema.update_parameters(self.generator)
        self.step += 1
        return metrics

    def _backward_by_parts(self, parts, gradient):
        """Run the network again part by part, with the gradient that the whole batch's losses gave at the estimates.

        One more forward, and the memory of one part: no loss needs to know that the batch is divided, not even the
        game, whose discriminator learns from all estimates before it judges them.
        """
        for k, (part, its_gradient) in enumerate(zip(parts, gradient.split(len(parts[0])), strict=True)):
            last = k == len(parts) - 1
            alone = contextlib.nullcontext() if last or self.ranks.world_size == 1 else self._generate.no_sync()
            with alone:
                self._generate(part).backward(its_gradient)

    # Evaluation

    @torch.no_grad()
    def evaluate(self):
        """Held-out L1 and, with a discriminator, the metrics of `instruments`; the same on every rank."""
        self.kept.eval()
        metrics, sets = {}, {}
        for part, excerpts in self.evaluation.items():
            count = min(self.config.evaluation_excerpts, len(excerpts))
            chosen = [i * len(excerpts) // count for i in range(count)]  # spread evenly over the tracks
            local = [
                (i, *self._evaluate_excerpt(excerpts, i)) for i in chosen[self.ranks.rank :: self.ranks.world_size]
            ]
            everyone = sorted(sum(self.ranks.all_gather(local), []), key=lambda item: item[0])
            name = "l1_heldout" if part == "heldout" else "l1_train"
            metrics[name] = sum(error for _, error, _ in everyone) / count
            for k, kind in enumerate(("real", "generated")):
                logits = [{sub: pair[k] for sub, pair in found.items()} for _, _, found in everyone]
                sets[f"{kind}_{part}"] = {sub: torch.stack([item[sub] for item in logits]) for sub in logits[0]}
        self.kept.train()
        if self.adversary:
            metrics |= instruments.measure_all(sets, SOURCES) | {"p": self.adversary.p}
            self.adversary.observe(metrics)
        return metrics

    def _evaluate_excerpt(self, excerpts, index):
        stems = torch.empty(1, len(SOURCES), 2, excerpts.samples)
        for s in range(len(SOURCES)):
            excerpts.read(index, stems.numpy()[0, s], s)
        stems = stems.to(self.device)
        estimates = self._estimate(stems.sum(1))
        stems = center_trim(stems, estimates)
        logits = self.adversary.logits(stems, estimates, index) if self.adversary else {}
        return reconstruction_loss(estimates, stems).item(), logits

    # Checkpoints

    def _networks(self):
        parts = {"generator": self.generator, "optimizer": self.optimizer}
        parts |= {"ema": self.ema} if self.ema else {}
        return parts | ({"adversary": self.adversary} if self.adversary else {})

    def save(self):
        """Write state.pt, from rank 0."""
        # A run may be stopped between evaluations
        sums = self.ranks.all_gather({name: (total.cpu(), count) for name, (total, count) in self.sums.items()})
        if self.ranks.rank == 0:
            state = {name: part.state_dict() for name, part in self._networks().items()}
            state |= {name: getattr(self, name) for name in ("step", "seconds", "best")}
            state |= {"sums": sums, "config": dataclasses.asdict(self.config)}
            save_state(self.folder, state, self.config.keep_states)
        self.ranks.broadcast()  # nobody leaves before it is written

    def _restore(self, path):
        state = load_state(path, self.device)
        try:
            same = Config.from_dict(state["config"]) == self.config
            self.step, self.seconds, self.best = int(state["step"]), float(state["seconds"]), float(state["best"])
            self.sums = state["sums"][self.ranks.rank % len(state["sums"])]
            networks = {name: state[name] for name in self._networks()}
            if not (self.step >= 0 and self.seconds >= 0 and isinstance(self.sums, dict)):
                raise TypeError("no metrics of a run")
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise UserError(f"{path} is not a checkpoint of this program; delete it to start afresh.") from error
        if not same:
            raise UserError(
                f"{path} was trained with other parameters than config.json beside it; choose another folder."
            )
        self._load_into(networks, path, *networks)

    def _load_into(self, state, path, *names):
        try:
            for name in names:
                self._networks()[name].load_state_dict(state[name])
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{path} holds networks of another size than the parameters ask for; make generator, channels, depth "
                "and lstm_layers agree."
            ) from error

    # The run

    def run(self):
        """Train to the last step, from wherever the folder's state.pt stands."""
        c, log = self.config, self.folder / "metrics.jsonl"
        if self.ranks.rank == 0:
            drop_lines_after(log, self.step)
        began, first = time.monotonic(), self.step
        while self.step < c.steps:
            self._add(self.train_step())
            if self.step % c.evaluate_every == 0 or self.step == c.steps:
                means, spent = self._means(), time.monotonic() - began
                line = {"step": self.step, **means, **self.evaluate()}
                self.seconds += time.monotonic() - began
                line |= {"seconds": round(self.seconds, 2), "steps_per_second": round((self.step - first) / spent, 3)}
                self._record(log, line)
                began, first = time.monotonic(), self.step
            if self.ranks.any_rank(self.stopping) and self.step < c.steps:
                self.seconds += time.monotonic() - began
                self.save()
                raise Interrupted(f"stopped at step {self.step} of {c.steps} and saved; run it again to go on.")
        if self.ranks.rank == 0:
            if c.keep == "last":
                save_weights(self.kept, self.folder / "model.safetensors")
            note = read_json(self.folder / "config.json")
            write_json(self.folder / "config.json", note | {"finished": True, "seconds": round(self.seconds, 1)})

    def _add(self, metrics):
        """Sum up a step's metrics (some are not there in every step), without waiting for the GPU."""
        for name, value in metrics.items():
            total, count = self.sums.get(name, (0, 0))
            self.sums[name] = total + value, count + 1
        bad = ~torch.stack([value.isfinite().all() for value in metrics.values()]).all()
        self.first_bad = torch.where(bad & (self.first_bad < 0), self.step - 1, self.first_bad)

    def _means(self):
        """Means of the metrics over the steps since the last evaluation, and over ranks."""
        bad = [step for step in self.ranks.all_gather(self.first_bad.item()) if step >= 0]
        if bad:
            tracks = sorted(set(sum(self.ranks.all_gather(self.batches.tracks(min(bad))), [])))
            raise UserError(
                f"The loss became infinite or NaN in step {min(bad) + 1} of {self.folder}, on excerpts of "
                f"{', '.join(tracks)}; the last checkpoint is kept. Lower lr or discriminator_lr."
            )
        names = sorted(self.sums)
        values = self.ranks.all_reduce_mean(
            torch.stack([self.sums[name][0] / self.sums[name][1] for name in names]).double()
        )
        self.sums = {}
        return dict(zip(names, values.tolist(), strict=True))

    def _record(self, log, line):
        if self.ranks.rank == 0:
            print(status_line(self.folder.name, line, self.config.steps), flush=True)
            if self.config.keep == "best" and line["l1_heldout"] < self.best:
                save_weights(self.kept, self.folder / "model.safetensors")
            append_line(log, line)
        self.best = min(self.best, line["l1_heldout"])
        self.save()


def main(arguments=None):
    """Command line, alone or under torchrun: FOLDER [name=value …]."""
    folder, *pairs = arguments if arguments is not None else sys.argv[1:] or ["--help"]
    if folder in ("-h", "--help"):
        print(__doc__)
        return
    keep_buffers()
    ranks = Ranks()
    if ranks.world_size > 1:
        end_with_parent(signal.SIGTERM)  # the launcher's agent may be killed
    held = contextlib.ExitStack()
    try:
        config, finished = _claimed(folder, pairs, ranks, held)
        if not finished:
            _train(config, folder, ranks)
            gc.collect()  # a process group whose users outlive it may abort the process at its very end
    finally:
        held.close()
        ranks.close()


def _claimed(folder, pairs, ranks, held):
    """`claim` by rank 0, for all. What it refuses, only it says; the others end without a word."""
    answer = None
    if ranks.rank == 0:
        try:
            held.enter_context(locked(folder))
            answer = claim(parse(pairs, folder), folder, ranks.world_size)
        except UserError as error:
            answer = error
    answer = ranks.broadcast(answer)
    if isinstance(answer, UserError):
        raise answer if ranks.rank == 0 else SystemExit(1)
    return answer


def _train(config, folder, ranks):
    trainer = Trainer(config, folder, ranks)
    signal.signal(signal.SIGTERM, lambda *_: setattr(trainer, "stopping", True))
    try:
        trainer.run()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which also lets go of the trainer


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"UserError: {error}")
    except Interrupted as stop:
        print(f"{sys.argv[1]} {stop}", flush=True)
        sys.exit(INTERRUPTED)
