"""A start needs no archive of classes: without it it is slower, and that is said."""

from __future__ import annotations

import fcntl
import os
import sys

import pytest

from harness.errors import StackError
from harness.host import class_archive

spawn = class_archive.processes.spawn


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Where the archive would be, in a cache of the test's own."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(class_archive, "_what_it_fits", lambda folder: "here-today")
    monkeypatch.setattr(class_archive.jars, "spark_jars", lambda: tmp_path)
    class_archive._make.cache_clear()
    return tmp_path / "classes" / "here-today.jsa"


@pytest.fixture
def maker(monkeypatch):
    """`maker(program)` stands for what lays out the classes; its argument is the file to write."""

    def replace(program: str) -> None:
        def instead(command, **others):
            return spawn(
                [sys.executable, "-S", "-c", f"import sys; out = sys.argv[1]; {program}", command[-1]], **others
            )

        monkeypatch.setattr(class_archive.processes, "spawn", instead)

    return replace


def test_archive_is_made_once(archive, maker, capsys):
    """A second start finds it."""
    maker("open(out, 'x').write('classes')")
    flags = class_archive.of_pipeline(quick=True)

    assert f"{class_archive.QUICK} {' '.join(class_archive.WARNS_APART)} -XX:SharedArchiveFile={archive}" == flags
    assert "classes" == archive.read_text()
    assert "setup: Java's classes of Spark are laid out, once" in capsys.readouterr().err

    maker("sys.exit(1)")
    assert (
        flags
        == class_archive.of_pipeline(quick=True)
        == f"{class_archive.QUICK} {class_archive.of_pipeline(quick=False)}"
    )
    assert "" == capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "patience_s", "said"),
    [
        ("open(out, 'x'); sys.exit('classes: is there space?')", 60, "(classes: is there space?)"),
        ("import time; open(out, 'x'); time.sleep(60)", 0.5, "(not within 0.5 s)"),
    ],
    ids=["it fails", "it hangs"],
)
def test_failed_archive_leaves_nothing(archive, maker, capsys, monkeypatch, program, patience_s, said):
    """And is not tried again by this process."""
    monkeypatch.setattr(class_archive, "PATIENCE_S", patience_s)
    maker(program)

    assert [class_archive.QUICK] * 2 == [class_archive.of_pipeline(quick=True), class_archive.of_pipeline(quick=True)]
    assert 1 == capsys.readouterr().err.count(said)
    assert [archive.with_suffix(".lock")] == list(archive.parent.iterdir())


def test_no_wait_for_anothers_archive(archive, maker):
    """That start is slower."""
    maker("open(out, 'x')")
    archive.parent.mkdir()
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert class_archive.QUICK == class_archive.of_pipeline(quick=True)
    assert class_archive.QUICK != class_archive.of_pipeline(quick=True)


def _no_java(folder) -> str:
    raise StackError("Java is missing")


def test_missing_java_or_cache_is_named(archive, monkeypatch):
    """A quick start is not what they are wanted for."""
    archive.parent.touch()
    assert class_archive.QUICK == class_archive.of_pipeline(quick=True)

    monkeypatch.setattr(class_archive, "_what_it_fits", _no_java)
    assert class_archive.QUICK == class_archive.of_pipeline(quick=True)
    assert "" == class_archive.of_pipeline(quick=False)


def test_stale_archives_are_removed(archive, maker):
    """A month unused, of an environment that may be gone; or of the same place, before it was made again."""
    maker("open(out, 'x')")
    archive.parent.mkdir()
    old, used, replaced = (archive.with_name(f"{name}.jsa") for name in ("old-1", "used-1", "here-yesterday"))
    for path in (old, used, replaced):
        path.touch()
    os.utime(old, (0, 0))
    class_archive.of_pipeline(quick=True)

    assert {archive, used} == set(archive.parent.glob("*.jsa"))


@pytest.mark.parametrize("change", ["a jar's time", "a jar's size", "one jar more"])
def test_each_environment_has_its_archive(tmp_path, change):
    """Java would pass over the one of before: start slowly, and say so among the pipeline's lines."""
    jar = tmp_path / "spark.jar"
    jar.write_bytes(b"classes")
    before = class_archive._what_it_fits(tmp_path)
    match change:
        case "a jar's time":
            os.utime(jar, (0, 0))
        case "a jar's size":
            status = jar.stat()
            jar.write_bytes(b"more classes")
            os.utime(jar, ns=(status.st_atime_ns, status.st_mtime_ns))
        case _:
            (tmp_path / "other.jar").touch()

    assert before != class_archive._what_it_fits(tmp_path)
