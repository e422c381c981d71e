"""What a scenario needs of this machine, looked for before its run has a directory.

It looks only for what the scenario uses: brokers elsewhere and a pipeline of another kind need no Java, and a cache that
has every jar need not be writable.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from harness.errors import StackError
from harness.faults import KINDS, FaultKind
from harness.host import folders, jars
from harness.host.jars import JarSet
from harness.scenario import Scenario


def require(scenario: Scenario) -> None:
    """Raise StackError, in a sentence, for the first thing that the scenario needs and this machine lacks."""
    for check in _checks(scenario):
        check()


def _checks(scenario: Scenario) -> Iterator[Callable[[], object]]:
    absent = [jar_set for jar_set in _jar_sets(scenario) if not jars.is_whole(jar_set, jar_set.folder)]
    # Ivy, which fetches jars, is a program in Java too.
    if absent or _starts_java(scenario):
        yield jars.java
        yield partial(_place, folders.why_not_temporary)
        yield partial(_place, folders.why_not_cache)
        yield partial(_place, folders.why_not_open)
    if absent:
        yield partial(_cache, absent)
    if scenario.kafka.where == "containers":
        yield _docker
    if scenario.load.engine == "locust":
        yield locust
    for kind in sorted({fault.kind for fault in scenario.fault}):
        yield partial(_fault, KINDS[kind])


def locust() -> None:
    """Raise StackError where Locust is not installed. It is looked for only: its import would patch this process."""
    if importlib.util.find_spec("locust") is None:
        raise StackError("Locust is not installed: pip install 'streaming-harness[load]'")


def _starts_java(scenario: Scenario) -> bool:
    pipeline = scenario.pipeline
    return scenario.kafka.where == "embedded" or not pipeline.command or pipeline.workers > 0


def _jar_sets(scenario: Scenario) -> list[JarSet]:
    names = ("spark", "broker") if scenario.kafka.where == "embedded" else ("spark",)
    return [jars.jar_set(name) for name in names]


def _place(why_not: Callable[[], str | None]) -> None:
    if why := why_not():
        raise StackError(why)


def _cache(absent: list[JarSet]) -> None:
    folder = absent[0].folder.parent
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not _is_writable(there):
        raise StackError(
            f"the {absent[0].name} jars are not in the cache, and nothing can be written to {there}: "
            "make it writable, or name another folder in HARNESS_CACHE"
        )


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _docker() -> None:
    from harness.kafka import containers  # the Docker client is loaded where it is asked for

    containers.reach()


def _fault(kind: FaultKind) -> None:
    if why := kind.why_not():
        raise StackError(f"a fault of kind {kind.name} cannot be injected on this machine: {why}")
