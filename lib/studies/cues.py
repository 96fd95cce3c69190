"""What a discriminator looks at: how much of the real-generated gap disappears when a cue is taken away.

The gap is E[σ(logit of real stems)] − E[σ(logit of generated stems)] on held-out excerpts, without noise and
augmentation. `share` is the part of it that is lost: 0, the cue does not matter; 1, it carries all; above 1, an
exchange makes generated stems look more real than real ones. Shares of several cues need not sum to 1.
"""

import math
from functools import partial

import numpy as np
import torch

from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.config import Config
from lib.data.tracks import FULL_SCALE, SAMPLERATE, SOURCES, read_index
from lib.demucs import center_trim
from lib.discriminator import level
from lib.models.cpu.prepare import prepare
from lib.runs.build import build_discriminator, build_generator
from lib.runs.checkpoint import load_state
from lib.studies.judge import AT_ONCE, read_stems, spread

LOW_PASS = (1000, 4000, 8000)  # Hz
OCTAVES = (63, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz, centres


class Parts:
    """What a discriminator is shown of n excerpts: `mixture` (n, channels, time), `real` and `generated` stems.

    step, offset (n,): a sample is recorded as an integer times `step`, less `offset`.
    """

    def __init__(self, mixture, real, generated, step, offset):
        self.mixture, self.real, self.generated = mixture, real, generated
        self.step, self.offset = (value.view(-1, 1, 1, 1) for value in (step, offset))

    def replace(self, **changes):
        values = {name: getattr(self, name) for name in ("mixture", "real", "generated", "step", "offset")}
        return Parts(**(values | changes))


def shuffled(parts):
    """The mixtures of other excerpts, half the set away, at the levels of their own."""
    other = parts.mixture.roll(len(parts.mixture) // 2, 0)
    return parts.replace(mixture=other * (level(parts.mixture) / level(other)))


def rounded(parts):
    """Generated stems rounded to the integers of recorded ones."""
    whole = ((parts.generated + parts.offset) / parts.step).round()
    return parts.replace(generated=whole * parts.step - parts.offset)


def dithered(parts):
    """Real stems with uniform noise of half an integer, which hides that they are integers."""
    noise = torch.rand(parts.real.shape, generator=torch.Generator().manual_seed(0)).to(parts.real) - 0.5
    return parts.replace(real=parts.real + noise * parts.step)


def low_passed(parts, hertz):
    """All signals without what lies above a frequency."""
    return parts.replace(**{name: _band(getattr(parts, name), 0, hertz) for name in ("mixture", "real", "generated")})


def projected(parts):
    """Generated stems that sum to the mixture, each with an equal share of the residual."""
    residual = parts.mixture - parts.generated.sum(1)
    return parts.replace(generated=parts.generated + residual[:, None] / parts.generated.shape[1])


def stem_exchanged(parts, stem):
    """One stem exchanged between real and generated."""
    real, generated = parts.real.clone(), parts.generated.clone()
    real[:, stem], generated[:, stem] = parts.generated[:, stem], parts.real[:, stem]
    return parts.replace(real=real, generated=generated)


def octave_exchanged(parts, centre):
    """The octave around a frequency exchanged between real and generated."""
    change = _band(parts.generated - parts.real, centre / 2**0.5, centre * 2**0.5)
    return parts.replace(real=parts.real + change, generated=parts.generated - change)


CUES = {
    "mixture": shuffled,
    "generated rounded": rounded,
    "real dithered": dithered,
    **{f"above {hertz // 1000} kHz": partial(low_passed, hertz=hertz) for hertz in LOW_PASS},
    "sum of stems": projected,
    **{stem: partial(stem_exchanged, stem=k) for k, stem in enumerate(SOURCES)},
    **{f"octave at {centre} Hz": partial(octave_exchanged, centre=centre) for centre in OCTAVES},
}


@torch.no_grad()
def probe(judge, parts, centred=False):
    """Rows {cue, gap_before, gap_after, share} of a discriminator.

    judge: maps (mixture, stems) to an array of logits; centred: put 0 halfway between the logits of real and generated
    stems first, as relativistic logits have no zero.
    """
    logits = [judge(parts.mixture, x) for x in (parts.real, parts.generated)]
    centre = (logits[0].mean() + logits[1].mean()) / 2 if centred else 0.0

    def gap(shown):
        real, generated = (judge(shown.mixture, x) - centre for x in (shown.real, shown.generated))
        return float((1 / (1 + np.exp(-real))).mean() - (1 / (1 + np.exp(-generated))).mean())

    before = gap(parts)
    rows = []
    for name, change in CUES.items():
        after = gap(change(parts))
        share = (before - after) / before if abs(before) > 1e-9 else math.nan
        rows.append({"cue": name, "gap_before": before, "gap_after": after, "share": share})
    return rows


@torch.no_grad()
def probe_state(path, device="cpu"):
    """(step, rows of `probe`) of a saved state, on the held-out tracks that judge."""
    device = torch.device(device)
    state = load_state(path, device)
    config = Config.from_dict(state["config"])
    if "adversary" not in state:
        raise UserError(f"{path} holds no discriminator.")
    generator, network = build_generator(config).to(device), build_discriminator(config).to(device)
    generator.load_state_dict(state["generator"])
    network.load_state_dict(state["adversary"]["discriminator"])
    generate = prepare(generator.eval())
    network.eval()
    tracks = read_index(ROOT / config.data)[0]["heldout-b"]
    samples = generator.valid_length(round(config.seconds * SAMPLERATE))
    excerpts, chosen = spread(tracks, samples, round(config.stride_seconds * SAMPLERATE), config.evaluation_excerpts)
    real, generated = [], []
    for k in range(0, len(chosen), AT_ONCE):
        stems = read_stems(excerpts, chosen[k : k + AT_ONCE]).to(device)
        generated.append(generate(stems.sum(1)))
        real.append(center_trim(stems, generated[-1]))
    real, generated = torch.cat(real), torch.cat(generated)
    own = [excerpts[index][0] for index in chosen]
    step, offset = (
        torch.tensor(values, dtype=torch.float32, device=device)
        for values in ([t.scale / FULL_SCALE / t.std for t in own], [t.mean / t.std for t in own])
    )

    def judge(mixture, stems):
        found = []
        for one, its in zip(mixture.split(AT_ONCE), stems.split(AT_ONCE), strict=True):
            found += [logits.cpu().numpy().ravel() for _, logits in network(one, its).values()]
        return np.concatenate(found)

    parts = Parts(real.sum(1), real, generated, step, offset)
    return state["step"], probe(judge, parts, config.adversarial_loss == "relativistic")


def step_of(path):
    """The step of a saved state."""
    return load_state(path, "cpu")["step"]


def _band(x, low, high):
    """What lies from `low` to below `high` Hz; exact on the excerpt, taken as a period."""
    spectrum = torch.fft.rfft(x)
    hertz = torch.fft.rfftfreq(x.shape[-1], 1 / SAMPLERATE, device=x.device)
    return torch.fft.irfft(spectrum * ((hertz >= low) & (hertz < high)), x.shape[-1])
