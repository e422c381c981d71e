"""A broker of our own for tests that need Kafka and no run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import kafka
from harness.kafka import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One embedded broker."""
    with kafka.open_cluster("embedded", 1, tmp_path_factory.mktemp("kafka")) as running:
        yield running
