"""Records that Kafka deletes before they are read are a loss, and reported as that, with their number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.job.clickstream.contract import CLICKSTREAM, QUERIES
from harness.judge import timeline
from harness.rundir import history
from harness.rundir.events import Deleted

pytestmark = pytest.mark.e2e

READERS = [name for name, query in QUERIES.items() if CLICKSTREAM in query.reads]
SCENARIO = """
judged = ["state_size", "success"]
[load]
eps = 500
warm_up_s = 5
duration_s = 5
stretch_s = 200
[workload]
time_scale = 60
malformed = 0.01
[[fault]]
kind = "retention"
at = 4_000
"""


def lost(directory: Path) -> dict[str, int]:
    """Where the partition begins after the deletion − how far each query had committed it before, from the log alone."""
    run = history.read(directory)
    [deletion] = run.of(Deleted)
    return {
        query: deletion.before_offset
        - max(one.ends[CLICKSTREAM, 0] for one in found if one.committed_s < deletion.at_s)
        for query, found in timeline.gather(run).batches.items()
        if query in READERS
    }


def said(result: dict[str, Any]) -> dict[str, set[str]]:
    """Why each record is lost, by query."""
    found: dict[str, set[str]] = {}
    for one in result["examples"]:
        found.setdefault(one["query"], set()).add(one["why"].split(". ")[0])
    return found


def test_retention_of_unread_records_is_loss(harness, tmp_path):
    """The pipeline refuses with the number, goes on when it is told to, and every row of what is left is right."""
    (tmp_path / "retention.toml").write_text(SCENARIO)
    run = harness("run", "retention.toml", "--json")

    assert 1 == run.returncode, run.stderr
    result = json.loads(run.stdout)
    numbers = lost(tmp_path / "reports" / "retention" / "latest")
    assert {"record_lost"} == {kind for kind, count in result["anomalies"].items() if count}, result["why"]
    assert set(READERS) == numbers.keys()
    assert {
        query: {f"one of {count} acknowledged records deleted from the topic before {query} had read them"}
        for query, count in numbers.items()
    }.items() >= said(result).items()
    assert sum(min(count, 1000) for count in numbers.values()) == result["anomalies"]["record_lost"]
    assert "fail" == result["targets"]["success"]["verdict"]

    [fault] = result["faults"]
    assert fault["proved"]
    assert fault["healed_s"]
    refused = fault["proof"]["refused"]
    assert 1 == refused["code"]
    for query, count in numbers.items():
        assert any(
            f"{CLICKSTREAM}-0: {count:,} records lost to" in clause and query in clause
            for clause in refused["said"].split(";")
        )
