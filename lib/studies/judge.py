"""The trainer of the study of memorisation: at each evaluation it also judges further sets of its data index.

    python -m lib.studies.judge FOLDER        # resume the training in FOLDER; `lib.studies.overfitting` starts it

An evaluation judges `evaluation_excerpts` excerpts of each set, or all that it holds, overlapping if need be, 16 in one
forward pass. "heldout" in its metrics is the set heldout-b; the set valid only steers (p, early stop). Beside
`lib.memorisation.measure`:

    l1_train, l1_heldout      mean absolute errors
    auc_matched               auc_heldout, with the errors of held-out estimates scaled to those of training ones, since
                              a generator that overfits makes held-out estimates easier to detect
    membership_tracks         as membership_auc, against unseen thirds of the same tracks instead of other tracks
    others_<seed>             as membership_auc, of the pieces of another seed, which this discriminator never heard

Relativistic logits have no zero: theirs is put halfway between the real and the generated training logits.
"""

import os
import time

import numpy as np
import torch

from lib import train
from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.data.tracks import SAMPLERATE, Excerpts, read_index
from lib.demucs import center_trim
from lib.memorisation import SETS, auc, measure

AT_ONCE = 16  # excerpts in one forward pass
CLOSEST = 0.1  # seconds between the starts of excerpts, at least
SAVE_EVERY = 60.0  # seconds, at most
MARKS = 8  # states kept along a training on two tracks: what the discriminator looked at before and after onset


def spread(tracks, samples, stride, count):
    """(`Excerpts` of `tracks`, the indices of `count` of them, or of all, evenly spread).

    `stride`, in samples, is halved until there are `count` excerpts, but not below `CLOSEST`.
    """
    excerpts = Excerpts(tracks, samples, stride)
    while len(excerpts) < count and stride // 2 >= CLOSEST * SAMPLERATE:
        stride //= 2
        excerpts = Excerpts(tracks, samples, stride)
    count = min(count, len(excerpts))
    return excerpts, [k * len(excerpts) // count for k in range(count)]


def read_stems(excerpts, indices):
    """Stems (excerpts, sources, channels, samples) of `indices`."""
    stems = torch.empty(len(indices), len(excerpts.sources), 2, excerpts.samples)
    for k, s in np.ndindex(stems.shape[:2]):
        excerpts.read(indices[k], stems[k, s].numpy(), s)
    return stems


class JudgingTrainer(train.Trainer):
    """A trainer in one process that judges the further sets of its index."""

    def __init__(self, config, folder, ranks):
        super().__init__(config, folder, ranks)
        if ranks.world_size > 1:
            raise UserError("A study's training runs in one process; start it without torchrun.")
        c, samples = config, self.batches.shape[-1]
        sets = read_index(ROOT / c.data)[0]
        sets = {"heldout" if name == "heldout-b" else name: tracks for name, tracks in sets.items()}
        if not (c.augment_target or c.discriminator_patience):
            sets.pop("valid")
        self.sets, self._read, self.saved = {}, {}, time.monotonic()
        for name, tracks in sets.items():
            further = name not in ("train", "heldout", "valid")
            if further and not self.adversary:
                continue
            if further and any(track.samples < samples for track in tracks):
                print(f"{self.folder.name}: {name} is not judged: its tracks are too short", flush=True)
                continue
            self.sets[name] = spread(tracks, samples, round(c.stride_seconds * SAMPLERATE), c.evaluation_excerpts)

    @torch.no_grad()
    def evaluate(self):
        """L1 and, with a discriminator, the metrics of the module's docstring."""
        self.kept.eval()
        pairs = {name: self._pairs(name) for name in ("train", "heldout", "valid") if name in self.sets}
        errors = {
            name: sum((y - x).abs().mean().item() * len(x) for x, y in found) / sum(len(x) for x, _ in found)
            for name, found in pairs.items()
        }
        metrics = {f"l1_{name}": errors[name] for name in ("train", "heldout")}
        if self.adversary:
            metrics |= self._judge(pairs, errors)
        self.kept.train()
        return metrics

    def _judge(self, pairs, errors):
        logits = {name: self._logits(name, found) for name, found in pairs.items()}
        centre = 0.0
        if self.config.adversarial_loss == "relativistic":
            centre = sum(part.mean() for part in logits["train"]) / 2
        logits = {name: [part - centre for part in pair] for name, pair in logits.items()}
        metrics = self._measure(logits, "heldout") | {"p": self.adversary.p}
        real = {name: pair[0] for name, pair in logits.items()}
        length = pairs["train"][0][0].shape[-1]
        for name in self.sets.keys() - pairs.keys():  # recordings alone
            stems = [center_trim(x, length) for x in self._stems(name)]
            real[name] = self._logits(name, [(x, x) for x in stems], (0,))[0] - centre
        if "unseen" in real:
            metrics["membership_tracks"] = float(auc(real["train"], real["unseen"]))
        for name in real:
            if name.startswith("others-"):
                metrics[name.replace("-", "_")] = float(auc(real[name], real["heldout"]))
        share = errors["train"] / max(errors["heldout"], 1e-12)
        scaled = [(x, x + share * (y - x)) for x, y in pairs["heldout"]]
        metrics["auc_matched"] = float(auc(real["heldout"], self._logits("heldout", scaled, (1,))[0] - centre))
        if "valid" in logits:
            self.adversary.observe(self._measure(logits, "valid"))
        return metrics

    def _measure(self, logits, heldout):
        order = ("train", heldout)
        sets = {name: logits[order[k % 2]][k // 2] for k, name in enumerate(SETS)}
        return {name: value for name, value in measure(sets).items() if not name.endswith("_histogram")}

    def _stems(self, name):
        """The stems of a set, `AT_ONCE` a batch; on a GPU they stay there."""
        if name in self._read:
            return self._read[name]
        excerpts, chosen = self.sets[name]
        stems = (read_stems(excerpts, chosen[k : k + AT_ONCE]).to(self.device) for k in range(0, len(chosen), AT_ONCE))
        if self.device.type == "cuda":
            stems = self._read[name] = list(stems)
        return stems

    def _pairs(self, name):
        """[(stems, estimates)] of a set, without context."""
        found = []
        for stems in self._stems(name):
            estimates = self._estimate(stems.sum(1))
            found.append((center_trim(stems, estimates), estimates))
        return found

    def _logits(self, name, pairs, kinds=(0, 1)):
        """Logits of [(stems, estimates)], flat, over all sub-discriminators: one array for each of the kinds."""
        numbers, found = iter(self.sets[name][1]), []
        for stems, estimates in pairs:
            logits = self.adversary.logits_of(stems, estimates, [next(numbers) for _ in stems], kinds)
            found.append(list(logits.values()))
        return [np.concatenate([np.ravel(sub[k]) for subs in found for sub in subs]) for k in range(len(kinds))]

    def save(self):
        """Write state.pt when the run stops or ends, at a mark, and every `SAVE_EVERY` seconds.

        Evaluations are frequent here; a killed run goes back to the last of these, and repeats the same steps.
        """
        reached = self.step * MARKS // self.config.steps
        mark = self.folder / f"mark-{reached}.pt"
        marked = self.adversary and len(self.batches.excerpts.tracks) == 2 and reached and not mark.exists()
        late = time.monotonic() > self.saved + SAVE_EVERY
        if self.stopping or self.step == self.config.steps or marked or late:
            super().save()
            self.saved = time.monotonic()
        if marked:
            os.link(self.folder / "state.pt", mark)


if __name__ == "__main__":
    train.command(JudgingTrainer)
