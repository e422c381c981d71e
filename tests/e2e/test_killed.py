"""A harness that is killed leaves nothing running, and nothing of its own on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from harness.host import ownership
from harness.kafka.cluster import await_true

pytestmark = pytest.mark.e2e

ENDS_S = 30.0
SHORT = ("--eps", "100", "--duration", "120", "--set", "pipeline.quick_start=true")


def test_killed_harness_leaves_nothing(tmp_path):
    """SIGKILL in the middle of the load, with Kafka, the pipeline and its Java at work."""
    command = [sys.executable, "-m", "harness", "run", "late", *SHORT]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        try:
            assert any(line.startswith("warm up") or line.startswith("measure") for line in process.stderr)
            started = psutil.Process(process.pid).children(recursive=True)
            mark = next(owner.mark for member in started if (owner := ownership.of(member)))
            java = [member for member in started if member.name() == "java"]
        finally:
            os.killpg(process.pid, signal.SIGKILL)

    assert len(java) >= 2
    assert await_true(lambda: not any(is_alive(member) for member in started), ENDS_S)
    assert await_true(lambda: not list(Path(tempfile.gettempdir()).glob(f"harness-*-{mark}-*")), ENDS_S)


def is_alive(process: psutil.Process) -> bool:
    """Neither gone nor a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
