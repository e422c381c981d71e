"""A killed owner leaves nothing: its watchdog ends what it started, and removes its folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.host import cleanup, environment
from harness.kafka.cluster import await_true

OWNS = """
import subprocess, sys, threading
from harness.host import cleanup, processes

wait = "import signal, subprocess, sys; print('.', flush=True); signal.pause()"
nested = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {wait!r}], start_new_session=True)"
started = []
thread = threading.Thread(target=lambda: started.append(processes.spawn([sys.executable, "-S", "-c", nested], stdout=subprocess.PIPE)))
thread.start()
thread.join()
started.append(processes.spawn([sys.executable, "-S", "-c", wait], stdout=subprocess.PIPE))
for process in started:
    process.stdout.readline()
processes.signal_tree(started[1].pid, 19)
with cleanup.scratch("run") as folder:
    print(folder, *(pid for process in started for pid in processes.tree_pids(process.pid)), flush=True)
    sys.stdin.read()
for process in started:
    processes.kill_tree(process)
"""


@pytest.fixture
def owner(tmp_path):
    """A process that owns three others: one of a thread that has ended, its child in another session, a frozen one."""
    env = {**environment.own(), "TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", OWNS], env=env, start_new_session=True, **pipes) as process:
        folder, *pids = process.stdout.readline().split()
        yield process, Path(folder), [psutil.Process(int(pid)) for pid in pids]
        process.kill()


def test_a_thread_that_ends_kills_nothing(owner):
    """As it would with PR_SET_PDEATHSIG, which is about the thread that forked."""
    _, folder, family = owner

    assert 3 == len([process for process in family if process.is_running()])
    assert folder.is_dir()


def test_a_killed_owner_leaves_nothing(owner):
    """SIGKILL of its whole group: children, grandchildren and frozen ones end, and its folder is gone."""
    process, folder, family = owner
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    assert await_true(lambda: not any(alive(member) for member in family), 30)
    assert await_true(lambda: not folder.exists(), 30)


def test_an_orderly_end_dismisses_the_watchdog(owner):
    """It has ended before its owner has."""
    process, folder, _ = owner
    [watchdog] = [
        child for child in psutil.Process(process.pid).children() if "harness.host.watchdog" in child.cmdline()
    ]
    process.stdin.close()

    assert 0 == process.wait(30)
    assert not alive(watchdog)
    assert not folder.exists()


def test_watchdog_spares_other_owners(owner, tmp_path):
    """What this test's own process owns is let alone."""
    process, _, family = owner
    with cleanup.scratch("run") as mine:
        process.kill()
        process.wait()
        assert await_true(lambda: not any(alive(member) for member in family), 30)
        assert mine.is_dir()


def alive(process: psutil.Process) -> bool:
    """Neither gone nor a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
