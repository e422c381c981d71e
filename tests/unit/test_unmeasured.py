"""What was not measured has no value and a reason, and nothing prints it as a measurement."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from history_events import healed
from msgspec import structs

from harness import scenario
from harness.experiments import single
from harness.experiments.simulate import START_S, simulate
from harness.judge import findings, frames, metrics, recovery, timeline, unmeasured, verdict
from harness.judge.assessment import Assessment
from harness.model import Target, Verdict
from harness.report import page as pages
from harness.report import render
from harness.rundir import history
from harness.rundir.events import Progress, Sample
from harness.runner import conductor, sampler
from harness.scenario import Fault


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A right run: 5 s of warm-up and 15 s measured."""
    directory = tmp_path_factory.mktemp("right") / "run"
    simulate(directory, scenario.load("late", ["load.eps=100"]))
    return history.read(directory)


def black_box(run):
    """The same run, of a pipeline without a checkpoint."""
    return replace(run, scenario=replace(run.scenario, pipeline=replace(run.scenario.pipeline, checkpoint="")))


def without(run, kind):
    """The run without the events of a type."""
    return replace(run, events=tuple(event for event in run.events if not isinstance(event, kind)))


def test_two_points_have_no_slope():
    """0 would read as a lag that does not grow."""
    at_s = np.array([1.0, 2.0])

    assert None is metrics.slope(at_s, at_s)
    assert None is metrics.slope(np.array([]), np.array([]))
    assert 2.0 == pytest.approx(metrics.slope(np.arange(3.0), 2 * np.arange(3.0)))


def test_few_commits_leave_the_lag_unknown(right):
    """The slope of the other queries does not stand for it, and the reason names the query."""
    gathered = timeline.gather(right)
    part = gathered.measured
    kept = [batch for batch in gathered.batches["revenue"] if not part.start_s + 3 < batch.committed_s < part.end_s]
    batches = {**gathered.batches, "revenue": kept}
    index = {**gathered.batch_of, "revenue": metrics.batch_of("revenue", gathered.sent, kept)}
    few = replace(gathered, batches=batches, batch_of=index)
    figures = verdict.measured.figures(few, {})
    reasons = unmeasured.reasons(few, figures, {}, (), verdict.Guard())

    assert (None, None) == (figures["throughput_eps"], figures["lag_slope_eps"])
    assert "revenue committed fewer than three batches in the measured part" == reasons["figures.lag_slope_eps"]
    assert reasons["figures.lag_slope_eps"] == reasons["figures.throughput_eps"]


@pytest.mark.parametrize(
    ("operators", "reason"),
    [
        pytest.param(None, "no progress report of .*revenue.* has a state operator", id="no operators"),
        pytest.param([{"numRowsTotal": 1}], "a state operator without memoryUsedBytes", id="no memory"),
    ],
)
def test_unreported_state_is_unknown(right, operators, reason):
    """0 bytes would pass the target."""
    told = [
        structs.replace(event, progress={"batchId": event.batch} | ({"stateOperators": operators} if operators else {}))
        if isinstance(event, Progress)
        else event
        for event in right.events
    ]
    done = verdict.assess(replace(right, events=tuple(told)))
    [target] = [target for target in done.result.targets if target.name == "state_size"]

    assert (None, Verdict.UNKNOWN) == (target.value, target.verdict)
    assert re.search(reason, target.why)
    assert None is done.result.figures["state_slope_bytes_s"]
    [chart] = [chart for chart in pages.of_run(done).charts if chart.id == "state"]
    assert "0.0 MB" not in chart.summary
    [chart] = [chart for chart in pages.of_run(done).charts if chart.id == "batches"]
    assert "The progress reports of the pipeline have no duration triggerExecution." == chart.summary


def test_black_box_counts_are_unknown(right):
    """Nobody sees what it has read; each null has its reason."""
    result = verdict.judge(black_box(right))
    unknown = {"read", "dropped_late", "deduplicated", "unclaimed", "sessions_over_restarts"}

    assert unknown == {name for name, count in result.counts.items() if count is None}
    assert {unmeasured.BLACK_BOX} == {result.unknown[f"counts.{name}"] for name in unknown}
    assert unmeasured.BLACK_BOX == result.unknown["figures.lag_slope_eps"]


def nulls(value, path):
    """The paths of all nulls in a value of result.json."""
    if isinstance(value, dict):
        return {found for name, below in value.items() for found in nulls(below, f"{path}.{name}")}
    if isinstance(value, list | tuple):
        return {found for at, below in enumerate(value) for found in nulls(below, f"{path}.{at}")}
    return {path} if value is None else set()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda run: run, id="right"),
        pytest.param(black_box, id="black box"),
        pytest.param(lambda run: without(run, (Sample, Progress)), id="no samples and no progress"),
    ],
)
def test_every_null_has_a_reason(right, changed):
    """Of figures, counts and costs; a cost that does not apply has none."""
    fault = healed(START_S + 0.1, None, Fault(at=1))
    run = changed(right)
    result = verdict.judge(replace(run, events=(*run.events, fault)))
    told = verdict.as_json(result)
    empty = {path for name in ("figures", "counts", "faults") for path in nulls(told[name], name)}
    allowed = {path for path in empty if path.startswith("figures.negative") or path.endswith(".unrecovered_s")}

    assert empty - allowed == told["unknown"].keys()
    assert all(told["unknown"].values())
    assert all("why" in target for target in told["targets"].values() if target["value"] is None)


def test_page_lists_what_is_unknown(right):
    """With the reason, below the figures that have a dash."""
    made = pages.of_run(verdict.assess(without(right, Sample)))
    [table] = [table for table in made.tables if table.title == "Not measured"]
    [chart] = [chart for chart in made.charts if chart.id == "cpu"]

    assert ("figures.pipeline_cores", "the samples do not span the measured part") in table.rows
    assert "No sample of the pipeline's CPU lies in the measured part." == chart.summary
    assert "not measured: the samples do not span the measured part" in render(made)
    assert [] == [table for table in pages.of_run(verdict.assess(right)).tables if table.title == "Not measured"]


@pytest.mark.parametrize(
    ("target", "printed"),
    [
        pytest.param(
            Target("throughput", 983.5, 1000, "events/s", Verdict.FAIL, at_least=True),
            r"fail +throughput +983.5 misses > 1,000 +events/s +head-room -1.7%",
            id="below a minimum",
        ),
        pytest.param(
            Target("success", 0.0, 0.999, "share of rows", Verdict.FAIL, at_least=True),
            r"fail +success +0 misses > 99.9 +% of rows +head-room -100.0%",
            id="no row is right",
        ),
        pytest.param(
            Target("latency", 12.0, 10.0, "s", Verdict.FAIL, judged=False),
            r"shown +latency +12 misses < 10 +s +head-room -20.0%",
            id="above a maximum, not judged",
        ),
        pytest.param(
            Target("latency", 2.0, 10.0, "s", Verdict.PASS),
            r"pass +latency +2 +< 10 +s +head-room 80.0%",
            id="within",
        ),
        pytest.param(
            Target("success", 1.0, 1, "share of rows", Verdict.PASS, at_least=True),
            r"pass +success +100 +>= 100 +% of rows +head-room 0.0%",
            id="all of all",
        ),
        pytest.param(
            Target("cpu", 0.7999999, 0.8, "share of cores", Verdict.PASS),
            r"pass +cpu +79.99999 +< 80 +% of its cores +head-room 0.0%",
            id="just within",
        ),
        pytest.param(
            Target("latency", None, 10.0, "s", Verdict.UNKNOWN, why="no row came out"),
            r"unknown +latency +not measured +limit < 10 +s +no row came out",
            id="not measured",
        ),
        pytest.param(
            Target("throughput", 4900, 1000, "events/s", Verdict.FAIL, at_least=True, why="the lag grows"),
            r"fail +throughput +4,900 +> 1,000 +events/s +head-room 390.0%; the lag grows",
            id="missed for another reason",
        ),
    ],
)
def test_only_true_comparisons_are_printed(right, target, printed):
    """A missed limit says that it is missed, on the terminal and on the page."""
    done = verdict.assess(right)
    done = replace(done, result=replace(done.result, targets=(target,)))
    [line] = [line.strip() for line in single.story(done) if f" {target.name} " in line]
    html = render(pages.of_run(done))

    assert re.fullmatch(printed, line)
    assert ("misses its limit" in html) is ("misses" in printed)
    assert (target.why in html) if target.why else True


def test_recovery_counts_from_the_first_try(right):
    """A crash that missed its point ended the pipeline all the same: no recovery is shorter than its gap."""
    gathered = timeline.gather(right)
    start_s = gathered.measured.start_s
    fault = healed(start_s + 8, start_s + 9, Fault(kind="crash", at=1), proof={"first_s": start_s + 3})

    def held_up(batch):
        inside = start_s + 3 < batch.committed_s < start_s + 10
        return replace(batch, committed_s=start_s + 10 + (batch.number % 7) / 1000) if inside else batch

    batches = {query: [held_up(batch) for batch in found] for query, found in gathered.batches.items()}
    run = replace(right, events=(*right.events, fault))
    slow = replace(gathered, run=run, batches=batches)
    [cost] = recovery.costs(slow, findings.compare(slow, timeline.expected(slow)))

    assert cost["first_commit_s"] == pytest.approx(7, abs=0.1)
    assert cost["longest_gap_s"] <= cost["first_commit_s"] + 1.5
    assert cost["recovered_s"] >= cost["first_commit_s"]


def test_first_try_is_the_injection_shown(right):
    """On the page and in the frame the seconds count from the moment that is shown."""
    fault = healed(START_S + 13, START_S + 14, Fault(kind="crash", at=1), proof={"first_s": START_S + 8})
    run = replace(right, events=(*right.events, fault))
    result = replace(verdict.judge(right), faults=(recovery.written(fault),))
    made = pages.of_run(Assessment(run, result, timeline.gather(run)))
    [table] = [table for table in made.tables if table.title == "Faults"]

    assert 3.0 == table.rows[0][2] == made.shaded[1]["from"]
    assert START_S + 8 == frames.faults(result)["injected"][0].timestamp()


def rig(batch_ms=None, state=None, checkpoint="{checkpoint}/{query}"):
    """What the status line reads: of a load of which half is committed."""
    chosen = scenario.load("late")
    return SimpleNamespace(
        scenario=replace(chosen, pipeline=replace(chosen.pipeline, checkpoint=checkpoint)),
        load=SimpleNamespace(sent=2000, acknowledged=2000),
        checkpoint=SimpleNamespace(read=lambda: 1000),
        system=SimpleNamespace(batch_ms=batch_ms, state_bytes=state or {}),
    )


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        pytest.param(rig(), ("1,000", "unknown", "unknown"), id="nothing reported"),
        pytest.param(rig(1500.0, {"q": 4e6}), ("1,000", "1.5 s", "4 MB"), id="all reported"),
        pytest.param(rig(0.0, {"q": 0.0}), ("1,000", "0.0 s", "0 MB"), id="reported as nothing"),
        pytest.param(rig(1500.0, {"q": 4e6, "r": None}), ("1,000", "1.5 s", "unknown"), id="a query without state"),
        pytest.param(rig(checkpoint=""), ("unknown", "unknown", "unknown"), id="a black box"),
    ],
)
def test_status_line_shows_unknown(made, shown):
    """A job of which nothing is known has no batch of 0.0 s."""
    figures = conductor._figures(made)

    assert shown == tuple(figures[name] for name in ("lag", "batch", "state"))


def test_absent_sources_have_no_bytes(monkeypatch):
    """Brokers elsewhere have no memory here, and no checkpoint is none of 0 bytes."""
    told = []
    monkeypatch.setattr(sampler.processes, "tree_rss_bytes", lambda pid: 0)
    sampler.Cpu(
        SimpleNamespace(write=told.append),
        SimpleNamespace(pids=list, cpu_s=lambda: 1.0),
        SimpleNamespace(pids=list),
        SimpleNamespace(pid=None, cpu_s=lambda: 0.0, sent=0, acknowledged=0),
        SimpleNamespace(size_bytes=lambda: None),
    ).sample()

    [sample] = told
    assert (None, None) == (sample.brokers_rss, sample.checkpoint_bytes)
