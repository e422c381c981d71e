"""A broker of our own for tests that need Kafka and no run; the command line, and pipelines that are broken on purpose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import kafka
from harness.kafka import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One embedded broker."""
    with kafka.open_cluster("embedded", 1, tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def harness(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`harness(*args)` runs the command line to its end, in the test's own folder."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=420)

    return run


@pytest.fixture
def broken() -> Callable[..., list[str]]:
    """`broken(defects, *flags)` is the command of our pipeline with defects, joined by commas, planted in it."""

    def command(defects: str, *flags: str) -> list[str]:
        where = [
            "--bootstrap",
            "{bootstrap}",
            "--checkpoint",
            "{checkpoint}",
            "--output",
            "{output}",
            "--jars",
            "{jars}",
            "--topic-prefix",
            "{prefix}",
        ]
        return [sys.executable, str(Path(__file__).with_name("broken.py")), defects, *where, *flags]

    return command
