"""The real trainer at a tiny size: in forks of a process that has loaded torch, and through its launcher."""

import dataclasses
import json
import shutil

import pytest
import torch
from support import cured, gan, metrics, tiny, train, weights

from lib.common.errors import UserError
from lib.config import Config
from lib.data.tracks import read_index
from lib.models.weights import load_weights
from lib.runs.checkpoint import append_line
from lib.runs.distributed import Ranks
from lib.runs.folders import claim, trained
from lib.runs.launch import launch
from lib.train import Interrupted, Trainer


def trainer(config, folder):
    """A trainer in this process, as the command line makes one."""
    config, _ = claim(config, folder)
    return Trainer(config, folder, Ranks())


def test_training_learns_and_leaves_what_it_promises(index, tmp_path):
    folder = tmp_path / "l1-1"
    launch(tiny(index, steps=60, evaluate_every=20), folder)
    lines = metrics(folder)
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert lines[-1]["l1_heldout"] < 0.9 * lines[0]["l1_heldout"], "sixty steps lower the held-out error"
    note = json.loads((folder / "config.json").read_text())
    assert note["finished"] and note["config"]["steps"] == 60 and {"commit", "machine"} <= set(note["made_by"])
    shutil.copytree(folder, tmp_path / "pretrain-1")
    shutil.copytree(folder, tmp_path / "l1-2~0123abcd")
    assert trained(tmp_path) == ["l1-1"], "neither the common start nor what was set aside"


def test_same_seed_same_metrics_and_weights(index, pretrained, tmp_path):
    train(tiny(index), tmp_path / "again")
    assert metrics(tmp_path / "again") == metrics(pretrained)
    assert weights(tmp_path / "again") == weights(pretrained)
    train(tiny(index, seed=43), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(pretrained)


# What another processor would do: other sizes of vectors, so other orders of sums.
OLDER = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


@pytest.mark.whole
def test_other_threads_and_instructions_give_the_same_losses(index, pretrained, tmp_path, monkeypatch):
    config = gan(index, pretrained, steps=20, evaluate_every=5, lr=1e-3, discriminator_lr=1e-5)
    train(config, tmp_path / "plain")
    for name, other in {"threads": {"OMP_NUM_THREADS": "2"}, "instructions": OLDER}.items():
        with monkeypatch.context() as patch:
            for variable, value in other.items():
                patch.setenv(variable, value)
            launch(config, tmp_path / name)
        for a, b in zip(metrics(tmp_path / "plain"), metrics(tmp_path / name), strict=True):
            for loss in ("l1_batches", "l1_heldout", "discriminator", "adversarial"):
                assert b[loss] == pytest.approx(a[loss], rel=1e-5), (name, a["step"], loss)


# GAN training amplifies rounding, the more the faster the discriminator learns. Measured at 1e-4, two seeds, between
# threads, instruction sets and numbers of processes: mostly 3e-7 throughout; where one rounding crosses a kink of the
# losses, 3e-6 within the first four steps and 4e-4 within twenty.
FIRST = 4  # steps in which rounding has not grown, and a mistake shows


@pytest.mark.parametrize(
    ("arm", "rate", "bound"),
    [
        ("gan", 1e-5, 1e-5),
        pytest.param("l1", 1e-5, 1e-5, marks=pytest.mark.whole),
        pytest.param("gan", 1e-4, 2e-3, marks=pytest.mark.whole),
        pytest.param("relativistic", 1e-5, 1e-5, marks=pytest.mark.whole),
    ],
)
def test_two_processes_give_the_losses_of_one(index, pretrained, tmp_path, arm, rate, bound):
    make = (lambda index, _, **changes: tiny(index, **changes)) if arm == "l1" else gan
    loss = {"adversarial_loss": arm} if arm == "relativistic" else {}
    config = make(
        index, pretrained, steps=20, evaluate_every=1, evaluation_excerpts=2, lr=1e-3, discriminator_lr=rate, **loss
    )
    for nproc in (1, 2):
        train(config, tmp_path / str(nproc), nproc)
    one, two = metrics(tmp_path / "1"), metrics(tmp_path / "2")
    assert len(one) == len(two) == 20
    for a, b in zip(one, two, strict=True):
        for name in ("l1_batches", "l1_heldout", "discriminator", "adversarial"):
            if name in a:
                allowed = 1e-5 if a["step"] <= FIRST else bound
                assert b[name] == pytest.approx(a[name], rel=allowed), (a["step"], name)


@pytest.mark.parametrize("nproc", [1, 2])
def test_bfloat16_trains_to_about_the_same_losses(index, tmp_path, nproc):
    for precision in ("fp32", "bf16"):
        train(tiny(index, precision=precision, steps=12, evaluate_every=12), tmp_path / precision, nproc)
    [plain], [half] = metrics(tmp_path / "fp32"), metrics(tmp_path / "bf16")
    assert half["l1_batches"] != plain["l1_batches"], "it was used"
    assert half["l1_heldout"] == pytest.approx(plain["l1_heldout"], rel=0.01)  # eight bits of mantissa: 0.4 % a product


LOSSES = {
    "l1_batches",
    "l1_train",
    "l1_heldout",
    "discriminator",
    "adversarial",
    "feature_matching",
    "spectral",
    "r1",
    "r2",
    "bce_train",
    "bce_heldout",
}


@pytest.mark.whole
def test_two_processes_give_the_losses_of_one_with_every_cure_on(index, pretrained, tmp_path):
    # Rounding differs between one and two processes, and Adam's steps amplify it, most where a gradient is near zero;
    # so both networks learn slowly, and the discriminator from cross-entropy, which has no kinks.
    config = cured(
        index, pretrained, steps=20, evaluate_every=1, evaluation_excerpts=2, lr=3e-4, lr_final=1e-4,
        discriminator_lr=1e-5, adversarial_loss="bce",
    )  # fmt: skip
    for nproc in (1, 2):
        train(config, tmp_path / str(nproc), nproc)
    one, two = metrics(tmp_path / "1"), metrics(tmp_path / "2")
    assert len(one) == len(two) == 20
    seen = set()
    for a, b in zip(one, two, strict=True):
        assert set(a) == set(b) and a["p"] == b["p"]
        for name in LOSSES & set(a):
            assert b[name] == pytest.approx(a[name], rel=1e-4), (a["step"], name)
            seen.add(name)
    assert seen == LOSSES, "each was there to be compared"


def test_gan_arm_records_the_four_sets_and_plays_by_its_schedule(index, pretrained, tmp_path):
    train(gan(index, pretrained, steps=4, evaluate_every=1, adversarial_ramp=2), tmp_path / "gan-1")
    lines = metrics(tmp_path / "gan-1")
    assert ["adversarial" in line for line in lines] == [False, False, True, True]
    assert {"r_t", "r_v_sigma", "r_v_logit", "r_f", "p", "tpr_heldout", "real_heldout_histogram"} <= set(lines[-1])


def test_finished_work_is_not_repeated_and_other_parameters_do_not_destroy_it(index, pretrained, tmp_path, capsys):
    folder = tmp_path / "l1-1"
    train(tiny(index), folder)
    launch(tiny(index), folder)
    assert "not repeated" in capsys.readouterr().out
    first = weights(folder)
    train(tiny(index, lr=1e-3), folder)
    assert weights(folder) != first
    _, finished = claim(tiny(index), folder)
    assert finished and weights(folder) == first, "the earlier result comes back"


@pytest.mark.whole
@pytest.mark.parametrize("nproc", [1, 2])
def test_a_log_without_weights_is_written_anew(index, tmp_path, nproc):
    """As in a fresh clone, where config.json and metrics.jsonl are committed and the weights are not."""
    folder = tmp_path / "l1-1"
    launch(tiny(index), folder, nproc)
    wanted = metrics(folder)
    for name in ("state.pt", "model.safetensors"):
        (folder / name).unlink()
    launch(tiny(index), folder, nproc)
    assert metrics(folder) == wanted
    for name in ("state.pt", "model.safetensors"):
        (folder / name).unlink()
    launch(tiny(index, steps=4), folder)
    assert len(metrics(folder)) == 1 and not list(tmp_path.glob("*~*"))


def test_an_arm_starts_anew_when_its_checkpoint_changed(index, pretrained, tmp_path):
    base, arm = tmp_path / "pretrain-1", tmp_path / "l1-1"
    train(tiny(index, steps=2), base)
    config, _ = claim(tiny(index, start_from=str(base)), arm)
    train(tiny(index, steps=3), base)
    changed, finished = claim(tiny(index, start_from=str(base)), arm)
    assert changed.start_digest != config.start_digest and not finished


def test_branches_of_another_start_are_set_aside_with_it(index, tmp_path):
    base, arm, other = tmp_path / "pretrain-1", tmp_path / "gan-1", tmp_path / "l1-9"
    train(tiny(index, steps=2), base)
    train(tiny(index, steps=2, start_from=str(base)), arm)
    train(tiny(index, steps=2), other)
    first = weights(arm)
    train(tiny(index, steps=3), base)
    assert not arm.exists() and other.exists()
    train(tiny(index, steps=2), base)
    _, finished = claim(tiny(index, steps=2, start_from=str(base)), arm)
    assert finished and weights(arm) == first, "both come back"


def same_weights(folder, state, network="generator", prefix=""):
    """Whether model.safetensors holds what a network of a checkpoint holds."""
    kept = load_weights(folder / "model.safetensors").state_dict()
    checkpoint = torch.load(folder / state, weights_only=True)[network]
    return all(torch.equal(value, checkpoint[prefix + name]) for name, value in kept.items())


def test_best_weights_are_those_of_the_lowest_heldout_loss(index, tmp_path):
    # A learning rate that wrecks the network after the first evaluation
    folder = tmp_path / "best"
    train(tiny(index, lr=1e-3, lr_final=30.0, steps=12, evaluate_every=3, keep="best", keep_states=4), folder)
    best = min(metrics(folder), key=lambda line: line["l1_heldout"])
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state["best"] == best["l1_heldout"] and best["step"] < 12
    for step in (3, 6, 9, 12):
        assert same_weights(folder, f"state-{step:07d}.pt") == (step == best["step"]), step


def stop_after(run, step):
    """Ask a trainer to stop in a step, as SIGTERM does."""
    take_step = run.train_step

    def stopping_step():
        taken = take_step()
        run.stopping = run.step == step
        return taken

    run.train_step = stopping_step
    with pytest.raises(Interrupted, match=f"stopped at step {step} of"):
        run.run()


def test_a_run_that_stops_between_evaluations_keeps_its_means_and_its_best_weights(index, tmp_path):
    config = tiny(index, lr=1e-3, lr_final=30.0, steps=12, evaluate_every=3, keep="best")
    trainer(config, tmp_path / "whole").run()
    wanted = metrics(tmp_path / "whole")
    assert min(wanted, key=lambda line: line["l1_heldout"])["step"] < 11 < wanted[-1]["step"]
    for step in (2, 11):  # before the first checkpoint, and after the best weights
        stop_after(trainer(config, tmp_path / "stopped"), step)
        state = torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)
        assert state["step"] == step, "between checkpoints"
        assert trainer(config, tmp_path / "stopped").seconds == state["seconds"] > 0
    append_line(tmp_path / "stopped" / "metrics.jsonl", {"step": 12})  # as when it is killed before it has saved
    trainer(config, tmp_path / "stopped").run()
    assert metrics(tmp_path / "stopped") == wanted
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_a_branch_takes_up_weights_and_optimizer_and_draws_batches_of_its_own(index, pretrained, tmp_path):
    start = torch.load(pretrained / "state.pt", weights_only=True)
    branch = trainer(tiny(index, start_from=str(pretrained)), tmp_path / "l1-1")
    for name, value in branch.generator.state_dict().items():
        assert torch.equal(value.cpu(), start["generator"][name])
    moments = branch.optimizer.state_dict()["state"]
    assert moments and moments.keys() == start["optimizer"]["state"].keys()
    for key, values in start["optimizer"]["state"].items():
        assert all(torch.equal(moments[key][name].cpu(), value) for name, value in values.items())
    assert branch.step == 0 and not torch.equal(branch.batches(0), trainer(tiny(index), tmp_path / "other").batches(0))


def test_a_branch_of_a_weights_file_starts_with_these_and_a_new_optimizer(index, pretrained, tmp_path):
    file = shutil.copy(pretrained / "model.safetensors", tmp_path / "start.safetensors")
    branch = trainer(tiny(index, start_from=str(file)), tmp_path / "l1-1")
    wanted = load_weights(file).state_dict()
    assert all(torch.equal(value.cpu(), wanted[name]) for name, value in branch.generator.state_dict().items())
    assert not branch.optimizer.state_dict()["state"]
    config, _ = claim(tiny(index, start_from=str(file)), tmp_path / "l1-2")
    assert config.start_digest == claim(tiny(index, start_from=str(pretrained)), tmp_path / "l1-3")[0].start_digest
    with pytest.raises(UserError, match="holds a network of another size"):
        claim(tiny(index, start_from=str(file), channels=5), tmp_path / "l1-4")


def test_a_run_trains_on_its_tracks_and_is_evaluated_on_all_of_each_set(index, tmp_path):
    sets, _ = read_index(index)
    run = trainer(tiny(index, tracks=3, evaluation_excerpts=6), tmp_path / "l1-1")
    assert run.batches.excerpts.tracks == run.evaluation["train"].tracks == sets["train"][:3]
    assert run.evaluation["heldout"].tracks == sets["valid"]
    assert run.batches.excerpts.stride == 13_230, "0.3 s"
    seen, evaluate_excerpt = [], run._evaluate_excerpt

    def watched(excerpts, i):
        error, found = evaluate_excerpt(excerpts, i)
        seen.append((excerpts[i][0].name, error))
        return error, found

    run._evaluate_excerpt = watched
    line = run.evaluate()
    for name, tracks in (("l1_train", sets["train"][:3]), ("l1_heldout", sets["valid"])):
        part = [item for item in seen if item[0] in {track.name for track in tracks}]
        assert len(part) == 6 and len({track for track, _ in part}) == len(tracks), "excerpts of every track"
        assert line[name] == pytest.approx(sum(error for _, error in part) / 6, rel=1e-9)


def test_the_learning_rate_follows_a_cosine(index, tmp_path):
    run = trainer(tiny(index, lr=3e-3, lr_final=1e-3), tmp_path / "l1-1")
    # Eight steps: 1e-3 + 2e-3 (1 + cos(pi step / 8)) / 2, by hand
    for step, lr in {0: 3e-3, 2: 2.7071e-3, 4: 2e-3, 7: 1.0761e-3}.items():
        run.step = step
        run.optimizer.state.clear()  # Adam's first step moves a weight by lr, whatever the size of its gradient
        before = [weight.detach().clone() for weight in run.generator.parameters()]
        run.train_step()
        moved = [(a - b).abs().max().item() for a, b in zip(run.generator.parameters(), before, strict=True)]
        assert max(moved) == pytest.approx(lr, rel=1e-3), step  # rounding of weights near 1: 1e-7 / 1e-3


def test_a_generator_at_rest_stays_as_it_is(index, pretrained, tmp_path):
    run = trainer(gan(index, pretrained, lr=0.0, lr_final=0.0), tmp_path / "rest")
    before = [weight.detach().clone() for weight in run.generator.parameters()]
    for _ in range(3):
        run.train_step()
    assert all(torch.equal(a, b) for a, b in zip(run.generator.parameters(), before, strict=True))


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_averaged_generator_is_evaluated_and_kept(index, tmp_path, keep):
    folder = tmp_path / "ema"
    run = trainer(tiny(index, ema=0.75, steps=3, evaluate_every=3, keep=keep), folder)
    weight, seen, losses, take_step = next(run.generator.parameters()), [], [], run.train_step

    def watched_step():
        taken = take_step()
        seen.append(weight.detach().clone())
        losses.append(taken["l1_batches"].item())
        return taken

    run.train_step = watched_step
    run.run()
    wanted = 0.75 * (0.75 * seen[0] + 0.25 * seen[1]) + 0.25 * seen[2]
    kept = load_weights(folder / "model.safetensors")
    torch.testing.assert_close(next(kept.parameters()), wanted.cpu(), rtol=1e-5, atol=1e-7)  # float32
    assert same_weights(folder, "state.pt", "ema", "module.") and not same_weights(folder, "state.pt")

    [line] = metrics(folder)
    assert line["l1_batches"] == pytest.approx(sum(losses) / 3, rel=1e-6), "the mean over the steps"
    with torch.no_grad():
        for network, evaluated in ((run.generator, False), (run.ema.module, True)):
            for parameter in network.parameters():
                parameter.mul_(1.1)
            assert (run.evaluate()["l1_heldout"] != line["l1_heldout"]) == evaluated


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(index, tmp_path):
    folder = tmp_path / "wild"
    with pytest.raises(UserError, match="became infinite or NaN"):
        train(tiny(index, lr=1e18, lr_final=1e18, steps=400), folder)
    assert not (folder / "model.safetensors").exists()
    if (folder / "state.pt").exists():
        state = torch.load(folder / "state.pt", weights_only=True)["generator"]
        assert all(value.isfinite().all() for value in state.values())


def test_a_run_comes_back_after_one_that_failed_in_its_folder(index, tmp_path):
    folder = tmp_path / "l1-1"
    train(tiny(index, steps=2), folder)
    first = weights(folder)
    with pytest.raises(UserError, match="became infinite or NaN"):
        train(tiny(index, lr=1e18, lr_final=1e18, steps=400), folder)
    assert not (folder / "state.pt").exists(), "it failed before its first checkpoint"
    _, finished = claim(tiny(index, steps=2), folder)
    assert finished and weights(folder) == first


def test_configuration_survives_its_file(index):
    config = tiny(index)
    assert Config.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
