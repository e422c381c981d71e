"""A quick start needs nothing that may be missing: without the archive it is slower, and that is all."""

from __future__ import annotations

import fcntl
import sys

import pytest

from harness import classes


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Where the archive of an environment in the test's folder would be."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(classes.processes, "spawn", lambda command: pytest.fail("nothing is to be made"))
    monkeypatch.setattr(classes, "_what_it_fits", lambda: "today")
    classes._make.cache_clear()
    return tmp_path / "classes-today.jsa"


def test_an_archive_that_is_there_is_mapped(archive):
    """And not made again."""
    archive.touch()

    assert f"{classes.QUICK} -XX:SharedArchiveFile={archive}" == classes.quick_start()


def test_nobody_waits_for_an_archive_that_another_process_makes(archive):
    """That start is slower."""
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert classes.QUICK == classes.quick_start()


def test_an_environment_that_cannot_be_written_to_is_no_trouble(archive, monkeypatch, tmp_path):
    """Nor is one that has gone."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "gone"))

    assert classes.QUICK == classes.quick_start()
