"""What the loss of an executor excuses, and a restart, and what they do not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.experiments.simulate import simulate
from harness.job.clickstream.events import Workload
from harness.judge import findings, timeline
from harness.judge.timeline import Evidence
from harness.model import Row
from harness.rundir import history
from harness.scenario import Load, Scenario

LATE = Scenario(
    name="late", load=Load(eps=600, warm_up_s=0, duration_s=20), workload=Workload(time_scale=60, too_late=0.05)
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run in which events are dropped."""
    directory = tmp_path_factory.mktemp("late") / "run"
    simulate(directory, LATE)
    return directory


def changed(run: Path, times: float, lost: bool, after_s: float = 0.0) -> Evidence:
    """The run with the drops of one batch of revenue multiplied, and an executor lost (or only a master) around it."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    told = next(
        event for event in lines if event["kind"] == "progress" and event["query"] == "revenue" and drops(event)
    )
    told["progress"]["stateOperators"][0]["numRowsDroppedByWatermark"] = round(drops(told) * times)
    commit = next(e for e in lines if e["kind"] == "commit" and (e["query"], e["batch"]) == ("revenue", told["batch"]))
    commit["begun_s"] = commit["committed_s"] - 1
    at_s = commit["committed_s"] - 0.5 + after_s
    looks = [(at_s, [1, 2]), (at_s + 0.1, [2, 3] if lost else [1, 2]), (at_s + 60, [2, 3] if lost else [1, 2])]
    seen = [{"kind": "cluster", "t": second, "executors": executors} for second, executors in looks]
    other = run.with_name("changed")
    if not other.exists():
        other.mkdir()
        for path in run.iterdir():
            (other / path.name).symlink_to(path)
    (other / "history.jsonl").unlink()
    (other / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in [*lines, *seen]))
    return timeline.gather(history.read(other))


def drops(event) -> int:
    """What a batch tells that it dropped."""
    return event["progress"]["stateOperators"][0]["numRowsDroppedByWatermark"]


@pytest.mark.parametrize(
    ("times", "lost", "after_s", "kinds"),
    [
        pytest.param(2, True, 0, set(), id="twice, an executor lost"),
        pytest.param(0.5, True, 0, {"unreconciled_count"}, id="fewer, an executor lost"),
        pytest.param(2, True, 30, {"unreconciled_count"}, id="twice, an executor lost much later"),
        pytest.param(2, False, 0, {"unreconciled_count"}, id="twice, no executor lost"),
    ],
)
def test_repeated_task_may_report_drops_twice(run, times, lost, after_s, kinds):
    """More, and only in a batch that was under way when an executor was lost."""
    one = changed(run, times, lost, after_s)
    answers = timeline.expected(one)

    assert kinds == {anomaly.kind for anomaly in findings.find(one, answers, findings.compare(one, answers))}
    assert lost == bool(timeline.losses(one.run))


@pytest.mark.parametrize(
    ("further", "kinds"),
    [
        pytest.param(0, set(), id="of the batch that was run again"),
        pytest.param(1, {"duplicated_row"}, id="of another batch"),
    ],
)
def test_restart_excuses_only_replayed_rows(run, tmp_path, further, kinds):
    """The pipeline was started between the offsets of a batch and its commit; a row stands twice."""
    other = tmp_path / "run"
    shutil.copytree(run, other)
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    gathered = timeline.gather(history.read(run))
    batch_of = timeline.expected(gathered)["page_views"].batch
    first = min(batch_of.values())
    commit = next(e for e in lines if e["kind"] == "commit" and (e["query"], e["batch"]) == ("page_views", first))
    commit["begun_s"] = commit["committed_s"] - 0.3
    again = {"t": commit["committed_s"] - 0.2, "kind": "process", "name": "pipeline", "event": "start", "pid": 2}
    (other / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in [*lines, again]))
    rows = [
        Row(tuple(json.loads(key)), tuple(json.loads(values)), where, at_s)
        for key, values, where, at_s, _ in gathered.run.rows("page_views")
    ]
    twice = next(row for row in rows if batch_of[row.key] == sorted(set(batch_of.values()))[further])
    history.write_rows(other, "page_views", [*rows, replace(twice, where="page_views-0@1000000", at_s=twice.at_s + 60)])

    gathered = timeline.gather(history.read(other))
    answers = timeline.expected(gathered)
    found = findings.find(gathered, answers, findings.compare(gathered, answers))
    assert kinds == {anomaly.kind for anomaly in found if anomaly.query == "page_views"}
