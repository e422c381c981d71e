"""The load run on real Kafka and real Spark: one that passes, one that must fail, one interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from harness.host import processes

pytestmark = pytest.mark.e2e

QUICK = "pipeline.quick_start=true"
RARELY = 'pipeline.flags=["--trigger","2 seconds"]'
SHORT = [
    *("--eps", "1200", "--warm-up", "20", "--duration", "60"),
    *("--set", RARELY, "--set", "workload.time_scale=120"),
]
"""Few batches, so that a machine half as fast as usual has room too: how fast the pipeline is, is not what these tests ask.
Long enough for the slope of a lag: in 20 s it is made of seven commits a query, and one slow batch is a trend.
Sessions close every half an hour of event time, which comes to 15 s."""


@pytest.mark.alone
def test_right_run_passes_and_checks_equally(harness, tmp_path):
    """Every row compared, all targets, one JSON object on standard output, and the same again offline."""
    run = harness("run", "load", *SHORT, "--json")
    assert 0 == run.returncode, run.stderr
    result = json.loads(run.stdout)
    assert "pass" == result["verdict"], result["why"]
    assert 0 == sum(result["anomalies"].values())
    counts = result["counts"]
    # A few of the awkward events are late: how many, depends on the batches.
    assert counts["acknowledged"] == counts["read"]
    assert counts["read"] == counts["counted"] + counts["dropped_late"] + counts["dead_letter"]
    assert 102_002 == counts["acknowledged"]
    assert counts["rows_expected"] == counts["rows_seen"] > 0

    latest = tmp_path / "reports" / "load" / "latest"
    assert (latest / "report.html").stat().st_size < 1_000_000
    again = harness("check", str(latest), "--json")
    assert 0 == again.returncode, again.stderr
    assert result == json.loads(again.stdout)


def test_rare_double_count_fails_by_name(harness, broken):
    """The verdict is fail, the kind is wrong value, and the rows are those of page_views."""
    queries = ["page_views", "sessions"]
    command = json.dumps(broken("counted_twice", "--queries", ",".join(queries)))
    only = (f"pipeline.command={command}", f"pipeline.queries={json.dumps(queries)}", 'judged=["success"]', QUICK)
    offered = ("--eps", "2000", "--warm-up", "10", "--duration", "20", "--set", "workload.time_scale=120")
    run = harness("run", "load", *offered, *(part for value in only for part in ("--set", value)), "--json")

    assert 1 == run.returncode, run.stderr
    result = json.loads(run.stdout)
    assert "fail" == result["verdict"]
    assert {"wrong_value"} == {kind for kind, number in result["anomalies"].items() if number}
    assert {"page_views"} == {anomaly["query"] for anomaly in result["examples"]}
    assert all("wrong in view_count" in anomaly["why"] for anomaly in result["examples"])


@pytest.mark.alone
def test_interrupted_run_is_unknown_in_seconds(harness, tmp_path):
    """Ctrl-C in the middle of the load, pressed again by an impatient hand: nothing left running, and a directory that says so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "run", "load", *SHORT], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("warm up"):
            break
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    before = time.monotonic()
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)  # as fast as a hand
    process.stderr.read()
    process.stderr.close()

    assert 3 == process.wait(30)
    assert time.monotonic() - before < 5
    assert [] == [child for child in started if not processes._is_dead(child)]
    [directory] = (tmp_path / "reports" / "load").glob("2*")
    assert "unknown" == json.loads((directory / "result.json").read_text())["verdict"]
    assert 3 == harness("check", str(directory)).returncode


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        pytest.param(["--eps", "0"], 2, "load.eps = 0", id="a rate of 0"),
        pytest.param(["--set", "load.epps=1"], 2, "did you mean eps?", id="an unknown field"),
        pytest.param(["--no-such-flag"], 2, "No such option", id="an unknown flag"),
        pytest.param(
            ["--reports", "/dev/null/here"], 2, "/dev/null/here: no folder can be made", id="no place for reports"
        ),
    ],
)
def test_bad_usage_exits_2(harness, tmp_path, args, code, said):
    """Nothing is started, nothing is written."""
    run = harness("run", "load", *args)

    assert code == run.returncode
    assert said in run.stderr
    assert 1 == len(run.stderr.strip().splitlines())
    assert not (tmp_path / "reports").exists()


def test_missing_broker_exits_3(harness, tmp_path):
    """The line names the broker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    run = harness("run", "load", "--kafka", address)

    assert 3 == run.returncode
    [line] = [line for line in run.stderr.splitlines() if line.startswith("harness: ")]
    assert address in line
    assert os.listdir(tmp_path / "reports" / "load")
