"""A place that Java or Spark cannot work in is refused in one line, which names the variable; doctor shows it before."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from harness import scenario
from harness.errors import StackError
from harness.experiments import needs
from harness.host import doctor, environment, folders, jars

ODD = (",", ":", "\\", "[", "]", "*", "{", "%", "#", "'", '"', "\n")


@pytest.fixture(autouse=True)
def usable(monkeypatch, tmp_path):
    """TMPDIR and the cache in folders of the test's own, and a machine that has the rest."""
    monkeypatch.setattr(folders.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(jars, "java", lambda: "java")
    monkeypatch.setattr(jars, "is_whole", lambda *_: True)


def refused() -> str:
    """Why a run is refused."""
    with pytest.raises(StackError) as error:
        needs.require(scenario.load("late"))
    assert 3 == error.value.exit_code
    return str(error.value)


@pytest.mark.parametrize("name", ["plain", "with space", "with ä and ß", "with.dot-and_line+sign@home"])
def test_usual_names_are_usable(monkeypatch, tmp_path, name):
    """Letters beyond ASCII and spaces too."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr(folders.tempfile, "tempdir", str(folder))
    monkeypatch.setenv("HARNESS_CACHE", str(folder))

    needs.require(scenario.load("late"))
    assert doctor.temporary_folder().ok
    assert doctor.cache_folder().ok


@pytest.mark.parametrize("sign", ODD)
def test_odd_names_are_refused(monkeypatch, tmp_path, sign):
    """Of each folder, by its variable; doctor shows the same line."""
    folder = tmp_path / f"a{sign}b"
    folder.mkdir()
    monkeypatch.setenv("HARNESS_CACHE", str(folder))
    line = refused()

    assert "name another folder in HARNESS_CACHE" in line
    assert (False, line) == (doctor.cache_folder().ok, doctor.cache_folder().hint)

    monkeypatch.setattr(folders.tempfile, "tempdir", str(folder))
    line = refused()

    assert "name another folder in TMPDIR" in line
    assert (False, line) == (doctor.temporary_folder().ok, doctor.temporary_folder().hint)


def test_links_to_odd_names_are_refused(monkeypatch, tmp_path):
    """Java and Spark see where a link leads."""
    (tmp_path / "a:b").mkdir()
    (tmp_path / "link").symlink_to("a:b")
    monkeypatch.setattr(folders.tempfile, "tempdir", str(tmp_path / "link"))

    assert "a:b has ':' in its name" in refused()


def test_a_noexec_folder_is_refused(monkeypatch):
    """What the kernel answers where code is to be mapped from a file."""

    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(folders.mmap, "mmap", forbidden)

    assert "(noexec): name another folder in TMPDIR" in refused()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="root on Linux mounts")
def test_a_real_noexec_mount_is_refused(monkeypatch, tmp_path):
    """As /tmp is on hardened machines."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,size=1G", "t", str(tmp_path)], check=False).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        monkeypatch.setattr(folders.tempfile, "tempdir", str(tmp_path))
        assert "(noexec)" in refused()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_folder_is_refused(monkeypatch):
    """Before the run has a directory."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=folders.SPACE_MIN_BYTES - 2**20))

    assert "255 MiB free, and 256 are needed: free some, or name another folder in TMPDIR" in refused()


@pytest.mark.parametrize(("most", "ok"), [(256, False), (1024, True), (folders.resource.RLIM_INFINITY, True)])
def test_open_files_are_counted(monkeypatch, most, ok):
    """The hard limit: up to it Java helps itself."""
    monkeypatch.setattr(folders.resource, "getrlimit", lambda _: (256, most))

    assert ok is doctor.open_files().ok
    if not ok:
        assert "a process may open 256 files, and 1024 are needed: ulimit -n 1024" == refused()


def test_doctor_names_withheld_variables(monkeypatch):
    """They are no fault: they reach nothing."""
    for name in environment.STARTERS:
        monkeypatch.delenv(name, raising=False)
    assert ("none", True) == (doctor.variables().found, doctor.variables().ok)
    monkeypatch.setenv("SPARK_CONF_DIR", "/etc/spark")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+UseZGC")

    assert ("SPARK_CONF_DIR, JAVA_TOOL_OPTIONS", True) == (doctor.variables().found, doctor.variables().ok)


def test_doctor_survives_unreadable_folders(monkeypatch):
    """One line of its table, and no trace."""

    def cache_folder() -> doctor.Check:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/locked")

    monkeypatch.setattr(doctor, "CHECKS", (cache_folder,))

    assert [("cache folder", "/locked: Permission denied", False)] == [
        (check.name, check.found, check.ok) for check in doctor.checks()
    ]


@pytest.mark.parametrize("args", [["list"], ["show", "late"], ["doctor"], ["run", "nö such"], ["--help"]])
def test_ascii_terminals_show_everything(tmp_path, args):
    """With a module of the standard library's name in the working folder."""
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "pipeline").mkdir()
    env = {**environment.own(), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    env.pop("PYTHONSAFEPATH")
    done = subprocess.run(
        [sys.executable, "-m", "harness", *args], cwd=tmp_path, env=env, capture_output=True, check=False
    )

    assert b"Traceback" not in done.stderr
    assert b"wrong one" not in done.stderr
    assert done.stdout or done.stderr.startswith(b"harness: ")
