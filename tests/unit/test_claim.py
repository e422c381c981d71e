"""One pipeline at a time works on a checkpoint."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import claim
from pipeline.checkpoint import CheckpointError

HOLDS = """
import pathlib, sys, time
from pipeline import claim
with claim.held(pathlib.Path(sys.argv[1]), lambda: True) as held:
    print(held, flush=True)
    time.sleep(600)
"""


def at_once() -> bool:
    """Do not wait."""
    return True


def test_lease_waits_for_the_first_owner(tmp_path):
    """The folder is made for the first."""
    folder = tmp_path / "new" / "checkpoint"
    with claim.held(folder, at_once) as first, claim.held(folder, at_once) as second:
        assert (True, False) == (first, second)
    with claim.held(folder, at_once) as third:
        assert third


def test_what_is_killed_holds_nothing(tmp_path):
    """And who waits has it then."""
    args = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert "True\n" == process.stdout.readline()
        with claim.held(tmp_path, at_once) as held:
            assert not held
        threading.Timer(0.1, process.kill).start()
        with claim.held(tmp_path, lambda: False) as held:
            assert held


def test_waiter_leases_the_replaced_folder(tmp_path):
    """A checkpoint that was moved away is nobody's any more."""
    folder = tmp_path / "checkpoint"

    def replace() -> bool:
        folder.rename(tmp_path / "away")
        folder.mkdir()
        return False

    with claim.held(folder, at_once) as first, claim.held(folder, replace) as second:
        assert first
        assert second


@pytest.mark.parametrize("what", ["nothing", "something", "it was there"])
def test_unused_folder_is_removed(tmp_path, what):
    """What holds something, or was there before, stays."""
    folder = tmp_path / "checkpoint"
    if what == "it was there":
        folder.mkdir()
    with claim.held(folder, at_once):
        if what == "something":
            (folder / "settings.json").touch()

    assert folder.exists() is (what != "nothing")


def test_checkpoint_file_is_refused(tmp_path):
    """In one line, which names it."""
    (tmp_path / "checkpoint").write_text("")
    said = r"checkpoint .*/checkpoint cannot be opened: File exists"
    with pytest.raises(CheckpointError, match=said), claim.held(tmp_path / "checkpoint", at_once):
        pass


def test_takeover_waits_for_previous_java(tmp_path):
    """It outlives its Python by a moment; what is not noted, or noted badly, is not waited for."""
    with subprocess.Popen(["sleep", "600"]) as java:
        claim.note_java(tmp_path, java.pid)
        threading.Timer(0.1, java.kill).start()
        claim.outlive_java(tmp_path, 60)
        assert java.poll() is not None
    claim.outlive_java(tmp_path, 60)
    (tmp_path / "java.pid").write_text("")
    claim.outlive_java(tmp_path, 60)
    claim.outlive_java(tmp_path / "none", 60)


def test_takeover_wait_is_bounded(tmp_path):
    """The number may be another process's by now."""
    with subprocess.Popen(["sleep", "600"]) as another:
        claim.note_java(tmp_path, another.pid)
        claim.outlive_java(tmp_path, 0.05)
        assert another.poll() is None
        another.kill()
