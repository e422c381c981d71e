"""Two tests at a time, one a core: a run waits more than it computes. What is judged on its speed runs alone.

The other tests' Spark starts quickly (`harness/classes.py`), since none of them lives long enough for what Java's
second compiler makes to pay. No test fails for the time it took: Hypothesis does not look at the clock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import hypothesis
import pytest

from harness.host import class_archive, jars

hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

STARTS_SPARK = ("e2e", "drill", "spark")
GIVEN = os.environ.get("SPARK_SUBMIT_OPTS", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that run alone come first, when there is the least to wait for."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Each test shares the machine with the other workers' tests; one marked `alone` has it to itself.

    The cache of the jars keeps the locks: two clones that are tested at once share the machine too.
    """
    alone = item.get_closest_marker("alone") is not None
    folder = jars.cache() / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        if "PYTEST_XDIST_WORKER" in os.environ:
            # Through the gate one by one: who waits for the machine to be free holds up those who come after.
            with _locked(folder / "gate", fcntl.LOCK_EX):
                held.enter_context(_locked(folder / "machine", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        if any(item.get_closest_marker(marker) for marker in STARTS_SPARK):
            os.environ["SPARK_SUBMIT_OPTS"] = GIVEN if alone else f"{GIVEN} {class_archive.of_pipeline(quick=True)}"
        return (yield)


@contextmanager
def _locked(file: Path, kind: int) -> Iterator[None]:
    """The lock goes with the process that holds it, however that ends."""
    with file.open("w") as lock:
        fcntl.flock(lock, kind)
        yield
