"""A check that is interrupted at any moment leaves no verdict, or a whole and right one; the next check is right."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.host import environment

RIGHT = Path(__file__).parent.parent / "golden" / "format-2" / "right"
LASTS_S = 2.0
"""About how long a check takes; one on a slow machine is interrupted in its first part."""
ROUNDS = 3


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "SIGTERM", "SIGHUP", "SIGSTOP"])
def test_interrupted_checks_earn_no_verdict(tmp_path, how):
    """At random moments from a seed, one after the other in the same directory."""
    run = tmp_path / "run"
    shutil.copytree(RIGHT, run, ignore=shutil.ignore_patterns("result.json"))
    moments = random.Random(how)
    codes = [interrupted(run, signal.Signals[how], moments.random() * LASTS_S) for _ in range(ROUNDS)]

    # Before it has begun, a signal ends it as any program; then it is unknown.
    assert set(codes) <= {0, 3, -signal.Signals[how]}
    if how == "SIGSTOP":
        assert {0} == set(codes)
    assert 0 == check(run).wait(120)
    assert "pass" == json.loads((run / "result.json").read_text())["verdict"]


def interrupted(run: Path, number: signal.Signals, after_s: float) -> int:
    """The exit code of a check that gets a signal at a moment, and goes on if it was stopped."""
    process = check(run)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
    code = process.wait(120)
    result = run / "result.json"
    # One of an earlier round is right too.
    assert not result.exists() or "pass" == json.loads(result.read_text())["verdict"]
    return code


def check(run: Path) -> subprocess.Popen[bytes]:
    """A check of a run directory that prints to nobody."""
    command = [sys.executable, "-m", "harness", "check", str(run)]
    return subprocess.Popen(command, env=environment.own(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
