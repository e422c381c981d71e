"""A job's own process: ready by its checkpoints, reported by Spark's event log, started with its placeholders filled in."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from harness.engines import own
from harness.engines.own import OwnSystem
from harness.engines.spark import event_log
from harness.rundir import history
from harness.rundir.events import Process
from harness.rundir.history import recording


@pytest.fixture
def system(tmp_path: Path):
    """A process that sleeps, with the queries a and b."""
    (tmp_path / "tmp").mkdir()
    folders = {name: tmp_path / "checkpoint" / name for name in ("a", "b")}
    with recording(tmp_path) as recorder:
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        made = OwnSystem(sleeper, tmp_path / "log", tmp_path / "tmp", recorder, folders)
        yield made
        made.close()


def begin(tmp_path: Path, query: str, name: str, at_s: float) -> None:
    """A query writes a file of its checkpoint at an epoch second."""
    path = tmp_path / "checkpoint" / query / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    os.utime(path, (at_s, at_s))


def test_it_is_ready_once_every_query_has_begun(tmp_path, system):
    """And the history says so, once."""
    system.start()
    begin(tmp_path, "a", "metadata", time.time() + 1)
    system.look()
    assert not system.has_started()
    begin(tmp_path, "b", "metadata", time.time() + 1)
    system.look()
    system.look()
    assert system.is_up()
    events = history.events.read(tmp_path, (tmp_path / "history.jsonl").read_text().splitlines())
    assert ["start", "ready"] == [event.event for event in events if isinstance(event, Process)]


def test_after_a_restart_older_files_count_for_nothing(tmp_path, system):
    """Each query must have planned or committed a batch since."""
    for query in ("a", "b"):
        begin(tmp_path, query, "metadata", time.time() - 60)
        begin(tmp_path, query, "offsets/3", time.time() - 60)
    system.start()
    system.kill()
    system.start()
    system.look()
    assert not system.has_started()
    begin(tmp_path, "a", "commits/3", time.time() + 1)
    begin(tmp_path, "b", "offsets/4", time.time() + 1)
    system.look()
    assert system.has_started()


def test_placeholders_are_filled_in(tmp_path):
    """In the command and in the environment; it runs in the suite's folder."""
    found = own.command(
        ["{python}", "job.py", "{rates}"], {"A": "{output}/x"}, tmp_path, {"rates": "/r.csv", "output": "/out"}
    )
    assert ["env", f"--chdir={tmp_path}", "A=/out/x", sys.executable, "job.py", "/r.csv"] == found


def test_the_event_log_is_added_to_the_settings(tmp_path, monkeypatch):
    """To those that the environment has already."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "spark-defaults.conf").write_text("spark.sql.shuffle.partitions 3\n")
    monkeypatch.setenv("SPARK_CONF_DIR", str(given))
    own.spark_conf(tmp_path / "conf", tmp_path / "events", [Path("/a.jar"), Path("/b.jar")])
    lines = (tmp_path / "conf" / "spark-defaults.conf").read_text().splitlines()
    assert "spark.sql.shuffle.partitions 3" in lines
    assert f"spark.eventLog.dir file://{tmp_path / 'events'}" in lines
    assert "spark.jars /a.jar,/b.jar" in lines


def test_progress_is_read_from_the_event_log(tmp_path):
    """As an object or as text, by the id that the checkpoint has too; a line that a kill has cut is passed over."""
    event = "org.apache.spark.sql.streaming.StreamingQueryListener$QueryProgressEvent"
    report = {"id": "q1", "batchId": 4, "stateOperators": []}
    lines = [
        json.dumps({"Event": "SparkListenerLogStart", "Spark Version": "4.2.0"}),
        json.dumps({"Event": event, "progress": report}),
        json.dumps({"Event": event, "progress": json.dumps(report | {"batchId": 5})}),
        json.dumps({"Event": event, "progress": report})[:-9],
    ]
    (tmp_path / "local-1.inprogress").write_text("\n".join(lines))
    (tmp_path / "metadata").write_text('{"id":"q1"}')
    assert [("q1", 4), ("q1", 5)] == [(found.id, found.batch) for found in event_log.progress(tmp_path)]
    assert ["4.2.0"] == event_log.versions(tmp_path)
    assert "q1" == event_log.query_id(tmp_path)
    assert "" == event_log.query_id(tmp_path / "none")
