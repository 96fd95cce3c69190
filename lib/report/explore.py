"""The controls of 06-explore.

Without a user (papermill, the pipeline), the first values and their result are displayed instead: a page without Python
loses the controls and nothing else.
"""

from html import escape

import numpy as np
import torch
from IPython import get_ipython
from IPython.display import HTML, Markdown, display
from ipywidgets import Dropdown, FloatLogSlider, FloatSlider, IntSlider, Label, Layout, interactive

from lib.common.words import plain
from lib.data.batches import JointAugmentation
from lib.data.tracks import SAMPLERATE, read_index
from lib.draw_audio.render import own_song
from lib.evaluation.results import ARMS, read_metrics
from lib.report.audio import NO_MATH, players
from lib.report.figures.explore import separated, share_of, shares, waveforms_and_spectra
from lib.report.figures.listen import spectrograms
from lib.report.listen import Excerpt, excerpt, heard_arms, liveliest, separate_all

DRAWS = 3  # random draws of the augmentation, side by side
OPERATORS = 8  # of joint augmentation
NOBODY = "A web page cannot run the controls of this notebook; it shows their first values. In JupyterLab they work."
_LAYOUT = {"style": {"description_width": "8em"}, "layout": Layout(width="min(30em, 98%)")}


def choice(label, options, value):
    """A control that chooses one of `options`: a list, or {name: value}."""
    return Dropdown(options=options, value=value, description=label, **_LAYOUT)


def slider(label, value, low, high, step, live=False):
    """A control for a number; it acts when it is released or, if `live`, while it is dragged."""
    kind = IntSlider if isinstance(step, int) else FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=label, continuous_update=live, **_LAYOUT)


def somebody_is_there():
    """Whether a user can turn controls: not under papermill, where live widgets sometimes wait for ever."""
    kernel = getattr(get_ipython(), "kernel", None)
    return not kernel or kernel._allow_stdin


def controls(show, *, button=None, alone="", **widgets):
    """Show the `widgets` and, below them, what `show` displays for their values; meanwhile, the word "working".

    With a `button` (its label), `show` runs once at first and then whenever the button is pressed. alone: what the page
    says when nobody is there to turn the controls.
    """
    if not somebody_is_there():
        values = {w.description: w.label if isinstance(w, Dropdown) else f"{w.value:g}" for w in widgets.values()}
        shown = " · ".join(f"{escape(name)}: <b>{escape(value)}</b>" for name, value in values.items())
        display(HTML(f'<p class="turned {NO_MATH}">{shown}</p>'))
        show(**{name: widget.value for name, widget in widgets.items()})
        if alone:
            display(Markdown(alone))
        return None
    working = Label()

    def watched(**values):
        working.value = "working …"
        try:
            show(**values)
        finally:
            working.value = ""

    made = interactive(watched, {"manual": True, "manual_name": button} if button else {}, **widgets)
    if button:
        made.update()
    made.children = (*made.children[:-1], working, made.out)
    return made


def greeting():
    """How to use the page: with a user, what the controls do; else, that a page without Python cannot run them."""
    text = "Turn a control, and what is below it follows." if somebody_is_there() else NOBODY
    display(Markdown(text))


def separation(run, seconds, audible):
    """Choose a track, arm, stem and start; show players, spectrograms and their difference."""
    tracks = read_index(run / "data.json")[0]["test"]
    arms = heard_arms(run)

    def show(track, arm, stem, start):
        part = excerpt(run, tracks[track], start, seconds, arms={arm: arms[arm]})
        if audible:
            sounds = {"mixture": part.mixture, "true stem": part.references[stem]}
            sounds |= {"estimate": part.estimates[arm][stem], "residual": part.residual(arm, stem)}
            display(players({f"{part.name}, {stem}, {ARMS.get(arm, arm)}": sounds}, SAMPLERATE, seconds))
        display(separated(part, arm, stem))

    begin = liveliest(tracks[0].stems(), round(seconds * SAMPLERATE)) / SAMPLERATE
    latest = max(begin, min(track.samples for track in tracks) / SAMPLERATE - seconds)
    return controls(
        show,
        track=choice("track", {track.name: number for number, track in enumerate(tracks)}, 0),
        arm=choice("arm", {ARMS.get(arm, arm): arm for arm in arms}, list(arms)[min(1, len(arms) - 1)]),
        stem=choice("stem", tracks[0].sources, tracks[0].sources[-1]),
        start=slider("from second", begin, 0.0, latest, 0.25),
    )


def augmentation(run, seconds, audible):
    """Choose p of the joint augmentation; show a stem as the discriminator sees it."""
    tracks = read_index(run / "data.json")[0]["test"]

    def show(stem, p, draw):
        part = excerpt(run, tracks[0], None, seconds, arms={})
        sounds = {"unchanged": part.references[stem]}
        sounds |= {f"draw {k}": augmented(part.references[stem], p, k) for k in range(draw, draw + DRAWS)}
        if audible:
            display(players({f"{stem}, p = {p:g}": sounds}, SAMPLERATE, seconds))
        display(waveforms_and_spectra(sounds, f"{stem.capitalize()}: what does the discriminator see at p = {p:g}?"))
        display(Markdown(chances(p)))

    return controls(
        show,
        stem=choice("stem", tracks[0].sources, tracks[0].sources[-1]),
        p=slider("p", 0.3, 0.0, 1.0, 0.05),
        draw=slider("first draw", 0, 0, 50, 1),
    )


def augmented(audio, p, draw):
    """`audio` (channels, samples) after joint augmentation with probability p and the seed `draw`."""
    samples = audio.shape[-1]
    operator = JointAugmentation(np.random.RandomState(draw), p, 1, slice(0, 1), samples, SAMPLERATE)
    return operator(torch.from_numpy(audio)[None, None])[0, 0].numpy()


def chances(p):
    """A sentence: what p means for an excerpt."""
    return (
        f"With p = {p:g}, {OPERATORS * p:.1f} of {OPERATORS} operators act on an excerpt on average, and "
        f"{(1 - p) ** OPERATORS:.0%} of the excerpts stay unchanged."
    )


def gradient_share(run):
    """Choose λ and a share; show how hard the discriminators of `run` pulled, and would have pulled with this λ."""
    gan_runs = {name: read_metrics(run / name) for name in heard_arms(run).values()}
    ratios = {name: ratio for name, rows in gan_runs.items() if (ratio := gradient_ratio(rows))}

    def show(λ, share):
        display(shares(gan_runs, ratios, λ, share))
        display(Markdown(pull(ratios, λ, share)))

    λ = FloatLogSlider(value=100, description="λ", min=0, max=4, step=0.05, readout_format=".3g", **_LAYOUT)
    return controls(show, λ=λ, share=slider("share", 0.1, 0.01, 0.9, 0.01, live=True))


def gradient_ratio(metrics):
    """Norm of the adversarial gradient at the estimates over that of L1, both unweighted.

    It is taken at the last evaluation with an adversarial term; None if there is none.
    """
    measured = metrics.reindex(columns=["adversarial_share", "adversarial_weight"]).astype(float)
    adversarial = measured[(measured > 0).all(axis=1)]
    if adversarial.empty:
        return None
    share, weight = adversarial.iloc[-1]
    return share / (1 - share) / weight


def pull(ratios, λ, share):
    """Sentences: what λ and a share mean for the discriminators of a run. ratios: {<arm>-<seed>: `gradient_ratio`}."""
    if not ratios:
        return "In this run no generator has been trained against a discriminator yet."
    runs = "".join(
        f"- {name}: λ = {λ:.3g} gives the discriminator a share of {plain(share_of(ratio, λ))}; "
        f"a share of {plain(share)} needs λ = {ratio * (1 - share) / share:,.0f}.\n"
        for name, ratio in ratios.items()
    )
    return (
        f"With the gradients of the last evaluation:\n\n{runs}\n**One λ is not one strength**: the parameter "
        "`adversarial_share` therefore sets the share, and the weight follows from it."
    )


def drawn(run, drawing, seconds):
    """Choose the stem that the wave of a `DrawAudio` plays in a song; show how every arm separates the song.

    Where an arm separates other stems than the song's, all of its estimates are shown.
    """

    def show(stem):
        stems = own_song(drawing.wave, stem, envelope=drawing.envelope, seconds=seconds)
        mixture = sum(stems.values())
        estimates = separate_all(run, mixture)
        part = Excerpt("your sound in a song", 0, mixture, stems, estimates)
        rows = {part.name: {"mixture": mixture, "your sound alone": stems[stem]}}
        if any(sounds.keys() != stems.keys() for sounds in estimates.values()):
            display(players(rows | {ARMS.get(arm, arm): x for arm, x in estimates.items()}, SAMPLERATE, seconds))
            return
        rows["estimates of your sound"] = {ARMS.get(arm, arm): sounds[stem] for arm, sounds in estimates.items()}
        display(players(rows, SAMPLERATE, seconds))
        display(spectrograms(part, [stem]))

    alone = (
        "Nobody drew a wave for this page: the song has a sine. A sine has no overtones, so “other” and “bass” differ "
        "little; with a rougher wave they do."
    )
    stem = choice("played stem", ["other", "bass"], "other")
    return controls(show, button="Separate my sound", alone=alone, stem=stem)
