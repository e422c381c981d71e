"""Each check of `harness doctor`: what it finds, what it needs, and what to do."""

from __future__ import annotations

import shutil
import socket
from types import SimpleNamespace

import pytest

from harness.errors import StackError
from harness.host import doctor


def test_every_check_has_its_own_name():
    """A table with two lines of one name cannot be read."""
    names = [check.name for check in doctor.checks()]
    assert len(set(names)) == len(doctor.CHECKS)


@pytest.mark.parametrize(("version", "ok"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 14, 1), True)])
def test_python_must_be_3_11(monkeypatch, version, ok):
    """As pyproject.toml has it."""
    monkeypatch.setattr(doctor.sys, "version_info", version)
    assert ok is doctor.python().ok


def test_missing_java_has_its_own_hint(monkeypatch):
    """The hint is the error, which names how to install one."""

    def java() -> str:
        raise StackError("Java 17 or newer is missing: install it")

    monkeypatch.setattr(doctor.jars, "java", java)
    check = doctor.java()

    assert (False, "none", "Java 17 or newer is missing: install it") == (check.ok, check.found, check.hint)


def test_java_is_shown_with_its_path(monkeypatch):
    """Which of several is used is what a person must know."""
    monkeypatch.setattr(doctor.jars, "java", lambda: "/opt/jdk/bin/java")
    monkeypatch.setattr(doctor.jars, "java_version", lambda program: 21)

    assert "21 (/opt/jdk/bin/java)" == doctor.java().found


@pytest.mark.parametrize(("usable", "ok"), [(1.5, False), (2.0, True), (64.0, True)])
def test_cores_are_those_usable(monkeypatch, usable, ok):
    """Of a control group's share, not of the machine."""
    monkeypatch.setattr(doctor.processes, "usable_cores", lambda: usable)
    check = doctor.cores()

    assert (f"{usable:g}", ok) == (check.found, check.ok)


@pytest.mark.parametrize(("gib", "ok"), [(3.9, False), (4.0, True)])
def test_memory_is_what_is_free(monkeypatch, gib, ok):
    """Free now, in GiB."""
    memory = SimpleNamespace(available=int(gib * doctor.GIB), total=64 * doctor.GIB)
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: memory)
    check = doctor.memory()

    assert (f"{gib:.1f} GiB", ok) == (check.found, check.ok)


@pytest.mark.parametrize("check", [doctor.disk_for_cache, doctor.disk_for_runs])
@pytest.mark.parametrize(("gib", "ok"), [(2.9, False), (3.0, True)])
def test_disks_need_room(monkeypatch, tmp_path, check, gib, ok):
    """Of the nearest folder that exists: the cache may have to be made."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "to be made"))
    monkeypatch.setattr(doctor.tempfile, "gettempdir", lambda: str(tmp_path))
    asked = []
    room = SimpleNamespace(free=int(gib * doctor.GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or room)

    assert ok is check().ok
    assert [tmp_path] == asked


@pytest.mark.parametrize(("check", "name"), [(doctor.spark_jars, "spark"), (doctor.broker_jars, "broker")])
def test_wrong_jars_are_counted(monkeypatch, check, name):
    """Two of the set are missing or have another sum."""
    total = len(doctor.jars.jar_set(name).sums)
    monkeypatch.setattr(doctor.jars, "faults", lambda jar_set, folder: ["a.jar", "b.jar"])
    found = check()

    assert (f"{total - 2} right", str(total), False, "harness jars") == (
        found.found,
        found.needed,
        found.ok,
        found.hint,
    )


def test_loopback_is_tried():
    """A socket listens and is reached."""
    assert doctor.ports().ok


def test_a_closed_loopback_is_named(monkeypatch):
    """With the error of the machine."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", refused)
    check = doctor.ports()

    assert not check.ok
    assert "Cannot assign" in check.found


@pytest.mark.parametrize(("left", "ok"), [([], True), ([4711, 4712], False)])
def test_orphans_are_counted(monkeypatch, left, ok):
    """Processes of a dead run."""
    monkeypatch.setattr(doctor.cleanup, "orphans", lambda: left)
    check = doctor.orphans()

    assert (str(len(left)), ok) == (check.found, check.ok)


def test_docker_is_optional(monkeypatch, tmp_path):
    """No daemon is no fault; one that listens answers; a remote one is shown by its address."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert ("none", True) == (doctor.docker().found, doctor.docker().ok)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert "answers" == doctor.docker().found

    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    assert "tcp://elsewhere:2375" == doctor.docker().found
