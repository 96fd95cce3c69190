"""The D-probe, on signals for which the right answer is known."""

import copy
import itertools
import types
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from support import in_process
from torch.nn import functional as F

from lib.common.errors import UserError
from lib.common.files import read_json, write_json
from lib.data import tracks as data
from lib.data.batches import JointAugmentation
from lib.demucs import Demucs, center_trim
from lib.evaluation import probe
from lib.models.weights import save_weights

SECONDS = 0.1
SAMPLES = round(SECONDS * data.SAMPLERATE)


class Quarter:
    """A generator that says a quarter of the mixture four times, and loses ten samples at either side."""

    def valid_length(self, samples):
        return samples + 20

    def __call__(self, mixture):
        return (mixture[:, None] / 4).expand(-1, 4, -1, -1)[..., 10:-10]


class Imitator:
    """A generator that draws its estimates from the exact distribution of the stems (independent noise of deviation
    1/2) given their sum: no rule tells them from real stems, so a discriminator can only memorise them."""

    def valid_length(self, samples):
        return samples

    def __call__(self, mixture):
        seed = int(mixture.double().abs().sum() * 1e6)  # the same for the same mixture
        noise = torch.randn(len(mixture), 4, *mixture.shape[1:], generator=torch.Generator().manual_seed(seed)) / 2
        return mixture[:, None] / 4 + noise - noise.mean(1, keepdim=True)


IMITATOR = Imitator()


def noise_track(folder, name, seed, seconds):
    random = np.random.RandomState(seed)
    stems = random.randn(4, 2, round(seconds * data.SAMPLERATE)) * 2000
    audio = np.concatenate([stems.sum(0, keepdims=True), stems]).round().astype(np.int16)
    np.save(folder / f"{name}.npy", audio)
    # At twice the stems' deviation, as that of the mixture of four: stems of 1/2, a mixture of 1
    return data.Track(name, str(folder / f"{name}.npy"), audio.shape[-1], 0.0, 4000 / data.FULL_SCALE, "")


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Tracks of independent noise: 40 segments to hold out, and a few of one track to learn."""
    folder = tmp_path_factory.mktemp("noise")
    held_out = [noise_track(folder, f"held out {k}", k, 21 * SECONDS) for k in range(2)]
    return {"train": [noise_track(folder, "seen", 9, 1.0)], "valid": held_out}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(probe, "HELD_OUT", 40)


def test_segments_are_stretches_of_the_tracks_and_the_generators_estimates_of_them(index):
    tracks = tuple(data.read_index(index)[0]["train"][:2])  # of 4 s, 39 segments each
    stems, estimates = probe.segments(tracks, Quarter(), 6, SECONDS)
    assert estimates.shape == (6, 4, 2, SAMPLES) and stems.shape == (6, 4, 2, SAMPLES + 20), "ten samples of context"
    stems = center_trim(stems, estimates)
    for k, place in enumerate((0, 13, 26, 0, 13, 26)):  # every thirteenth
        track = tracks[k // 3]
        begin = place * SAMPLES + 10
        wanted = torch.from_numpy((track.stems()[..., begin : begin + SAMPLES] - track.mean) / track.std)
        torch.testing.assert_close(stems[k], wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(estimates[k], (wanted.sum(0) / 4).expand(4, -1, -1), rtol=0, atol=1e-5)


def test_too_few_segments_are_refused_in_one_sentence(noise):
    with pytest.raises(UserError, match=r"hold 10 segments of 0.1 s, fewer than 11; ask for fewer\."):
        probe.segments(tuple(noise["train"]), IMITATOR, 11, SECONDS)


def cell(noise, cure="none", generator=IMITATOR, **changes):
    base = dict(count=3, seed=1, steps=30, seconds=SECONDS, batch=4, width=8, lr=1e-3)
    return probe.cell(noise, generator, cure=cure, **(base | changes))


def test_memorisation_is_seen_where_there_is_nothing_else_to_learn(noise):
    found = cell(noise, steps=150)
    assert found["r_t"] == 1, "it knows every real patch that it has seen"
    # 40 segments of each kind with two overlapping patches: 4 sigma of the AUC of 40 + 40 is 0.26
    assert found["auc_heldout"] == pytest.approx(0.5, abs=0.26)
    assert found["tpr_heldout"] + found["tnr_heldout"] == pytest.approx(1, abs=0.45)  # 4 sigma, as above
    # All of the distance between real and generated is lost on others (4 sigma, as above)
    assert found["r_v_sigma"] + found["r_f"] == pytest.approx(1, abs=0.45)
    assert found["bce_heldout"] > np.log(2), "worse than a guess"


def test_each_pass_shows_every_segment_once_in_an_order_of_its_own():
    def passes(seed):
        shown = [k for batch in itertools.islice(probe.batches(9, 4, seed), 9) for k in batch]
        return [tuple(shown[k : k + 9]) for k in range(0, 36, 9)]

    assert all(sorted(part) == list(range(9)) for part in passes(1))
    assert len({*passes(1), *passes(2)}) == 8 and passes(1) == passes(1)


class Offset(Quarter):
    """The same, with a constant beside it: a difference that any segment shows."""

    def __call__(self, mixture):
        return super().__call__(mixture) + 1


def test_a_difference_that_all_segments_share_is_no_memory(noise):
    found = cell({"train": noise["valid"][:1], "valid": noise["valid"]}, generator=Offset(), count=19)
    assert found["auc_heldout"] > 0.95 and abs(found["r_v_sigma"]) < 0.05 and abs(found["r_f"]) < 0.05


def test_of_a_generator_without_error_nothing_can_be_told(noise):
    found = cell(noise, error=0.0)
    assert found["auc_heldout"] == 0.5 and found["r_v_sigma"] is None
    assert found["tpr_heldout"] == 1 - found["tnr_heldout"]


def test_a_cell_holds_what_it_promises_and_gives_the_same_again(noise):
    found = cell(noise)
    assert list(found) == ["segments", "cure", "seed", *probe.COLUMNS]
    assert (found["segments"], found["cure"], found["seed"]) == (3, "none", 1)
    torch.rand(3)
    assert cell(noise) == found
    assert cell(noise, seed=2) != found


def watched(noise, cure, steps, monkeypatch):
    """A cell and its course: `found`; `adversary`; `start`, the discriminator before its first step; of that step
    `given` (stems, estimates), `seen` (mixture, real, generated), `gradient` by all weights in a row, and `dropped`,
    the outputs of its dropout; `evaluations`, p and metrics after each."""
    log, make = types.SimpleNamespace(evaluations=[], forwards=[], dropped=[]), probe.build_adversary

    def record(*arguments, **settings):
        log.adversary = adversary = make(*arguments, **settings)
        log.start = copy.deepcopy(adversary.discriminator)
        forward = adversary.discriminator.register_forward_pre_hook(lambda _, inputs: log.forwards.append(inputs))
        dropout = adversary.discriminator.patch.dropout.register_forward_hook(
            lambda *call: log.dropped.append(call[-1])
        )
        view, play, observe = adversary.inputs, adversary.discriminator_step, adversary.observe

        def inputs(step, *given):
            if step == 0:
                log.given = given
            return view(step, *given)

        def discriminator_step(step, seen):
            play(step, seen)
            if step == 0:
                forward.remove()
                dropout.remove()
                log.gradient = flat(p.grad for p in adversary.discriminator.parameters())

        adversary.inputs, adversary.discriminator_step = inputs, discriminator_step
        adversary.observe = lambda metrics: (observe(metrics), log.evaluations.append((adversary.p, metrics)))
        return adversary

    with monkeypatch.context() as patch:
        patch.setattr(probe, "build_adversary", record)
        log.found = cell(noise, cure, steps=steps)
    log.seen = log.forwards[0]
    return log


def flat(parts):
    return torch.cat([part.detach().flatten() for part in parts])


def augmented(log, p):
    """What the first step was given, each operator applied with probability p."""
    augment = JointAugmentation(np.random.RandomState([1, 3, 0]), p, 4, slice(0, 4), SAMPLES, data.SAMPLERATE)
    return [augment(part) for part in log.given]


def augments(log, _):
    stems, estimates = augmented(log, 0.5)
    wanted = stems.sum(1), stems, estimates
    for found, part in zip(log.seen, wanted, strict=True):
        torch.testing.assert_close(found, part, rtol=0, atol=2e-5)
    assert not torch.allclose(stems, log.given[0], atol=0.1)


def drives_p(log, _):
    """A quarter (25 of 100 steps) up where r_v is above 0.2, else down."""
    p = 0.0
    for found, metrics in log.evaluations:
        p = min(max(p + (0.25 if metrics["r_v_sigma"] > 0.2 else -0.25), 0.0), 0.8)
        assert found == pytest.approx(p)
    assert len(log.evaluations) == 3 and p > 0, "after 25, 50 and 55 steps"


def adds_to_the_loss(log, naive, r1=0.0, lecam=0.0):
    """The first step's gradient is that of cross-entropy, γ / 2 · 16 · R1 and LeCam's penalty, by hand."""
    mixture, stems, estimates = log.seen
    stems = stems.detach().requires_grad_()
    real, generated = (log.start(mixture, x)["patch"][-1] for x in (stems, estimates))
    (by_stems,) = torch.autograd.grad(real.sum(), stems, create_graph=True)
    steepness = (by_stems * mixture.std(dim=(1, 2)).view(-1, 1, 1, 1)).square().sum() / real.numel()
    distance = (real - generated.mean().detach()).square().mean() + (generated - real.mean().detach()).square().mean()
    loss = (F.softplus(-real).mean() + F.softplus(generated).mean()) / 2
    weights = [*log.start.parameters()]
    plain, added = (
        flat(torch.autograd.grad(x, weights, retain_graph=True, materialize_grads=True))
        for x in (loss, r1 / 2 * 16 * steepness + lecam * distance)
    )
    assert added.norm() > 0.02 * plain.norm()
    assert (log.gradient - plain - added).norm() < 0.02 * added.norm()


def adds_noise(log, size, p, alike):
    """Of `size` times the mixture's deviation; `alike` on real and generated, and its sum on the mixture."""
    (stems, estimates), (mixture, *seen) = augmented(log, p), log.seen
    first, second = (found - part for found, part in zip(seen, (stems, estimates), strict=True))
    level = stems.sum(1).std(dim=(1, 2))
    for noise in (first, second):  # 8,820 draws a stem: 4 sigma are 3 %
        torch.testing.assert_close(noise.std(dim=(2, 3)), size * level[:, None].expand(-1, 4), rtol=0.04, atol=0)
    if alike:
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)
    else:
        assert torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs() < 0.03
    torch.testing.assert_close(mixture - stems.sum(1), first.sum(1) if alike else 0 * mixture, rtol=0, atol=2e-5)


def remixes(log, naive):
    (stems, estimates), before = log.given, naive.given[0]
    same = (stems[:, None] == before[None]).flatten(3).all(-1)  # (item, where its stem comes from, source)
    assert same.any(1).all() and not same.all(2).any(1).all(), "whole stems, in some items from several others"
    assert torch.equal(stems[:, :, 0, 0].sort(0)[0], before[:, :, 0, 0].sort(0)[0]), "each stem goes to one item"
    torch.testing.assert_close(estimates, IMITATOR(stems.sum(1)), rtol=0, atol=1e-5)


def norms(network):
    return [torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item() for layer in network.patch.layers]


def holds_the_norms(log, naive):
    assert norms(log.adversary.discriminator) == pytest.approx(
        [1] * 7, abs=0.1
    )  # after few steps of the power iteration
    assert min(norms(naive.adversary.discriminator)) > 1.2


def drops_channels(log, naive):
    outputs = log.dropped[:6]  # of the first forward
    kept = torch.cat([(x != 0).any(0).any(-1) for x in outputs])
    assert len(kept) == 8 * (1 + 2 + 4 + 8 + 8 + 8)
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.12)  # 4 sigma of 248 draws
    assert all((x != 0).all() for x in naive.dropped[:6])


def narrows(log, naive):
    found, before = ([x.out_channels for x in log_.adversary.discriminator.patch.layers] for log_ in (log, naive))
    assert before == [8, 16, 32, 64, 64, 64, 1] and found == [2, 4, 8, 16, 16, 16, 1]


def keeps_the_best(log, naive):
    entropies = [metrics["bce_heldout"] for _, metrics in log.evaluations]
    assert len(entropies) == 3 and naive.found["bce_heldout"] == entropies[-1], "the same discriminator was trained"
    assert log.found["bce_heldout"] == min(entropies) < entropies[-1], "memory makes it worse"


EFFECTS = {
    "joint augmentation, p 0.5": [augments],
    "joint augmentation, adaptive p": [drives_p],
    "R1, γ 0.01": [partial(adds_to_the_loss, r1=0.01)],
    "R1, γ 0.1": [partial(adds_to_the_loss, r1=0.1)],
    "instance noise": [lambda log, _: adds_noise(log, 0.1, 0.0, alike=False)],
    "dither": [lambda log, _: adds_noise(log, 0.03, 0.0, alike=True)],
    "remix of stems": [remixes],
    "LeCam": [partial(adds_to_the_loss, lecam=0.3)],
    "spectral norm": [holds_the_norms],
    "dropout": [drops_channels],
    "quarter width": [narrows],
    "early stop": [keeps_the_best],
    "augmentation + R1": [augments, partial(adds_to_the_loss, r1=0.01)],
    "augmentation + noise": [lambda log, _: adds_noise(log, 0.1, 0.5, alike=False)],
}


@pytest.mark.parametrize("cure", [cure for cure in probe.CURES if cure != "none"])
def test_every_cure_does_what_its_name_says(noise, cure, monkeypatch):
    steps = 55 if "adaptive" in cure or cure == "early stop" else 3  # these act on an evaluation, every 25 steps
    log, naive = (watched(noise, name, steps, monkeypatch) for name in (cure, "none"))
    for effect in EFFECTS[cure]:
        effect(log, naive)
    assert log.found["cure"] == cure and any(log.found[name] != naive.found[name] for name in probe.COLUMNS)


@pytest.fixture
def weights(tmp_path):
    save_weights(Demucs(channels=2, depth=2, lstm_layers=0), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_cells_are_kept_until_what_they_depend_on_changes(index, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "workers", in_process)
    run, trained = probe.cell, []
    monkeypatch.setattr(
        probe,
        "cell",
        lambda *a, count, cure, seed, **k: trained.append(seed) or run(*a, count=count, cure=cure, seed=seed, **k),
    )

    def table(seeds, **changes):
        cells = [(4, cure, seed) for seed in seeds for cure in ("none", "LeCam")]
        return probe.run(
            tmp_path / "dprobe", index, weights, cells, **({"steps": 2, "seconds": 0.1, "width": 4} | changes)
        )

    first = table([1])
    assert [*first.columns] == ["segments", "cure", "seed", *probe.COLUMNS]
    assert first.cure.tolist() == ["none", "LeCam"] and trained == [1, 1]
    both = table([2, 1])
    assert both.seed.tolist() == [2, 2, 1, 1] and trained == [1, 1, 2, 2], "in the order asked for; the first is kept"
    pd.testing.assert_frame_equal(both[2:].reset_index(drop=True), first)
    pd.testing.assert_frame_equal(table([2, 1]), both)
    assert trained == [1, 1, 2, 2]
    table([1], steps=3)
    assert trained == [1, 1, 2, 2, 1, 1] and len(pd.read_csv(tmp_path / "dprobe" / "dprobe.csv")) == 2
    save_weights(Demucs(channels=3, depth=2, lstm_layers=0), weights)
    table([1], steps=3)
    assert trained == [1, 1, 2, 2, 1, 1, 1, 1], "other weights"
    sets, _ = data.read_index(index)
    data.write_index(tmp_path / "data.json", sets | {"valid": sets["valid"][:1]})
    index = tmp_path / "data.json"
    table([1], steps=3)
    assert trained == [1, 1, 2, 2, 1, 1, 1, 1, 1, 1], "other data"
    monkeypatch.setattr(probe, "VERSION", probe.VERSION + 1)
    with pytest.raises(UserError, match="dprobe.json is of another version .*; run the notebook 04-discriminator"):
        probe.read_probe(tmp_path / "dprobe")
    table([1], steps=3)
    assert trained == [1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1], "another version"
    assert len(probe.read_probe(tmp_path / "dprobe")) == 2
    note = read_json(tmp_path / "dprobe" / "dprobe.json")
    del note["version"]  # as of the first version
    write_json(tmp_path / "dprobe" / "dprobe.json", note)
    monkeypatch.setattr(probe, "VERSION", 1)
    table([1], steps=3)
    assert len(trained) == 12, "kept"


def test_cells_of_other_settings_never_count_even_after_an_interruption(index, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "workers", in_process)
    cells, settings = [(4, "none", 1)], {"seconds": 0.1, "width": 4}
    before = probe.run(tmp_path, index, weights, cells, steps=2, **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(probe, "cell", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        probe.run(tmp_path, index, weights, cells, steps=8, **settings)
    assert not probe.run(tmp_path, index, weights, cells, steps=8, **settings).equals(before)


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("cure", "prayer", "cures = 'prayer' is unknown; choose one of none, joint augmentation, p 0.5, "),
        ("segments", 0, "segments = 0 must be above 0"),
        *((name, 0, f"{name} = 0 must be above 0") for name in ("steps", "seconds", "batch", "width", "lr", "error")),
        ("seconds", float("nan"), "seconds = nan must be above 0"),
    ],
)
def test_an_unknown_cure_or_a_value_out_of_range_is_refused_before_any_step(
    index, weights, tmp_path, name, value, says
):
    values = {"segments": 4, "cure": "none", "steps": 1, "seconds": SECONDS, name: value}
    cells = [(4, "none", 1), (values.pop("segments"), values.pop("cure"), 1)]
    with pytest.raises(UserError, match=says):
        probe.run(tmp_path / "dprobe", index, weights, cells, **values)
    assert not (tmp_path / "dprobe").exists()


def test_too_many_segments_are_refused_before_any_step(index, weights, tmp_path):
    with pytest.raises(UserError, match="fewer than 4000; ask for fewer"):
        probe.run(tmp_path / "dprobe", index, weights, [(4, "none", 1), (4000, "none", 1)], steps=1, seconds=0.1)
    assert not (tmp_path / "dprobe").exists()
