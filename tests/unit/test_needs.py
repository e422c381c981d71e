"""What a machine lacks is found before a run has a directory, and only what the scenario needs is looked for."""

from __future__ import annotations

from typing import NoReturn

import pytest
from rich.console import Console

from harness import cli, scenario
from harness.errors import StackError
from harness.experiments import needs, single
from harness.host import cgroup, disks, jars
from harness.kafka import containers
from harness.runner.console import Status

ELSEWHERE = ("kafka.where=localhost:9092", 'pipeline.command=["python", "job.py", "{prefix}"]')


def lacks(why: str):
    """A function that raises StackError with this message."""

    def check(*_: object) -> NoReturn:
        raise StackError(why)

    return check


@pytest.fixture(autouse=True)
def complete(monkeypatch):
    """A machine that has everything; each test takes something away."""
    monkeypatch.setattr(jars, "java", lambda: "java")
    monkeypatch.setattr(jars, "is_whole", lambda *_: True)
    monkeypatch.setattr(containers, "reach", lambda: None)
    monkeypatch.setattr(disks, "why_not", lambda: None)
    monkeypatch.setattr(cgroup, "why_not", lambda: None)


def test_a_complete_machine_lacks_nothing():
    """No scenario of ours is refused on it."""
    for name in scenario.names():
        needs.require(scenario.load(name))


def test_java_users_need_java(monkeypatch):
    """Embedded brokers and our own pipeline do; others need none."""
    monkeypatch.setattr(jars, "java", lacks("Java 17 or newer is missing"))

    needs.require(scenario.load("late", ELSEWHERE))
    for change in (ELSEWHERE[:1], ELSEWHERE[1:]):
        with pytest.raises(StackError, match="Java 17 or newer is missing"):
            needs.require(scenario.load("late", change))


def test_filling_needs_a_writable_cache(monkeypatch, tmp_path):
    """A cache that has every jar need not be."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file" / "cache"))
    needs.require(scenario.load("late"))

    monkeypatch.setattr(jars, "is_whole", lambda *_: False)
    with pytest.raises(StackError, match=r"the spark jars are not in the cache, .*/file: .*HARNESS_CACHE"):
        needs.require(scenario.load("late"))

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    needs.require(scenario.load("late"))


def test_docker_is_needed_by_containers(monkeypatch):
    """By no other brokers."""
    monkeypatch.setattr(containers, "reach", lacks("no Docker daemon answers"))

    needs.require(scenario.load("late"))
    with pytest.raises(StackError, match="no Docker daemon answers"):
        needs.require(scenario.load("late", ["kafka.where=containers"]))


@pytest.mark.parametrize(
    ("module", "kind", "on"),
    [pytest.param(disks, "full", "checkpoint", id="disk"), pytest.param(cgroup, "memory", "pipeline", id="memory")],
)
def test_root_is_needed_by_faults(monkeypatch, module, kind, on):
    """By those of that kind alone."""
    monkeypatch.setattr(module, "why_not", lambda: "it takes root")

    needs.require(scenario.load("late"))
    with pytest.raises(StackError, match=f"a fault of kind {kind} cannot be injected on this machine: it takes root"):
        needs.require(scenario.load(_with_fault(kind)))


def _with_fault(kind: str) -> str:
    return next(name for name in scenario.names() if any(fault.kind == kind for fault in scenario.load(name).fault))


def test_refused_run_leaves_nothing(monkeypatch, tmp_path):
    """No directory, though the run's own folder would have been the first."""
    monkeypatch.setattr(jars, "java", lacks("Java 17 or newer is missing"))

    with pytest.raises(StackError, match="Java 17 or newer is missing"):
        single.run(scenario.load("late"), tmp_path / "reports", Status(Console(quiet=True)))
    assert not (tmp_path / "reports").exists()


def test_a_refused_run_exits_with_3(monkeypatch, tmp_path, capsys):
    """With one line, on the command line."""
    monkeypatch.setattr(jars, "java", lacks("Java 17 or newer is missing"))
    monkeypatch.setattr(cli, "_upon_signals", lambda do: None)
    monkeypatch.setattr("sys.argv", ["harness", "run", "late", "--reports", str(tmp_path / "reports")])

    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (3, "harness: Java 17 or newer is missing\n") == (ended.value.code, capsys.readouterr().err)
    assert not (tmp_path / "reports").exists()
