"""A service is one child process: each test starts a small real one."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from harness.errors import StackError
from harness.host import processes
from harness.host.service import Service
from harness.host.waiting import await_true

# Uses CPU, and prints a line once that is done.
WORKS = "x = sum(range(3 * 10**6)); print('ready', flush=True); "
WAITS = "import time; time.sleep(60)"
# Ends only when it is killed.
IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); " + WAITS
# Starts a child that waits, and waits for it.
FORKS = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {WAITS!r}])"


@pytest.fixture
def service(tmp_path):
    """Makes services out of Python programs, and kills them at the end."""
    made: list[Service] = []

    def make(program: str, **how) -> Service:
        made.append(Service("the server", [sys.executable, "-S", "-c", program], tmp_path / "log", **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


def has_logged(service: Service, line: str = "ready") -> bool:
    """Whether its last line comes in time."""
    return await_true(lambda: service.last_line() == line, 20)


def test_service_runs_between_start_and_kill(service):
    """With a process of its own each time."""
    server = service(WAITS)
    seen = [(server.pid, server.code(), server.is_up())]
    server.start()
    first = server.pid
    server.start()
    assert first == server.pid
    server.kill()
    seen.append((server.pid, server.code(), server.is_up()))
    server.start()

    assert [(None, None, False), (None, -9, False)] == seen
    assert server.pid not in (None, first)


@pytest.mark.parametrize(("program", "orderly", "code"), [(WORKS + WAITS, True, -15), (IGNORES, False, -9)])
def test_stop_reports_whether_a_kill_was_needed(service, program, orderly, code):
    """A process that had to be killed has not been stopped."""
    server = service(program, grace_s=1.0)
    server.start()
    assert has_logged(server)

    assert (orderly, code) == (server.stop(), server.code())


def test_kill_takes_the_children_too(service):
    """None of them goes on without its parent."""
    server = service(FORKS)
    server.start()
    assert await_true(lambda: len(processes.tree_pids(server.last_pid)) == 2, 20)
    child = psutil.Process(processes.tree_pids(server.last_pid)[1])
    server.kill()

    assert await_true(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 20)


def test_frozen_is_not_up(service):
    """With its children, until it is resumed."""
    server = service(FORKS)
    server.start()
    assert await_true(lambda: len(processes.tree_pids(server.last_pid)) == 2, 20)
    server.pause()
    assert await_true(lambda: not server.is_up(), 20)
    server.resume()

    assert await_true(server.is_up, 20)


def test_up_needs_its_work(service):
    """It runs, and does not do it yet."""
    works = [False]
    server = service(WAITS, works=lambda: works[0])
    server.start(wait_s=0)
    seen = server.is_up()
    works[0] = True

    assert (False, True) == (seen, server.is_up())


def test_frozen_service_can_be_stopped(service):
    """It is asked, and goes on in order to hear that."""
    server = service(WORKS + WAITS)
    server.start()
    assert has_logged(server)
    server.pause()

    assert server.stop()


@pytest.mark.parametrize("end", ["by itself", "stop", "kill"])
def test_cpu_is_known_after_the_end(service, end):
    """As much as it had used, and what it uses after another start is added."""
    server = service(WORKS + ("" if end == "by itself" else WAITS))
    used_s = [0.0]
    for _ in range(2):
        server.start(wait_s=0)
        if end == "by itself":
            assert await_true(lambda: server.code() is not None, 20)
        else:
            assert await_true(lambda: processes.tree_cpu_s(server.last_pid) >= 0.02, 20)
            getattr(server, end)()
        assert server.code() is not None
        used_s.append(server.cpu_s())

    assert used_s[1] >= 0.02
    assert used_s[2] >= used_s[1] + 0.02
    assert used_s[2] == server.cpu_s()


def test_unexpected_end_is_reported(service):
    """With the last line of its log; an end that was asked for is none."""
    ended, killed, unborn = service("print('no more')"), service(WAITS), service(WAITS)
    for server in (ended, killed):
        server.start(wait_s=0)
    killed.check()
    killed.kill()
    killed.check()
    unborn.check()
    assert await_true(lambda: ended.code() is not None, 20)

    with pytest.raises(StackError, match=r"^the server ended with 0, by no fault: no more$"):
        ended.check()


def test_failed_start_has_the_reason(service):
    """The line of its log that the caller looks for."""
    server = service(
        "print('no such port'); print('bye'); raise SystemExit(3)",
        works=lambda: False,
        reason=lambda log: log.split("\n")[0],
    )
    with pytest.raises(StackError, match=r"^the server ended with 3 while it started: no such port$"):
        server.start()


def test_slow_start_is_an_error(service):
    """It runs, and does not work in time."""
    with pytest.raises(StackError, match="the server does not work after 0 s"):
        service(WAITS, works=lambda: False).start(wait_s=0.1)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_ended_service_cannot_be_frozen(service, verb):
    """A fault on it would prove nothing."""
    server = service(WAITS)
    for _ in range(2):
        with pytest.raises(StackError, match="the server does not run"):
            getattr(server, verb)()
        server.start()
        server.kill()


def test_command_is_asked_at_each_start(tmp_path):
    """It may depend on what has happened since."""
    lines = iter(["first", "second"])
    server = Service("the server", lambda: [sys.executable, "-S", "-c", f"print({next(lines)!r})"], tmp_path / "log")
    for _ in range(2):
        server.start(wait_s=0)
        assert await_true(lambda: server.code() is not None, 20)

    assert "first\nsecond\n" == server.log.read_text()


def test_missing_program_is_an_os_error(tmp_path):
    """The caller knows where its name comes from."""
    with pytest.raises(FileNotFoundError):
        Service("the server", ["no-such-program"], tmp_path / "log").start()


def test_pipes_lead_to_the_service(service):
    """Its errors alone go to the log; a command that it never reads does not keep it from being closed."""
    server = service("print(input(), flush=True); " + WAITS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    server.start(wait_s=0)
    server.stdin.write(b"hello\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    server.kill()
    server.stdin.write(b"anybody?\n")
    server.close()

    assert b"hello\n" == answer
    assert "it logged nothing" == server.last_line()
