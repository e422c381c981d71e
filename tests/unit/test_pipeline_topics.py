"""The topics of a deployment: what is made, and what is said where it cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.job.clickstream.contract import INPUT, QUERIES, RESULT_BYTES_MAX
from pipeline import topics


def test_every_topic_of_the_contract_is_made():
    """Inputs with their partitions, results with one and with room for the largest record."""
    made = topics.wanted("shop-", partitions=4, replication=3)

    assert {f"shop-{name}" for name in (*INPUT, *(query.topic for query in QUERIES.values()))} == made.keys()
    assert [(4, 3)] * 2 == [
        (made[f"shop-{name}"].num_partitions, made[f"shop-{name}"].replication_factor) for name in INPUT
    ]
    for query in QUERIES.values():
        topic = made[f"shop-{query.topic}"]
        assert (1, str(RESULT_BYTES_MAX)) == (topic.num_partitions, topic.topic_configs["max.message.bytes"])


@pytest.mark.parametrize("flags", [["--partitions", "0"], ["--replication", "1001"], ["--partitions", "two"]])
def test_bad_numbers_exit_2(flags):
    """One line that names the flag."""
    run = subprocess.run([sys.executable, "-m", "pipeline.topics", *flags], capture_output=True, text=True, check=False)

    assert (2, 1) == (run.returncode, len(run.stderr.splitlines()))
    assert flags[0] in run.stderr


def test_missing_broker_exits_1():
    """One line that names the address."""
    command = [sys.executable, "-m", "pipeline.topics", "--bootstrap", "127.0.0.1:1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert 1 == run.returncode
    assert "127.0.0.1:1" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
