"""Turn the knobs: what stands behind the controls of 06-explore.

A control shows what a function displays for the values chosen. Where nobody sits at the notebook (papermill, the
pipeline) the first values and what they show stand in its place, so that a page without Python loses the knob and
nothing else.
"""

from html import escape

import numpy as np
import torch
from IPython import get_ipython
from IPython.display import HTML, Markdown, display
from ipywidgets import Dropdown, FloatLogSlider, FloatSlider, IntSlider, Layout, interactive

from lib.common.words import join, plain
from lib.data.batches import JointAugmentation
from lib.data.tracks import SAMPLERATE, SOURCES, read_index
from lib.draw_audio.render import own_song
from lib.evaluation.results import ARMS, read_metrics
from lib.models.weights import load_weights
from lib.report import listen
from lib.report.audio import NO_MATH, players
from lib.report.figures import explore as plots_explore
from lib.report.figures import listen as plots_listen
from lib.separate import separate

DRAWS = 3  # random operators side by side
_LAYOUT = {"style": {"description_width": "8em"}, "layout": Layout(width="min(30em, 98%)")}


def choice(label, options, value):
    """A control for one of `options`: a list, or {name: value}."""
    return Dropdown(options=options, value=value, description=label, **_LAYOUT)


def slider(label, value, low, high, step):
    """A control for a number; it acts when it is let go."""
    kind = IntSlider if isinstance(step, int) else FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=label, continuous_update=False, **_LAYOUT)


def log_slider(label, value, low, high):
    """A control for a number from 10^low to 10^high."""
    return FloatLogSlider(
        value=value, min=low, max=high, step=0.05, description=label, continuous_update=False, readout_format=".3g",
        **_LAYOUT,
    )  # fmt: skip


def controls(show, *, button=None, **knobs):
    """`knobs` (widgets), and under them what `show` displays of their values; with a `button` when it is pressed."""
    if not attended():  # with live widgets, the client that executes a notebook now and then waits for ever
        values = (f"{escape(knob.description)}: <b>{escape(str(_value(knob)))}</b>" for knob in knobs.values())
        display(HTML(f'<p class="turned {NO_MATH}">{" · ".join(values)}</p>'))
        show(**{name: knob.value for name, knob in knobs.items()})
        return None
    made = interactive(show, {"manual": True, "manual_name": button} if button else {}, **knobs)
    if button:
        made.update()  # once without
    return made


def _value(knob):
    return knob.label if isinstance(knob, Dropdown) else f"{knob.value:g}"


def attended():
    """Whether somebody may turn a knob: a kernel whose client takes no input executes a notebook from top to end."""
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is None or kernel._allow_stdin


def separation(run, seconds, audible):
    """Controls: which track, arm, stem and moment; they show its players, spectrograms and difference."""
    tracks = read_index(run / "data.json")[0]["test"]
    arms = listen.heard_arms(run)

    def show(track, arm, stem, start):
        part = listen.excerpt(run, tracks[track], start, seconds, arms={arm: arms[arm]})
        if audible:
            sounds = {"mixture": part.mixture, "true stem": part.references[stem]}
            sounds |= {"estimate": part.estimates[arm][stem], "residual": part.residual(arm, stem)}
            display(players({f"{part.name}, {stem}, {ARMS.get(arm, arm)}": sounds}, SAMPLERATE, seconds))
        display(plots_explore.separated(part, arm, stem))

    begin = listen.liveliest(tracks[0].stems(), round(seconds * SAMPLERATE)) / SAMPLERATE
    latest = max(begin, min(track.samples for track in tracks) / SAMPLERATE - seconds)
    return controls(
        show,
        track=choice("track", {track.name: number for number, track in enumerate(tracks)}, 0),
        arm=choice("arm", {ARMS.get(arm, arm): arm for arm in arms}, list(arms)[min(1, len(arms) - 1)]),
        stem=choice("stem", SOURCES, "vocals"),
        start=slider("from second", begin, 0.0, latest, 0.25),
    )


def augmentation(run, seconds, audible):
    """Controls: how probable joint augmentation is; they show a stem as the discriminator gets to see it."""
    tracks = read_index(run / "data.json")[0]["test"]

    def show(stem, p, draw):
        part = listen.excerpt(run, tracks[0], None, seconds, arms={})
        sounds = {"as it is": part.references[stem]}
        sounds |= {f"draw {k}": augmented(part.references[stem], p, k) for k in range(draw, draw + DRAWS)}
        if audible:
            display(players({f"{stem}, p = {p:g}": sounds}, SAMPLERATE, seconds))
        display(plots_explore.waveforms_and_spectra(sounds, f"{stem.capitalize()}: what p = {p:g} makes of it"))
        display(Markdown(chances(p)))

    return controls(
        show,
        stem=choice("stem", SOURCES, "vocals"),
        p=slider("p", 0.3, 0.0, 1.0, 0.05),
        draw=slider("first draw", 0, 0, 50, 1),
    )


def augmented(audio, p, draw):
    """`audio` (channels, samples) under the `draw`-th joint augmentation of probability p.

    The same draw with a higher p holds the same operators, and more.
    """
    samples = audio.shape[-1]
    operator = JointAugmentation(np.random.RandomState(draw), p, 1, slice(0, 1), samples, SAMPLERATE)
    return operator(torch.from_numpy(audio)[None, None])[0, 0].numpy()


def chances(p, operators=8):
    """What a probability per operator means for an excerpt, in words."""
    return (
        f"With p = {p:g}, {operators * p:.1f} of {operators} operators act on an excerpt on average, and "
        f"{(1 - p) ** operators:.0%} of the excerpts stay as they are."
    )


def gradient_share(run):
    """Controls: λ, or a share; they show how hard the discriminators of `run` would pull at the generator."""
    gan_runs = {name: read_metrics(run / name) for name in listen.heard_arms(run).values()}
    ratios = {name: ratio for name, rows in gan_runs.items() if (ratio := gradient_ratio(rows))}

    def show(λ, share):
        display(plots_explore.shares(gan_runs, ratios, λ, share))
        display(Markdown(pull(ratios, λ, share)))

    return controls(show, λ=log_slider("λ", 100, 0, 4), share=slider("share", 0.1, 0.01, 0.9, 0.01))


def gradient_ratio(metrics):
    """Norm of the adversarial gradient at the estimates over that of L1, both unweighted, at the last evaluation at
    which the generator played; None where it never did."""
    if "adversarial_share" not in metrics:
        return None
    played = metrics[(metrics["adversarial_share"] > 0) & (metrics["adversarial_weight"] > 0)]
    if played.empty:
        return None
    share, weight = played.iloc[-1][["adversarial_share", "adversarial_weight"]]
    return share / (1 - share) / weight


def share_of(ratio, λ):
    """The adversarial share of the gradient when L1 counts λ times as much as the discriminator."""
    return ratio / (λ + ratio)


def pull(ratios, λ, share):
    """What λ and share mean for the discriminators of a run, in words. ratios: {<arm>-<seed>: `gradient_ratio`}."""
    if not ratios:
        return "No discriminator of this run has pulled at its generator yet."
    shares = join(f"{share_of(ratio, λ):.0%} of the gradient in {name}" for name, ratio in ratios.items())
    needed = join(f"λ = {ratio * (1 - share) / share:,.0f} in {name}" for name, ratio in ratios.items())
    return (
        f"With λ = {λ:.3g} (a weight of {1 / λ:.2g}) the discriminator would have, as the gradients stood at the last "
        f"evaluation, {shares}. A share of {plain(share)} would have needed {needed}: **one λ is not one strength.** "
        "This is why `adversarial_share` sets the share and lets the weight follow."
    )


def drawn(run, drawing, seconds):
    """Controls: which stem of a corpus song a drawn wave plays; they show what every arm makes of the song.

    drawing: a `lib.draw_audio.DrawAudio`, whose wave and envelope are taken when the button is pressed.
    """
    arms = listen.heard_arms(run)
    models = {arm: load_weights(run / name / "model.safetensors") for arm, name in arms.items()}

    def show(stem):
        stems = own_song(drawing.wave, stem, envelope=drawing.envelope, seconds=seconds)
        mixture = sum(stems.values())
        estimates = {
            arm: dict(zip(SOURCES, separate(model, mixture).numpy(), strict=True)) for arm, model in models.items()
        }
        part = listen.Excerpt("your sound in a song", 0, mixture, stems, estimates)
        rows = {part.name: {"mixture": mixture, "your sound alone": stems[stem]}}
        rows["what comes out"] = {ARMS.get(arm, arm): estimates[arm][stem] for arm in arms}
        display(players(rows, SAMPLERATE, seconds))
        display(plots_listen.spectrograms(part, [stem]))

    return controls(show, button="Separate my sound", stem=choice("it plays", ["other", "bass"], "other"))
