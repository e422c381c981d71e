"""A crash in one part of the judgement hides nothing that another part finds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness import scenario
from harness.errors import RunError
from harness.experiments import single
from harness.experiments.simulate import simulate
from harness.judge import anomalies, coverage, explain, findings, metrics, recovery, timeline, unmeasured, verdict
from harness.judge import summary as measured
from harness.model import Row, Verdict
from harness.rundir import history
from harness.rundir.events import Commit, FaultHealed
from harness.scenario import Limits

FINDS_THE_LOST_ROW = ("lost",)
CHECKERS = [checker.__name__ for checker in anomalies.FORBIDDEN["exactly-once"]]
CHECKS = ["_records_lost", "_read_twice", "_watermarks", "_drops", "_state"]
FIGURES = [
    (measured, name)
    for name in ("durable", "emission", "_throughput", "_largest_lag", "_lag_slope", "_due", "_total", "_unread")
]
FIGURES += [
    (metrics, name)
    for name in ("generator_delay_ms", "ack_latency_ms", "percentiles", "state", "slope", "consumed", "largest")
]
FIGURES += [(recovery, name) for name in ("_recovery", "_replayed", "_duplicates", "_behind")]
FIGURES += [
    (coverage, name) for name in ("unclaimed", "_over_restarts", "_restarts", "_burst", "_hot", "_idle", "_on_the_edge")
]
FIGURES += [(metrics, "out_of_order"), (timeline, "executors_replaced"), (recovery, "written"), (recovery, "begun_s")]
CONCLUSIONS = [
    (verdict, name)
    for name in ("_latency", "_throughput", "_cpu", "_success", "_held_to", "_overlong", "_limited", "_too_slow")
]
CONCLUSIONS += [(unmeasured, name) for name in ("_of_figures", "_of_counts", "_of_faults")]


def crash(*args, **named):
    """What a part of the judgement does that has a defect."""
    raise ZeroDivisionError("a defect")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A right run with a fault, and the same run with a row of revenue lost."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("right", "lost"):
        simulate(folder / name, scenario.load("late", ["load.eps=200", "pipeline.quick_start=false", "fault=[{at=1}]"]))
        run = history.read(folder / name)
        at_s = run.of(Commit)[20].t
        fault = FaultHealed(
            index=0,
            fault=run.scenario.fault[0],
            targets=("pipeline",),
            acknowledged=1,
            unread=0,
            at_s=at_s,
            effect_observed=True,
            proof={},
            healed_s=at_s + 1,
        )
        with history.recording(folder / name) as recorder:
            recorder.write(fault)
    rows = [
        Row(tuple(json.loads(key)), tuple(json.loads(values)), where, at_s)
        for key, values, where, at_s, _ in history.read(folder / "lost").rows("revenue")
    ]
    history.write_rows(folder / "lost", "revenue", rows[1:])
    return folder


def assert_nothing_hidden(runs):
    """The lost row fails its run, the right run is unknown, and both verdicts name the crash."""
    lost, right = (verdict.judge(history.read(runs / name)) for name in ("lost", "right"))

    assert Verdict.FAIL is lost.verdict, lost.why
    assert "lost_row" in {anomaly.kind for anomaly in lost.anomalies}
    assert "lost_row in revenue" in lost.why
    assert (Verdict.UNKNOWN, ()) == (right.verdict, right.anomalies), right.why
    for result in (lost, right):
        assert result.crashes
        assert all(f"{found.part} crashed, ZeroDivisionError: a defect" in result.why for found in result.crashes)
        assert KEYS == result.figures.keys()


KEYS = {
    *("durable_latency_ms", "emission_delay_ms", "generator_delay_ms", "ack_latency_ms", "negative_latencies"),
    *("throughput_eps", "offered_eps", "due_sent_share", "lag_records_max", "lag_slope_eps"),
    *("state_bytes_max", "state_rows_max", "state_slope_bytes_s"),
    *("pipeline_cores", "machine_cpu_share", "brokers_cores", "generator_cores", "harness_cores"),
    *("pipeline_rss_bytes_max", "harness_rss_bytes_max", "checkpoint_bytes_max"),
}


def test_uncrashed_runs_pass_and_fail(runs):
    """Or the other tests would show nothing."""
    assert Verdict.PASS is verdict.judge(history.read(runs / "right")).verdict
    assert Verdict.FAIL is verdict.judge(history.read(runs / "lost")).verdict


@pytest.mark.parametrize("name", [name for name in CHECKERS if name not in FINDS_THE_LOST_ROW])
def test_row_checker_crash_hides_nothing(runs, monkeypatch, name):
    """In whichever guarantee it is used."""
    crash_named = type("Crash", (), {"__name__": name, "__call__": staticmethod(crash)})()
    table = {
        guarantee: tuple(crash_named if checker.__name__.startswith(name) else checker for checker in used)
        for guarantee, used in anomalies.FORBIDDEN.items()
    }
    monkeypatch.setattr(anomalies, "FORBIDDEN", table)

    assert_nothing_hidden(runs)


@pytest.mark.parametrize("name", CHECKS)
def test_record_check_crash_hides_nothing(runs, monkeypatch, name):
    """Each is guarded by itself."""
    monkeypatch.setattr(findings, name, crash)

    assert_nothing_hidden(runs)


@pytest.mark.parametrize(("module", "name"), FIGURES, ids=[name for _, name in FIGURES])
def test_figure_crash_hides_nothing(runs, monkeypatch, module, name):
    """The figure is unknown, and every other is computed."""
    monkeypatch.setattr(module, name, crash)

    assert_nothing_hidden(runs)


@pytest.mark.parametrize(("module", "name"), CONCLUSIONS, ids=[name for _, name in CONCLUSIONS])
def test_conclusion_crash_hides_nothing(runs, monkeypatch, module, name):
    """What the figures show is concluded all the same."""
    monkeypatch.setattr(module, name, crash)

    assert_nothing_hidden(runs)


def test_slowness_crash_keeps_the_missed_target(runs, monkeypatch):
    """Whatever made it slow."""
    run = history.read(runs / "right")
    slow = replace(run, scenario=replace(run.scenario, limits=Limits(latency_s=0.1), judged=("latency",)))
    monkeypatch.setattr(verdict, "_too_slow", crash)
    monkeypatch.setattr(verdict, "_overlong", crash)
    result = verdict.judge(slow)

    assert Verdict.FAIL is result.verdict
    assert "missed: latency" in result.why
    assert "the cause of slowness crashed" in result.why


def test_damaged_manifest_hides_nothing(runs):
    """A run on no core has no share of them; its lost row is lost."""
    lost = history.read(runs / "lost")
    result = verdict.judge(replace(lost, manifest={**lost.manifest, "cores": 0, "usable_cores": 0}))

    assert Verdict.FAIL is result.verdict, result.why
    assert "lost_row in revenue" in result.why
    assert {"the figure machine_cpu_share", "the target cpu"} == {found.part for found in result.crashes}
    assert None is result.figures["machine_cpu_share"]


def test_a_crashing_explanation_leaves_the_anomaly(runs, monkeypatch):
    """Without its evidence."""
    monkeypatch.setattr(explain, "explain", crash)
    result = verdict.judge(history.read(runs / "lost"))

    assert Verdict.FAIL is result.verdict
    assert {"lost_row"} <= {anomaly.kind for anomaly in result.anomalies}
    assert "the explanation crashed" in result.why


def test_a_crashing_oracle_invents_no_anomaly(runs, monkeypatch):
    """Rows that nothing can be compared with are neither right nor wrong."""
    monkeypatch.setattr(timeline, "expected", crash)
    result = verdict.judge(history.read(runs / "lost"))

    assert (Verdict.UNKNOWN, ()) == (result.verdict, result.anomalies)
    assert "the oracle crashed" in result.why
    assert None is result.counts["rows_expected"]
    assert unmeasured.CRASHED == result.unknown["figures.emission_delay_ms.sessions"]


def test_reader_crash_spares_other_queries(runs, monkeypatch):
    """The success is then unknown, and the lost row of another query stands."""
    compared = findings._comparison
    monkeypatch.setattr(
        findings,
        "_comparison",
        lambda gathered, name, answer: crash() if name == "sessions" else compared(gathered, name, answer),
    )

    assert_nothing_hidden(runs)


def test_a_damaged_directory_is_no_crash(runs, monkeypatch):
    """It ends the judgement as it did."""

    def damaged(*args):
        raise RunError("rows are missing")

    monkeypatch.setattr(findings, "_comparison", damaged)

    with pytest.raises(RunError, match="rows are missing"):
        verdict.judge(history.read(runs / "lost"))


def test_crash_traces_are_logged(runs, monkeypatch):
    """And the page is made of what is known."""
    monkeypatch.setattr(measured, "_lag_slope", crash)
    monkeypatch.setattr(coverage, "unclaimed", crash)
    result = single.judge(runs / "lost").result
    log = (runs / "lost" / "logs" / "judge.log").read_text()

    assert Verdict.FAIL is result.verdict
    assert "the figure lag_slope_eps crashed\nTraceback" in log
    assert "the count unclaimed crashed\nTraceback" in log
    assert "judge.log" in result.why
