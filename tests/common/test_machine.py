"""What clusters, containers and file systems withhold: cores, memory, locks, a repository, an environment."""

import errno
import fcntl
import multiprocessing
import os
import shutil
import subprocess
import sys

import psutil
import pytest

from lib.common import files, machine, processes, provenance
from lib.common.errors import UserError
from lib.common.provenance import ROOT


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes control groups: of `lines` in /proc/self/cgroup, and {file: content} below /sys/fs/cgroup."""

    def write(lines, contents):
        (tmp_path / "proc").write_text(lines)
        for name, content in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)

    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    return write


def test_cores_are_those_of_the_affinity_not_of_the_host(groups, monkeypatch):
    assert machine.cores() == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert machine.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS
    assert machine.cores() == 64


@pytest.mark.parametrize(
    ("lines", "contents", "count"),
    [
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "250000 100000\n"}, 3),
        ("0::/job\n", {"job/cpu.max": "1000 100000\n"}, 1),
        ("0::/elsewhere\n", {"cpu.max": "400000 100000\n"}, 4),  # a container sees its own group as the root
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "200000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 2),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 16),
    ],
)
def test_cores_are_limited_by_control_groups(groups, lines, contents, count):
    groups(lines, contents)
    assert machine.cores() == count


@pytest.mark.parametrize(
    ("lines", "contents"),
    [
        ("0::/job/step\n", {"job/step/memory.max": "max\n", "job/memory.max": "3000000\n",
                            "job/memory.current": "1500000\n", "job/memory.stat": "anon 1\ninactive_file 500000\n"}),
        ("2:memory:/a\n", {"memory/a/memory.limit_in_bytes": "3000000\n", "memory/a/memory.usage_in_bytes": "1500000\n",
                           "memory/a/memory.stat": "total_inactive_file 500000\n",
                           "memory/memory.limit_in_bytes": "9223372036854771712\n"}),
    ],
)  # fmt: skip
def test_memory_is_limited_by_control_groups(groups, lines, contents):
    assert machine.free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    groups(lines, contents)
    assert (machine.free_memory(), machine.total_memory()) == (2_000_000, 3_000_000)


def test_memory_is_known_where_the_system_does_not_count_free_pages(monkeypatch):
    """SC_AVPHYS_PAGES, which macOS lacks."""
    from types import SimpleNamespace

    from lib.evaluation import score

    def sysconf(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", sysconf)
    monkeypatch.setattr(score, "free_memory", lambda: 5e9)
    assert score.affordable([score.memory(SimpleNamespace(samples=44_100 * 100))]) == 3  # 1.6 GB each


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_work_goes_on(tmp_path, monkeypatch, capsys, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.locked(tmp_path / "run"):
        assert capsys.readouterr().out == (
            f"{tmp_path}/run cannot be locked ({os.strerror(code)}); do not run this twice at once.\n"
        )


def test_without_shared_memory_one_process_does_the_work(monkeypatch, capsys):
    def lock(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(multiprocessing.get_context("spawn").__class__, "Lock", lock)
    processes.can_share.cache_clear()
    done = []
    try:
        with processes.workers(2, lambda: done.append("begun")) as pool:
            assert list(pool.map(lambda x: x + 1, [1, 2])) == [2, 3] and done == ["begun"]
        with processes.workers(2) as pool:
            assert list(pool.map(abs, [-1])) == [1]
    finally:
        processes.can_share.cache_clear()
    [line] = capsys.readouterr().out.splitlines()
    assert "Read-only file system" in line and "one process does all the work" in line


def in_folder(folder, *words, **environment):
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


COMMIT = "import lib.common.provenance as p; print(p._commit())"


def test_a_tarball_in_the_repository_of_another_project_does_not_take_its_commit(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], check=True)
    theirs = subprocess.run(
        [*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "ours").mkdir()
    shutil.copytree(ROOT / "lib/common", tmp_path / "ours/lib/common")
    said = in_folder(tmp_path / "ours", "-c", COMMIT)
    assert said.stdout == "unknown, from a tarball\n" and theirs.strip() not in said.stdout, said.stderr


def test_a_tarball_knows_the_commit_that_it_was_made_from(tmp_path):
    """By git archive, as the pages of a project's host make it."""
    attributes = (ROOT / ".gitattributes").read_text()
    assert "lib/common/provenance.py export-subst" in attributes.splitlines()
    source = (ROOT / "lib/common/provenance.py").read_text()
    shutil.copytree(ROOT / "lib/common", tmp_path / "lib/common")
    commit = "0123456789abcdef0123456789abcdef01234567"
    (tmp_path / "lib/common/provenance.py").write_text(source.replace("$Format:%H$", commit))
    assert in_folder(tmp_path, "-c", COMMIT).stdout == "0123456789, from a tarball\n"


def test_a_clone_names_its_own_commit(monkeypatch):
    commit = provenance._commit()
    assert len(commit.rstrip("+")) == 10 and int(commit.rstrip("+"), 16)
    monkeypatch.setenv("PATH", "")  # no git
    assert provenance._commit() == "unknown"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_opened_before_a_file_takes_their_numbers(tmp_path, closed):
    program = (
        "import lib.common, sys; file = open('kept', 'w'); assert file.fileno() > 2; print('said', file=sys.stderr); "
        "print('out'); sys.stdin.read() if not sys.stdin.isatty() else 0; file.write('whole')"
    )
    command = f'{sys.executable} -c "{program}" {closed}'
    done = subprocess.run(  # noqa: S602  a shell closes streams
        command, shell=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "kept").read_text() == "whole", done
    if closed == "2>&-":
        assert done.stdout == "said\nout\n", "a closed standard error loses no word"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but RANK, MASTER_ADDR and MASTER_PORT are not set"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "1"}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "all"}, "must be numbers"), ({"RANK": "3"}, "RANK is 3, which must be below WORLD_SIZE, 1"),
    ],
)  # fmt: skip
def test_half_an_environment_of_a_platform_is_one_sentence(monkeypatch, environment, says):
    from lib.runs.distributed import PLACE, Ranks

    for name in PLACE:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{says}.*; start every rank, best by torchrun, or unset WORLD_SIZE and RANK"):
        Ranks()


def test_ranks_that_never_come_are_one_sentence_after_a_while(monkeypatch):
    from datetime import timedelta

    from lib.runs import distributed

    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "PATIENCE", timedelta(seconds=1))
    with pytest.raises(UserError, match=r"Rank 0 of 2 did not meet the others at 127.0.0.1:0 \("):
        distributed.Ranks()


def test_sockets_get_a_short_path_whatever_tmpdir_is(tmp_path, monkeypatch):
    import tempfile

    from lib import pipeline

    deep = tmp_path / ("x" * 83)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pipeline._socket_folder() as folder:
        assert len(f"{folder}/socket-5") <= 107 and os.access(folder, os.W_OK)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **_: (_ for _ in ()).throw(OSError()))
    with pytest.raises(UserError, match="too long for sockets; set TMPDIR"):
        pipeline._socket_folder()
