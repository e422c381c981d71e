"""How the pipeline's process begins and ends, without Spark."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from py4j.protocol import Py4JNetworkError

from pipeline import checkpoint, claim, job, settings
from pipeline.checkpoint import CheckpointError
from pipeline.settings import Settings

ENDS = """
import sys
from pipeline import job
job._run = lambda settings, stop: None
sys.exit(job.main(sys.argv[1:]))
"""
INTERRUPTED = """
import os, signal, sys
from types import SimpleNamespace
from pipeline import job

def raises(number, frame):
    raise KeyboardInterrupt

def session(settings):
    signal.signal(signal.SIGINT, raises)
    os.kill(os.getpid(), signal.SIGINT)
    return SimpleNamespace(stop=lambda: None)

job.session = session
job.queries.prepare = lambda spark, settings: []
sys.exit(job.main(sys.argv[1:]))
"""


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """What a pipeline needs to be told."""
    return ["--bootstrap", "b:1", "--checkpoint", str(tmp_path / "checkpoint"), "--output", str(tmp_path)]


@pytest.fixture
def asked(arguments) -> Settings:
    """The same, read, of one that stands by."""
    return settings.parse([*arguments, "--standby"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full is Linux's")
def test_closed_stdout_is_one_line(arguments):
    """A full disk under it, or a reader that is gone: no stack."""
    command = [sys.executable, "-c", ENDS, *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:
        left = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, text=True, check=False)

    assert (1, "pipeline: No space left on device: standard output, or a temporary file\n") == (
        done.returncode,
        done.stderr,
    )
    assert (1, "pipeline: its standard output is closed\n") == (left.returncode, left.stderr)


def test_ctrl_c_during_start_stops(arguments):
    """PySpark's own handler would raise in the middle of it."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, *arguments], capture_output=True, text=True, check=False)

    assert (0, '{"event": "stopped"}\n', "") == (done.returncode, done.stdout, done.stderr)


def test_standby_without_java_is_gone(asked, tmp_path, monkeypatch):
    """It says so when it happens, and not when it is to take over."""
    monkeypatch.setattr(job, "_started_java", lambda: SimpleNamespace(poll=lambda: -9))
    with (
        claim.held(tmp_path / "checkpoint", lambda: True),
        pytest.raises(Py4JNetworkError),
        job._claimed(asked, []),
    ):
        pass


def test_stop_during_start_runs_nothing(asked, monkeypatch):
    """Nor does it ask a broker, or write a checkpoint."""
    stop: list[int] = []
    monkeypatch.setattr(job, "session", lambda settings: stop.append(15) or SimpleNamespace(stop=lambda: None))
    monkeypatch.setattr(job.queries, "prepare", lambda spark, settings: [])
    monkeypatch.setattr(job, "_listen", lambda stop: None)
    job._run(settings.parse(["--bootstrap", "b:1", "--checkpoint", asked.checkpoint, "--output", asked.output]), stop)

    assert not os.path.exists(asked.checkpoint)


def test_standby_with_other_settings_refused(asked, arguments):
    """And not when it is to take over."""
    checkpoint.sign(settings.parse([*arguments, "--partitions", "7"]), {})
    begins = checkpoint.where(asked) / "sessions" / "sources" / "0" / "0"
    begins.parent.mkdir(parents=True)
    begins.touch()

    with pytest.raises(CheckpointError, match="partitions: the checkpoint has 7, asked for 1"):
        job._run(asked, [])
