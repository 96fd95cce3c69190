"""Long runs meet dying processes, preemption, full disks and other machines; the real launchers, at a tiny size."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from support import cured, family, gan, gone, metrics, start_training, tiny, train, weights

from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.runs import launch as launcher
from lib.runs.folders import claim
from lib.runs.launch import launch


@pytest.fixture(scope="module")
def undisturbed(index, pretrained, tmp_path_factory):
    """The GAN arm on two ranks: its parameters, and its folder."""
    config = gan(index, pretrained, steps=60, evaluate_every=6)
    folder = tmp_path_factory.mktemp("undisturbed") / "gan-1"
    launch(config, folder, 2)
    return config, folder


def wait_for(condition, what, seconds=60):
    for _ in range(int(seconds / 0.02)):
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def lines_in(folder):
    log = folder / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def process_of(folder, rank):
    """The process id of a rank that trains in `folder`, or None."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (place / "cmdline").read_bytes().split(b"\0") and (
                f"RANK={rank}".encode() in (place / "environ").read_bytes().split(b"\0")
            ):
                return int(place.name)
        except OSError:  # it ended meanwhile
            continue
    return None


def in_background(function, *arguments, **options):
    errors = []

    def target():
        try:
            function(*arguments, **options)
        except UserError as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    return thread, errors


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_rank_that_dies_is_replaced_and_the_weights_are_the_same(undisturbed, tmp_path, how):
    config, whole = undisturbed
    folder = tmp_path / "gan-1"
    thread, errors = in_background(launch, config, folder, 2)
    wait_for(lambda: lines_in(folder) >= 3, "three evaluations")
    first = process_of(folder, 1)
    os.kill(first, how)
    thread.join(timeout=120)
    assert not thread.is_alive() and not errors
    assert weights(folder) == weights(whole) and metrics(folder) == metrics(whole)
    assert not Path(f"/proc/{first}").exists()


def test_a_preempted_run_saves_between_checkpoints_and_goes_on(undisturbed, tmp_path):
    config, whole = undisturbed
    folder = tmp_path / "gan-1"
    claim(config, folder)
    log, state = folder / "metrics.jsonl", folder / "state.pt"
    for evaluations in (2, 4, 6):  # a stop in the step of a checkpoint shows little: again
        run = start_training(folder, 2)
        # The log is written before the checkpoint: the next step has begun
        wait_for(
            lambda e=evaluations: lines_in(folder) >= e and state.stat().st_mtime_ns > log.stat().st_mtime_ns,
            "evaluations",
        )
        run.send_signal(signal.SIGTERM)
        output, _ = run.communicate(timeout=60)
        assert run.returncode != 0 and "and saved; run it again to go on" in output
        if (step := torch.load(state, weights_only=True)["step"]) % 6:
            break
    assert 12 <= step < 60 and step % 6, "it was stopped on the way, between checkpoints"
    assert not (folder / "model.safetensors").exists()
    launch(config, folder, 2)
    assert weights(folder) == weights(whole) and metrics(folder) == metrics(whole)


def test_a_training_whose_launcher_is_killed_saves_and_stops(undisturbed, tmp_path):
    """As when a notebook's process is killed: nobody is there to stop it, or to read what it says."""
    config, whole = undisturbed
    folder = tmp_path / "gan-1"
    claim(config, folder)
    program = "import sys; from lib import config; from lib.runs import launch; "
    program += "launch.launch(config.parse([], sys.argv[1]), sys.argv[1], 2)"
    notebook = subprocess.Popen([sys.executable, "-c", program, folder], cwd=ROOT)
    wait_for(lambda: lines_in(folder) >= 2, "two evaluations")
    members = family(notebook.pid)
    assert sum("lib.train" in command for command in members.values()) >= 3, "an agent, and two ranks"
    notebook.kill()
    notebook.wait()
    assert gone(members)
    assert 12 <= torch.load(folder / "state.pt", weights_only=True)["step"] < 60, "it was stopped on the way"
    launch(config, folder, 2)
    assert weights(folder) == weights(whole) and metrics(folder) == metrics(whole)


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(index, pretrained, tmp_path):
    config, folder = cured(index, pretrained, steps=42, evaluate_every=6), tmp_path / "killed"
    train(config, tmp_path / "whole")
    claim(config, folder)
    for evaluations in (2, 4):
        with start_training(folder, 1) as process:
            wait_for(lambda least=evaluations: lines_in(folder) >= least, f"{evaluations} evaluations")
            time.sleep(0.15)  # into the steps between two checkpoints
            assert process.poll() is None, "the run ended before it could be killed; make it longer"
            process.kill()
    train(config, folder)
    assert weights(folder) == weights(tmp_path / "whole")
    assert metrics(folder) == metrics(tmp_path / "whole")


def test_one_process_saves_at_sigterm_too(index, tmp_path):
    config = tiny(index, steps=400, evaluate_every=50)
    claim(config, tmp_path / "l1-1")
    run = start_training(tmp_path / "l1-1", 1)
    wait_for(lambda: lines_in(tmp_path / "l1-1") >= 1, "an evaluation")
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == launcher.INTERRUPTED and "saved" in output and "Traceback" not in output
    assert torch.load(tmp_path / "l1-1" / "state.pt", weights_only=True)["step"] >= 50


def test_launch_says_that_its_training_was_stopped_and_saved(index, tmp_path):
    folder = tmp_path / "l1-1"
    thread, errors = in_background(launch, tiny(index, steps=400, evaluate_every=50), folder)
    wait_for(lambda: lines_in(folder) >= 1, "an evaluation")
    [run] = [pid for pid, command in family(os.getpid()).items() if f"lib.train {folder}" in command]
    os.kill(run, signal.SIGTERM)
    thread.join(timeout=60)
    [error] = errors
    assert str(error).startswith(f"{folder} stopped at step ") and str(error).endswith("saved; run it again to go on.")
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.jsonl", "state.pt"}


def test_an_error_of_the_user_is_not_tried_again(index, tmp_path, monkeypatch):
    """torchrun would start the ranks three times more."""
    config, folder, starts = tiny(index, lr=1e18, lr_final=1e18, steps=400), tmp_path / "l1-1", tmp_path / "starts"
    program = f"open({str(starts)!r}, 'a').write('x'); import runpy; runpy.run_module('lib.train', run_name='__main__')"
    (tmp_path / "counted.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}\n")
    command = launcher._command
    monkeypatch.setattr(
        launcher, "_command", lambda *place: [*command(*place)[:-3], str(tmp_path / "counted.py"), str(folder)]
    )
    with pytest.raises(UserError, match="became infinite or NaN"):
        launch(config, folder, 2)
    assert starts.read_text() == "xx", "once on each rank"


# The loopback alone, and a name for it. (IFF_UP | IFF_LOOPBACK | IFF_RUNNING by SIOCSIFFLAGS.)
ISLAND = """
import fcntl, socket, struct, time
socket.sethostname("localhost")
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x49))
print("up", flush=True)
time.sleep(1e6)
"""


@pytest.fixture
def island():
    """Words before a command that cut it off from every network: torch's stores for several machines listen to all."""
    alone = ["unshare", "--net", "--uts", sys.executable, "-c", ISLAND]
    with subprocess.Popen(alone, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as holder:
        if holder.stdout.readline() != "up\n":
            pytest.skip("needs the right to make a network of its own")
        yield ["nsenter", "--net", "--uts", "--target", str(holder.pid)]
        holder.kill()


PORT = "29500"  # nobody else is on the island
LAUNCH = (
    "import sys; from lib import config; from lib.runs import launch; "
    "launch.launch(config.parse([], sys.argv[1]), sys.argv[1], int(sys.argv[2]), nnodes=2, rdzv_endpoint=sys.argv[3])"
)


def test_two_machines_meet_and_train_as_two_ranks_do(undisturbed, tmp_path, island, monkeypatch):
    """Two elastic agents: one launches, the other joins."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # both "machines" have the same cores
    config, whole = undisturbed
    folder, endpoint = tmp_path / "gan-1", f"localhost:{PORT}"
    claim(config, folder)
    words = [str(tmp_path), "nproc=1", "nnodes=2", f"rdzv_endpoint={endpoint}"]
    other = subprocess.Popen([*island, sys.executable, "-m", "lib.runs.launch", *words], cwd=ROOT)
    try:
        one = [*island, sys.executable, "-c", LAUNCH, str(folder), "1", endpoint]
        subprocess.run(one, cwd=ROOT, check=True, timeout=120)
        assert other.poll() is None, "it waits for the next run"
    finally:
        other.terminate()
        other.wait()
    assert weights(folder) == weights(whole) and metrics(folder) == metrics(whole)


def test_the_slurm_script_trains_on_two_machines(undisturbed, tmp_path, island):
    """With stand-ins for Slurm's own commands: srun starts one copy of the command per machine."""
    config, whole = undisturbed
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text("#!/bin/sh\necho localhost\necho localhost\n")
    (tools / "srun").write_text('#!/bin/sh\n"$@" & first=$!\n"$@" || exit 1\nwait $first\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    claim(config, tmp_path / "gan-1")
    slurm = {"SLURM_JOB_NODELIST": "two", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7", "PORT": PORT}
    environment = os.environ | slurm | {
        "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    script = [*island, str(ROOT / "slurm" / "train.sbatch"), str(tmp_path / "gan-1")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights(tmp_path / "gan-1") == weights(whole)


@pytest.mark.parametrize("arm", ["l1", "gan"])
def test_small_parts_give_the_losses_of_the_whole_batch(index, pretrained, tmp_path, arm):
    make = gan if arm == "gan" else lambda index, _, **changes: tiny(index, **changes)
    for size in (0, 3):  # parts of 3, 3 and 2 excerpts
        config = make(index, pretrained, steps=8, evaluate_every=1, lr=1e-3, discriminator_lr=1e-5, micro_batch=size)
        launch(config, tmp_path / str(size))
    for a, b in zip(metrics(tmp_path / "0"), metrics(tmp_path / "3"), strict=True):
        assert {**b, **{k: pytest.approx(v, rel=1e-5) for k, v in a.items() if k in ("l1_batches", "adversarial")}} == b


def test_a_disk_without_room_ends_in_one_sentence_and_loses_nothing(index, tmp_path):
    """A limit on the size of files stands for the full disk: the system refuses the write just so."""
    folder = tmp_path / "l1-1"
    config = tiny(index, steps=400)
    claim(config, folder)
    run = start_training(folder, 1)
    wait_for(lambda: (folder / "state.pt").exists(), "a checkpoint")
    run.send_signal(signal.SIGTERM)
    run.wait()
    before, logged = (folder / "state.pt").read_bytes(), len(metrics(folder))

    def no_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2,) * 2)

    run = start_training(folder, 1, preexec_fn=no_room)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == launcher.FAILED and "Traceback" not in output
    assert output.splitlines()[-1].startswith("UserError: Cannot write ") and "free some space" in output
    assert (folder / "state.pt").read_bytes() == before and len(metrics(folder)) >= logged
    assert not list(folder.glob(".*.tmp")), "no half file stays"


def test_the_last_checkpoints_are_kept_and_a_damaged_one_names_its_predecessor(index, tmp_path):
    folder = tmp_path / "l1-1"
    config = tiny(index, steps=20, evaluate_every=4, keep_states=3)
    launch(config, folder)
    kept = sorted(path.name for path in folder.glob("state-*.pt"))
    assert kept == ["state-0000012.pt", "state-0000016.pt", "state-0000020.pt"]
    whole = weights(folder)
    (folder / "model.safetensors").unlink()
    (folder / "state.pt").unlink()  # it shares its bytes with state-0000020.pt
    (folder / "state.pt").write_bytes(b"half a file")
    with pytest.raises(UserError, match="state.pt is damaged.*copy state-0000020.pt over it"):
        launch(config, folder)
    (folder / "state.pt").write_bytes((folder / "state-0000012.pt").read_bytes())
    launch(config, folder)
    assert weights(folder) == whole


def test_a_loss_that_is_no_number_names_its_step_and_tracks(index, tmp_path):
    with pytest.raises(UserError, match=r"NaN in step \d+ of .*wild, on excerpts of Band \d.*checkpoint is kept"):
        launch(tiny(index, lr=1e18, lr_final=1e18, steps=400, batch=4), tmp_path / "wild", 1)


def test_the_second_run_in_a_folder_says_so_and_stops(index, tmp_path):
    folder = tmp_path / "l1-1"
    claim(tiny(index, steps=400), folder)
    run = start_training(folder, 1)
    wait_for(lambda: lines_in(folder) >= 1, "an evaluation")
    with pytest.raises(UserError, match=f"l1-1 is being worked on by process {run.pid}; wait for it, or stop it"):
        launch(tiny(index, steps=8), folder)
    assert run.poll() is None and folder.exists(), "the first goes on"
    run.kill()
    run.wait()
    launch(tiny(index, steps=8), folder)
    assert lines_in(folder) == 2, "the dead hold nothing"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nproc": 0}, "nproc = 0 and nnodes = 1 must be at least 1"),
        ({"nnodes": 2}, "rdzv_endpoint = '' must be host:port"),
        ({"nnodes": 2, "rdzv_endpoint": "somewhere"}, "rdzv_endpoint = 'somewhere' must be host:port"),
    ],
)
def test_impossible_launches_are_refused(index, tmp_path, options, says):
    with pytest.raises(UserError, match=says):
        launch(tiny(index), tmp_path / "l1-1", **options)
    with pytest.raises(UserError, match=says):
        launcher.join(tmp_path, **({"nnodes": 1, "rdzv_endpoint": ""} | options))
    assert not (tmp_path / "l1-1").exists()
