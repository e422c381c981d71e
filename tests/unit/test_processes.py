"""Processes that bear their owner's mark, and what a sweep does with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace

import psutil
import pytest

from harness.host import cleanup, ownership, processes
from harness.host.ownership import MARK, Owner
from harness.kafka.cluster import await_true

WAIT = "import signal, sys; sys.stdout.write('.'); sys.stdout.flush(); signal.pause()"
AMONG = 7
"""No processes are numbered together under this number: no run beside a test looks after what it plants, nor it after theirs."""
DEAD = Owner(2**22 - 7, 1, AMONG)
ELSEWHERE = replace(DEAD, among=AMONG + 1)


def waiting(mark=None, program=WAIT):
    """A child that waits for a signal; with `mark`, one that bears it."""
    env = {key: value for key, value in os.environ.items() if key != MARK} | ({MARK: mark} if mark else {})
    child = subprocess.Popen([sys.executable, "-S", "-c", program], env=env, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert b"." == child.stdout.read(1)
    return child


@pytest.fixture
def child():
    """`waiting`, and an end for whatever it started."""
    with contextlib.ExitStack() as stack:

        def make(*args, **kwargs):
            process = waiting(*args, **kwargs)
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield make


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Scratch folders of a test go to the test's own folder, and its processes are among their own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ownership, "_among", lambda: AMONG)


@pytest.mark.parametrize(
    ("mark", "owner"),
    [
        pytest.param("12-345-6", Owner(12, 345, 6), id="ours"),
        pytest.param("", None, id="empty"),
        pytest.param("12-345", None, id="among whom is not said"),
        pytest.param("12-3.5-6", None, id="not whole"),
        pytest.param("x12-345-6", None, id="something else"),
    ],
)
def test_a_mark_names_its_owner(mark, owner):
    """What is not exactly a mark of ours names nobody."""
    assert owner == Owner.parse(mark)


def test_a_mark_reads_back():
    """This process, by its own mark, is alive."""
    me = Owner.me()

    assert me == Owner.parse(me.mark)
    assert not me.is_dead()


def test_reused_pid_is_another_owner():
    """Same id, another birth: the owner is dead."""
    assert replace(Owner.me(), born=Owner.me().born + 100).is_dead()


def test_a_zombie_owns_nothing(child):
    """An owner that has ended is dead, even before anyone has asked for its exit code."""
    process = child()
    owner = replace(Owner.me(), pid=process.pid, born=ownership._born(process.pid))
    assert not owner.is_dead()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert owner.is_dead()


@pytest.mark.parametrize(
    ("answer", "dead"), [(PermissionError, False), (ProcessLookupError, True)], ids=["another user's", "gone"]
)
def test_unreadable_owner_counts_as_alive(monkeypatch, answer, dead):
    """Where /proc hides the processes of other users: theirs must not be taken for left."""

    def kill(pid: int, number: int) -> None:
        raise answer

    monkeypatch.setattr(ownership, "_born", lambda pid: None)
    monkeypatch.setattr(ownership.os, "kill", kill)

    assert dead is Owner(4_000_000, 1, ownership._among()).is_dead()


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        pytest.param("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, [1.5], id="above it"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000"}, [0.5], id="a container"),
        pytest.param("0::/elsewhere\n", {"cpu.max": "max 100000"}, [], id="no limit"),
        pytest.param(
            "3:cpu,cpuacct:/x\n5:memory:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "200000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            [2.0],
            id="the first version",
        ),
        pytest.param(
            "3:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            [],
            id="none in the first",
        ),
    ],
)
def test_cgroup_limits_usable_cores(tmp_path, groups, files, cores):
    """A pipeline that uses all it may use is at 100 %, whatever the machine has."""
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)

    assert cores == list(processes._quotas(tmp_path / "groups", tmp_path / "root"))


def test_sweep_ends_only_orphans(child):
    """Of four that look alike, only the one whose owner is dead; among other processes than ours that cannot be said."""
    orphan, owned, stranger, elsewhere = child(DEAD.mark), child(Owner.me().mark), child(), child(ELSEWHERE.mark)

    swept = cleanup.sweep()

    assert -signal.SIGKILL == orphan.poll()
    assert (None, None, None) == (owned.poll(), stranger.poll(), elsewhere.poll())
    assert {orphan.pid} == ended(swept) & {orphan.pid, owned.pid, stranger.pid, elsewhere.pid}


def test_a_mark_is_inherited(child):
    """A grandchild is found by the mark that its parent was given."""
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {WAIT!r}])"
    orphan = child(DEAD.mark, program)
    family = {orphan.pid, *(one.pid for one in psutil.Process(orphan.pid).children())}

    assert family <= ended(cleanup.sweep())
    assert 2 == len(family)


def test_sweep_removes_dead_owners_files(tmp_path):
    """Scratch folders of the dead go; those of the living and of others stay."""
    left = tmp_path / f"harness-run-{DEAD.mark}-abc"
    others = [tmp_path / "harness-notes", tmp_path / f"harness-run-{ELSEWHERE.mark}-abc"]
    for folder in (left, *others):
        folder.mkdir()

    with cleanup.scratch("run") as mine:
        assert (left,) == cleanup.sweep().folders
        assert mine.is_dir()
    assert all(other.is_dir() for other in others)
    assert not mine.exists()


def test_spawned_process_is_marked_and_logged(tmp_path):
    """The log is appended to; the environment is ours and what was given."""
    log = tmp_path / "log"
    log.write_text("before\n")
    program = f"import os; print(os.environ['{MARK}'], os.environ['MORE'], os.getsid(0) == os.getpid())"

    assert 0 == processes.spawn([sys.executable, "-S", "-c", program], log=log, env={"MORE": "more"}).wait(10)

    assert f"before\n{Owner.me().mark} more True\n" == log.read_text()


def test_willing_process_is_not_killed():
    """`stop` says that asking was enough."""
    process = spawned(WAIT)

    assert processes.stop(process, grace_s=5)
    assert -signal.SIGTERM == process.returncode


def test_deaf_process_is_killed():
    """After the grace, SIGKILL."""
    process = spawned("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAIT)

    assert not processes.stop(process, grace_s=0.05)
    assert -signal.SIGKILL == process.returncode


def test_the_whole_tree_goes():
    """A grandchild in a session of its own does not stay behind."""
    inner = f"subprocess.Popen([sys.executable, '-S', '-c', {WAIT!r}], start_new_session=True).wait()"
    process = spawned("import subprocess, sys; " + inner)
    family = psutil.Process(process.pid).children(recursive=True)

    processes.kill_tree(process)

    assert 1 == len(family)
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.STATUS_ZOMBIE == family[0].status()


def test_recycled_pid_is_not_ours(child):
    """A process that has ended and was waited for may share its number with a stranger, who leads a group of his own."""
    program = f"import os; os.setsid(); {WAIT}"
    stranger, ours = child(program=program), spawned(WAIT)
    processes.kill_tree(ours)
    ours.pid = stranger.pid

    processes.kill_tree(ours)
    processes.stop(ours)

    assert None is stranger.poll()


def test_session_leftovers_are_ended():
    """As a worker that outlives its driver."""
    inner = f"subprocess.Popen([sys.executable, '-S', '-c', {WAIT!r}])"
    process = processes.spawn([sys.executable, "-S", "-c", f"import subprocess, sys; {inner}"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"." == process.stdout.read(1)
    process.wait()
    [left] = processes._family(process)

    processes.kill_tree(process)
    process.stdout.close()

    assert processes._is_dead(left)


def test_reaped_process_has_ended():
    """As the sampler does, which asks every broker whether it runs."""
    process = spawned(WAIT)
    process.kill()
    os.waitpid(process.pid, 0)

    assert processes.has_ended(process)
    processes.stop(process)


def test_unmarked_process_ends_with_group():
    """A daemon of a pipeline that clears its environment, when the pipeline ends as it was asked to."""
    inner = f"subprocess.Popen([sys.executable, '-S', '-c', {WAIT!r}], env={{}})"
    program = f"import signal, subprocess, sys; {inner}; signal.pause()"
    process = processes.spawn([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"." == process.stdout.read(1)
    [left] = psutil.Process(process.pid).children()

    assert processes.stop(process)
    process.stdout.close()
    assert processes._is_dead(left)


def test_new_processes_end_at_exit():
    """And what was there before is let alone."""
    before = spawned(WAIT)
    with cleanup.none_left():
        new = spawned(WAIT)

    assert (None, -signal.SIGKILL) == (before.poll(), new.wait(10))
    processes.kill_tree(before)


def test_gone_tree_costs_nothing():
    """A process that vanishes while it is measured is no error."""
    process = spawned(WAIT)
    assert processes.tree_rss_bytes(process.pid) > 0
    processes.kill_tree(process)

    assert (0.0, 0) == (processes.tree_cpu_s(process.pid), processes.tree_rss_bytes(process.pid))


def test_ended_children_cpu_counts():
    """What a child burnt is not forgotten when it is gone."""
    burn = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {burn!r}]); " + WAIT
    process = spawned(program)

    burnt = processes.tree_cpu_s(process.pid)
    processes.kill_tree(process)

    assert burnt >= 0.15


def ended(swept):
    """The ids of the processes that a sweep ended; others may have left some too."""
    return {int(line.split()[0]) for line in swept.processes}


def spawned(program):
    """A process of ours that has told that it runs."""
    process = processes.spawn([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"." == process.stdout.read(1)
    process.stdout.close()
    return process


def test_freeze_covers_escaped_children(tmp_path):
    """A wrapper may give its worker a session of its own; frozen is only who is with all that he started."""
    worker = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAIT!r}], start_new_session=True)"
    parent = processes.spawn([sys.executable, "-c", worker], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    try:
        assert b"." == parent.stdout.read(1)
        [child] = psutil.Process(parent.pid).children()
        assert os.getpgid(child.pid) != parent.pid

        os.kill(parent.pid, signal.SIGSTOP)
        await_true(lambda: psutil.Process(parent.pid).status() == psutil.STATUS_STOPPED, 10)
        assert not processes.is_frozen(parent.pid)
        processes.signal_tree(parent.pid, signal.SIGSTOP)
        assert await_true(lambda: processes.is_frozen(parent.pid), 10)
        assert psutil.STATUS_STOPPED == child.status()
        processes.signal_tree(parent.pid, signal.SIGCONT)
        assert await_true(lambda: child.status() != psutil.STATUS_STOPPED, 10)
        assert not processes.is_frozen(parent.pid)
    finally:
        processes.kill_tree(parent)
        parent.stdout.close()
