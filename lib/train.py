"""Train the generator with L1 alone or against a discriminator, on 1 to N processes.

A run is a folder: config.json (all parameters, version, commit and machine), metrics.jsonl (one line per evaluation),
state.pt (everything to resume), model.safetensors (the generator's weights).

    python -m lib.train results/mine/l1-42 data=results/my-quick/data.json steps=500     # one process
    torchrun --nproc_per_node 16 -m lib.train results/mine/l1-42 data=… channels=100     # sixteen
    python -m lib.train results/mine/l1-42                                               # resume, same parameters

data.json names decoded tracks; `make report` writes it and them.

SIGTERM, which a cloud or Slurm sends before it takes the machine away, saves after the step and exits with status 143;
the same command resumes. A `UserError` exits with status 2. Several machines and Slurm: docs/cluster.md.

Source of the recipe: Défossez et al., arXiv 1911.13254, section 5; of the adversarial part: `lib.losses`.
"""

import contextlib
import dataclasses
import gc
import math
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.common.errors import UserError
from lib.common.files import locked, read_json, write_json
from lib.common.processes import end_with_parent, keep_buffers, use_utf8
from lib.common.provenance import ROOT
from lib.config import Config, parse
from lib.data.batches import StemAugmentation
from lib.data.tracks import CHANNELS
from lib.demucs import center_trim
from lib.gan import Adversary, mean_over_ranks, total_norm
from lib.losses import Balancer, item_norm, reconstruction_loss, spectral_loss
from lib.memorisation import measure_all
from lib.models.cpu.prepare import prepare
from lib.models.weights import save_weights
from lib.runs.build import build_data, build_discriminator, build_generator
from lib.runs.checkpoint import append_line, drop_lines_after, load_parts, load_start, save_state
from lib.runs.distributed import Means, Ranks
from lib.runs.folders import claim
from lib.runs.launch import FAILED, INTERRUPTED, status_line, tell_launcher


class Interrupted(Exception):
    """SIGTERM arrived; the run has saved and stops."""


class Trainer:
    """Generator, discriminator, their optimizers and the data of one run, on one rank."""

    def __init__(self, config, folder, ranks):
        self.config, self.folder, self.ranks, self.device = config, Path(folder), ranks, ranks.device
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        self.means = Means(ranks)  # of metrics since the last evaluation
        self.stopping = False  # set by SIGTERM
        self.place = {"rank": ranks.rank, "world_size": ranks.world_size}
        self._build_networks()
        prefetch = self.device.type == "cuda"
        self.batches, self.evaluation = build_data(config, self.generator, **self.place, prefetch=prefetch)
        options = dict(gain_db=config.stem_gain_db, eq_db=config.stem_eq_db, batch=config.batch, seed=config.seed)
        self._augment = StemAugmentation(**options, rank=ranks.rank, samples=self.batches.shape[-1], device=self.device)
        self._record_kernels()
        if (self.folder / "state.pt").exists():
            self._restore(self.folder / "state.pt")
        elif config.start_from:
            load_start(ROOT / config.start_from, self.generator, self.optimizer, self.device)

    def _build_networks(self):
        c = self.config
        torch.manual_seed(c.seed)
        self.generator = build_generator(c).to(self.device)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=c.lr, fused=True)
        self.parts = {"generator": self.generator, "optimizer": self.optimizer}  # of a checkpoint
        self.ema = self.adversary = None
        self._generate = prepare(self.generator, precision=c.precision, compile=c.compile, report=self._say)
        if self.ranks.world_size > 1:  # DDP sends the gradients of one layer while the next layer's are computed
            options = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
            self._generate = DistributedDataParallel(self._generate, **options)
        if c.spectral_share or c.adversarial_share:
            self.balancer = Balancer(partial(mean_over_ranks, world_size=self.ranks.world_size))
            self.parts["balancer"] = self.balancer
        if c.ema:
            self.ema = self.parts["ema"] = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(c.ema))
        self._estimate = prepare(self.kept)
        if c.adversarial:
            self.adversary = Adversary(c, build_discriminator(c), **self.place, device=self.device)
            self.parts["adversary"] = self.adversary

    def _record_kernels(self):
        """On one GPU, record the generator's kernels once and replay them, since launching takes longer than running.

        Before the first batch, as nothing else may allocate memory on the GPU meanwhile.
        """
        c, alone = self.config, self.ranks.world_size == 1
        if self.device.type == "cuda" and alone and c.precision == "fp32" and not (c.compile or c.micro_batch):
            mixture = torch.zeros(c.batch, CHANNELS, self.batches.shape[-1], device=self.device)
            self._generate = torch.cuda.make_graphed_callables(self._generate, (mixture,))

    @property
    def kept(self):
        """The generator that is evaluated and kept: its running average if `ema` is set."""
        return self.ema.module if self.ema else self.generator

    def _say(self, line):
        if self.ranks.rank == 0:
            print(f"{self.folder.name:<14} {line}", flush=True)

    def train_step(self):
        """One training step; returns its metrics as scalar tensors."""
        c = self.config
        stems = self._augment(self.step, self.batches(self.step).to(self.device, non_blocking=True))
        self._set_learning_rates()
        parts = stems.sum(1).split(c.micro_batch or len(stems))
        with torch.set_grad_enabled(len(parts) == 1):
            estimates = torch.cat([self._generate(part) for part in parts])
        stems = center_trim(stems, estimates)
        outputs = estimates.detach().requires_grad_()  # leaf at which the gradients of all losses are added
        l1 = reconstruction_loss(outputs, stems)
        gradients, metrics = {"l1": torch.autograd.grad(l1, outputs)[0]}, {"l1_batches": l1.detach()}
        if c.spectral_weight or c.spectral_share:
            spectral = spectral_loss(outputs, stems, self.step)
            (gradients["spectral"],) = torch.autograd.grad(spectral, outputs)
            metrics["spectral"] = spectral.detach()
        if self.adversary:
            seen = self.adversary.inputs(self.step, stems, outputs)
            metrics |= self.adversary.discriminator_step(self.step, seen)
            if self.adversary.ramp(self.step):
                adversarial, more = self.adversary.gradients(self.step, seen, outputs)
                gradients, metrics = gradients | adversarial, metrics | more
        gradient, more = self._sum(gradients)
        metrics |= more
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

    def _set_learning_rates(self):
        """Both learning rates fall by the same cosine, to lr_final / lr of what they were."""
        c = self.config
        lr = c.lr_final + (c.lr - c.lr_final) * (1 + math.cos(math.pi * self.step / c.steps)) / 2
        rates = [(self.optimizer, lr)]
        if self.adversary:
            rates.append((self.adversary.optimizer, c.discriminator_lr * (lr / c.lr if c.lr else 1.0)))
        for optimizer, rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _sum(self, gradients):
        """The weighted sum of `gradients` {loss: gradient at the estimates}, and metrics of the adversarial part."""
        c, ramp = self.config, self.adversary.ramp(self.step) if self.adversary else 0.0
        if c.spectral_weight and not c.spectral_share:
            gradients["l1"] = gradients["l1"] + c.spectral_weight * gradients.pop("spectral")
        if c.spectral_share or c.adversarial_share:
            a = ramp * c.adversarial_share
            shares = {"l1": (1 - a) * (1 - c.spectral_share), "spectral": (1 - a) * c.spectral_share}
            shares |= {"feature_matching": a * c.feature_matching_share}
            shares |= {"adversarial": a - shares["feature_matching"]}
            balanced = {name: part for name, part in gradients.items() if name != "adversarial" or c.adversarial_share}
            total, weights = self.balancer(balanced, shares)
        else:
            total, weights = gradients["l1"], {"l1": 1.0}
        if "adversarial" not in gradients:
            return total, {}
        if not c.adversarial_share:
            weights["adversarial"] = ramp * c.adversarial_weight
            total = total + weights["adversarial"] * gradients["adversarial"]
        norms = {name: weights[name] * item_norm(gradient) for name, gradient in gradients.items()}
        adversarial = norms["adversarial"] + norms.get("feature_matching", 0.0)
        weight = torch.tensor(weights["adversarial"] / weights["l1"], device=self.device)
        share = adversarial / sum(norms.values()).clamp(min=1e-12)
        return total, {"adversarial_weight": weight, "adversarial_share": share}

    def _backward_by_parts(self, parts, gradient):
        """Run the generator again, in the memory of one part, and backpropagate the gradient at its estimates."""
        for part, its_gradient in zip(parts, gradient.split(len(parts[0])), strict=True):
            last = part is parts[-1]
            with contextlib.nullcontext() if last or self.ranks.world_size == 1 else self._generate.no_sync():
                self._generate(part).backward(its_gradient)

    @torch.no_grad()
    def evaluate(self):
        """L1 on training and held-out tracks and, with a discriminator, `measure_all`; the same on every rank."""
        self.kept.eval()
        metrics, sets = {}, {}
        for part, excerpts in self.evaluation.items():
            count = min(self.config.evaluation_excerpts, len(excerpts))
            chosen = [i * len(excerpts) // count for i in range(count)]  # spread evenly over the tracks
            local = chosen[self.ranks.rank :: self.ranks.world_size]
            found = self.ranks.all_gather([(i, *self._evaluate_excerpt(excerpts, i)) for i in local])
            _, errors, pairs = zip(*sorted(sum(found, []), key=lambda item: item[0]), strict=True)
            metrics[f"l1_{part}"] = sum(errors) / count
            for k, kind in enumerate(("real", "generated")):
                sets[f"{kind}_{part}"] = {sub: torch.stack([item[sub][k] for item in pairs]) for sub in pairs[0]}
        self.kept.train()
        if self.adversary:
            metrics |= measure_all(sets, self.config.stems) | {"p": self.adversary.p}
            self.adversary.observe(metrics)
        return metrics

    def _evaluate_excerpt(self, excerpts, index):
        stems = torch.empty(1, len(excerpts.sources), 2, excerpts.samples)
        for s in range(len(excerpts.sources)):
            excerpts.read(index, stems.numpy()[0, s], s)
        stems = stems.to(self.device)
        estimates = self._estimate(stems.sum(1))
        stems = center_trim(stems, estimates)
        logits = self.adversary.logits(stems, estimates, index) if self.adversary else {}
        return reconstruction_loss(estimates, stems).item(), logits

    def save(self):
        """Write state.pt, from rank 0."""
        sums = self.means.gather()  # a run may stop between evaluations
        if self.ranks.rank == 0:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            state |= {"step": self.step, "seconds": self.seconds, "best": self.best}
            state |= {"sums": sums, "config": dataclasses.asdict(self.config)}
            save_state(self.folder, state, self.config.keep_states)
        self.ranks.broadcast()  # no rank goes on before the file is written

    def _restore(self, path):
        state = load_parts(path, self.parts, self.device)
        if Config.from_dict(state["config"]) != self.config:
            raise UserError(
                f"{path} was trained with other parameters than config.json beside it; choose another folder."
            )
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.means.sums = state["sums"][self.ranks.rank % len(state["sums"])]

    def run(self):
        """Train to the last step; raises `Interrupted` after SIGTERM, `UserError` when a loss is infinite or NaN."""
        c, log = self.config, self.folder / "metrics.jsonl"
        if self.ranks.rank == 0:
            drop_lines_after(log, self.step)
        began, first = time.monotonic(), self.step
        while self.step < c.steps:
            self.means.add(self.step, self.train_step())
            if self.step % c.evaluate_every == 0 or self.step == c.steps:
                self._check_finite()
                means, spent = self.means.take(), time.monotonic() - began
                line = {"step": self.step, **means, **self.evaluate()}
                self.seconds += time.monotonic() - began
                line |= {"seconds": round(self.seconds, 2), "steps_per_second": round((self.step - first) / spent, 3)}
                self._record(log, line)
                began, first = time.monotonic(), self.step
            if self.ranks.any_rank(self.stopping) and self.step < c.steps:
                self.seconds += time.monotonic() - began
                self.save()
                raise Interrupted(
                    f"{self.folder} stopped at step {self.step} of {c.steps} and saved; run it again to go on."
                )
        if self.ranks.rank == 0:
            if c.keep == "last":
                save_weights(self.kept, self.folder / "model.safetensors")
            note = read_json(self.folder / "config.json")
            facts = {"finished": True, "seconds": round(self.seconds, 1), "network": type(self._estimate).__name__}
            write_json(self.folder / "config.json", note | facts)

    def _check_finite(self):
        if (bad := self.means.first_bad_step()) is not None:
            tracks = sorted(set(sum(self.ranks.all_gather(self.batches.tracks(bad)), [])))
            raise UserError(
                f"A loss or gradient norm became infinite or NaN in step {bad + 1} of {self.folder}, on excerpts of "
                f"{', '.join(tracks)}; the last checkpoint is kept. Lower lr or discriminator_lr."
            )

    def _record(self, log, line):
        if self.ranks.rank == 0:
            print(status_line(self.folder.name, line, self.config.steps), flush=True)
            if self.config.keep == "best" and line["l1_heldout"] < self.best:
                save_weights(self.kept, self.folder / "model.safetensors")
            append_line(log, line)
        self.best = min(self.best, line["l1_heldout"])
        self.save()


def main(kind=Trainer):
    """Command line, alone or under torchrun: FOLDER [name=value …]. kind: the class of the trainer."""
    folder, *pairs = sys.argv[1:] or ["--help"]
    if folder in ("-h", "--help"):
        print(__doc__)
        return
    keep_buffers()
    with contextlib.ExitStack() as stack:
        ranks = Ranks()
        stack.callback(ranks.close)
        if ranks.world_size > 1:
            end_with_parent(signal.SIGTERM)  # the launcher's agent may be killed
        config, finished = _claim(folder, pairs, ranks, stack)
        if not finished:
            _train(kind(config, folder, ranks))
            gc.collect()  # a process group whose users outlive it may abort the process at its very end


def _claim(folder, pairs, ranks, stack):
    """`claim` by rank 0, which locks the folder; the result on every rank. Only rank 0 raises what it refuses."""
    result = None
    if ranks.rank == 0:
        try:
            stack.enter_context(locked(folder))
            result = claim(parse(pairs, folder), folder, ranks.world_size)
        except UserError as error:
            result = error
    result = ranks.broadcast(result)
    if isinstance(result, UserError):
        raise result if ranks.rank == 0 else SystemExit(FAILED)
    return result


def _train(trainer):
    signal.signal(signal.SIGTERM, lambda *_: setattr(trainer, "stopping", True))
    try:
        trainer.run()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which also lets go of the trainer


def command(kind=Trainer):
    """Run `main` as a program: its errors become its exit status, and the cause goes to the launcher."""
    use_utf8()
    try:
        main(kind)
    except (UserError, Interrupted) as error:
        status = FAILED if isinstance(error, UserError) else INTERRUPTED
        tell_launcher(status, str(error))
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(status)


if __name__ == "__main__":
    command()
