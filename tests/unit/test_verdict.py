"""Fail outranks unknown outranks pass, and a target that was not measured is unknown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from history_events import healed

from harness import scenario
from harness.engines.spark.offset_log import Batch
from harness.experiments import single
from harness.experiments.simulate import simulate
from harness.judge import findings, recovery, timeline, verdict
from harness.judge import summary as measured
from harness.model import Row, Target, Verdict
from harness.rundir import history, manifest
from harness.rundir.events import Commit, FaultInjected, Interrupted, PipelineEnded, Standstill, encode
from harness.scenario import Fault


@pytest.mark.parametrize(
    ("given", "worst"),
    [
        pytest.param([], Verdict.UNKNOWN, id="nothing judged"),
        pytest.param([Verdict.PASS], Verdict.PASS, id="pass"),
        pytest.param([Verdict.PASS, Verdict.UNKNOWN], Verdict.UNKNOWN, id="unknown outranks pass"),
        pytest.param([Verdict.UNKNOWN, Verdict.FAIL, Verdict.PASS], Verdict.FAIL, id="fail outranks all"),
    ],
)
def test_the_worst_verdict_stands(given, worst):
    """The order of measuring.md."""
    assert worst is Verdict.worst(given)


@pytest.mark.parametrize(("verdict_", "code"), [(Verdict.PASS, 0), (Verdict.FAIL, 1), (Verdict.UNKNOWN, 3)])
def test_exit_codes(verdict_, code):
    """2 is bad usage and no verdict."""
    assert code == verdict_.exit_code


def test_headroom_is_share_of_limit():
    """Below a maximum, above a minimum, and negative where it was missed."""
    assert Target("latency", 4, 10, "s", Verdict.PASS).headroom == pytest.approx(0.6)
    assert Target("throughput", 1500, 1000, "e/s", Verdict.PASS, at_least=True).headroom == pytest.approx(0.5)
    assert Target("latency", 12, 10, "s", Verdict.FAIL).headroom == pytest.approx(-0.2)
    assert Target("latency", None, 10, "s", Verdict.UNKNOWN).headroom is None


def test_unknown_result_has_stable_keys():
    """Others build on them, so they are there whatever happened."""
    result = verdict.as_json(verdict.unknown("interrupted"))

    assert {"verdict", "why", "targets", "figures", "counts", "anomalies", "faults", "recovery_s"} <= set(result)
    assert "unknown" == result["verdict"]


@pytest.mark.parametrize(
    ("code", "brokers_down", "fault", "struck", "given"),
    [
        pytest.param(1, [], None, False, Verdict.FAIL, id="of itself"),
        pytest.param(0, [], None, False, Verdict.FAIL, id="as if it had been asked to"),
        pytest.param(-9, [], None, False, Verdict.UNKNOWN, id="by a signal"),
        pytest.param(143, [], None, False, Verdict.UNKNOWN, id="by a signal that Java or a shell tells"),
        pytest.param(1, [1], None, False, Verdict.UNKNOWN, id="without its broker"),
        pytest.param(1, [1], ("kill", "broker 1"), True, Verdict.FAIL, id="of a fault"),
        pytest.param(1, [1], ("kill", "broker 1"), False, Verdict.UNKNOWN, id="before the fault"),
        pytest.param(1, [3], ("kill", "broker 1"), True, Verdict.UNKNOWN, id="of another broker"),
        pytest.param(1, [3], ("kill", "two brokers"), True, Verdict.UNKNOWN, id="of the third of which two were"),
        pytest.param(1, [3], ("kill", "leader"), True, Verdict.FAIL, id="of a broker that was chosen by its role"),
        pytest.param(1, [1], ("stop", "pipeline"), True, Verdict.UNKNOWN, id="of a fault of its own"),
        pytest.param(1, [1], ("roll", "pipeline"), True, Verdict.FAIL, id="of a rolling restart"),
    ],
)
def test_death_fails_unless_excused(tmp_path, code, brokers_down, fault, struck, given):
    """A run that never came to its end, and is more than interrupted."""
    kind, on = fault or ("", "")
    asked = f'[[fault]]\nkind = "{kind}"\non = "{on}"\nat = 10\n' if fault else ""
    (tmp_path / "mine.toml").write_text(f"[load]\neps = 100\n[kafka]\nnodes = 3\n{asked}")
    chosen = scenario.load(str(tmp_path / "mine.toml"))
    (tmp_path / "scenario.toml").write_text(scenario.dump(chosen))
    with history.recording(tmp_path) as happenings:
        manifest.write(tmp_path, chosen, ["run", "mine"], "")
        if struck:
            happenings.write(FaultInjected(index=0, fault=chosen.fault[0]))
        happenings.write(PipelineEnded(code=code, last="no reason", brokers_down=tuple(brokers_down)))
        happenings.write(Interrupted(phase="measure", why="the pipeline ended by itself"))
    result = verdict.judge(history.read(tmp_path))

    assert given is result.verdict
    assert f"the pipeline ended by itself in phase measure with code {code}: no reason" in result.why


@pytest.mark.parametrize(
    ("code", "struck", "given"),
    [
        pytest.param(2, True, Verdict.UNKNOWN, id="it does not know the flag"),
        pytest.param(1, True, Verdict.FAIL, id="it dies of it"),
        pytest.param(2, False, Verdict.FAIL, id="before the fault"),
    ],
)
def test_unknown_fault_flag_is_excused(tmp_path, code, struck, given):
    """It says which."""
    (tmp_path / "mine.toml").write_text(
        '[load]\neps = 100\n[[fault]]\nkind = "change"\nflags = ["--triggr", "1 s"]\nat = 10\n'
    )
    chosen = scenario.load(str(tmp_path / "mine.toml"))
    (tmp_path / "scenario.toml").write_text(scenario.dump(chosen))
    with history.recording(tmp_path) as happenings:
        manifest.write(tmp_path, chosen, ["run", "mine"], "")
        if struck:
            happenings.write(FaultInjected(index=0, fault=chosen.fault[0]))
        happenings.write(PipelineEnded(code=code, last="no such flag", brokers_down=()))
        happenings.write(Interrupted(phase="measure", why="the pipeline ended by itself"))
    result = verdict.judge(history.read(tmp_path))

    assert given is result.verdict
    assert ("--triggr 1 s" in result.why) is (given is Verdict.UNKNOWN)


@pytest.mark.parametrize(("injected", "given"), [(1, Verdict.UNKNOWN), (2, Verdict.FAIL)])
def test_equal_positions_are_two_faults(tmp_path, injected, given):
    """Broker 1 is down: a fault of it explains that only once this fault was injected, not another at its position."""
    faults = (Fault(kind="kill", on="pipeline", at=10), Fault(kind="kill", on="broker 1", at=10))
    chosen = scenario.load("kill", ["fault=[{at=10}, {on='broker 1', at=10}]", "kafka.nodes=3"])
    (tmp_path / "scenario.toml").write_text(scenario.dump(chosen))
    with history.recording(tmp_path) as recorder:
        manifest.write(tmp_path, chosen, ["run", "mine"], "")
        for index, fault in enumerate(faults[:injected]):
            recorder.write(FaultInjected(index=index, fault=fault))
        recorder.write(PipelineEnded(code=1, last="no reason", brokers_down=(1,)))
        recorder.write(Interrupted(phase="measure", why="the pipeline ended by itself"))

    assert given is verdict.judge(history.read(tmp_path)).verdict


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_accidental_full_disk_is_excused(tmp_path, fault):
    """It is the machine's: what a fault has filled is expected to end it, and that is no death of its own."""
    text = f'[load]\neps = 100\n[[fault]]\nkind = "{fault}"\non = "{"results" if fault == "full" else "pipeline"}"\nat = 10\n'
    (tmp_path / "mine.toml").write_text(text)
    chosen = scenario.load(str(tmp_path / "mine.toml"))
    (tmp_path / "scenario.toml").write_text(scenario.dump(chosen))
    with history.recording(tmp_path) as happenings:
        manifest.write(tmp_path, chosen, ["run", "mine"], "")
        last = "query revenue died: java.io.IOException: No space left on device"
        happenings.write(PipelineEnded(code=1, last=last, brokers_down=()))
        happenings.write(Interrupted(phase="measure", why="the pipeline ended by itself"))

    assert Verdict.UNKNOWN is verdict.judge(history.read(tmp_path)).verdict


def throughput_target(figures: dict) -> Target:
    """The target of 1,000 events/s, held to these figures."""
    return verdict._throughput(verdict._throughput_target(1000), figures, {})


@pytest.mark.parametrize(
    ("throughput", "lag_slope", "said"),
    [
        pytest.param(4999, 1, Verdict.PASS, id="keeps up"),
        pytest.param(4900, 1, Verdict.FAIL, id="less than 99 % of what was offered"),
        pytest.param(4999, 51, Verdict.FAIL, id="the lag grows by more than 1 % of the load"),
    ],
)
def test_throughput_must_match_the_load(throughput, lag_slope, said):
    """A pipeline above the limit that falls behind does not pass."""
    figures = {"throughput_eps": throughput, "offered_eps": 5000, "lag_slope_eps": lag_slope}

    assert said is throughput_target(figures).verdict


@pytest.mark.parametrize(
    ("throughput", "offered", "lag_slope", "said"),
    [
        pytest.param(500, 500, 0, Verdict.UNKNOWN, id="keeps up with half of it"),
        pytest.param(1000.4, 1000, 0, Verdict.UNKNOWN, id="keeps up with just as much"),
        pytest.param(480, 500, 20, Verdict.FAIL, id="falls behind half of it"),
        pytest.param(1000.4, 1001, 0, Verdict.PASS, id="keeps up with more"),
    ],
)
def test_small_load_leaves_throughput_unknown(throughput, offered, lag_slope, said):
    """A pipeline that commits all it is given has missed nothing; one that does not, has."""
    figures = {"throughput_eps": throughput, "offered_eps": offered, "lag_slope_eps": lag_slope}

    assert said is throughput_target(figures).verdict


def test_low_offer_is_unknown(tmp_path):
    simulate(tmp_path, scenario.load("late", ["load.eps=200", 'judged=["throughput"]', "pipeline.quick_start=false"]))
    result = verdict.judge(history.read(tmp_path))

    assert Verdict.UNKNOWN is result.verdict
    assert result.why == (
        "it kept up with the 200 events/s it was offered, and the target is 1,000: raise load.eps, or leave throughput"
        " out of judged"
    )


@pytest.mark.parametrize("name", ["late", "kill"])
def test_right_run_passes_from_files(tmp_path, name):
    """Judged, written and told; without its faults a run that was to have some is unknown."""
    simulate(tmp_path / "run", scenario.load(name, ["load.eps=200"]))
    done = single.judge(tmp_path / "run")
    told = json.loads((tmp_path / "run" / "result.json").read_text())

    wanted = Verdict.PASS if name == "late" else Verdict.UNKNOWN
    assert wanted is done.result.verdict, done.result.why
    assert wanted.value == told["verdict"]
    assert (tmp_path / "run" / "report.html").stat().st_size < 1_000_000


def test_late_load_is_excused(tmp_path):
    """Its latency is the generator's: unknown, never fail. A wrong row is one all the same."""
    judged = ('judged=["latency", "success"]', "pipeline.quick_start=false")
    simulate(tmp_path, scenario.load("late", ["load.eps=200", "load.duration_s=50", *judged]))
    sent = pq.read_table(tmp_path / "sent.parquet")
    due = pc.subtract(sent["due_us"], pa.scalar(15_000_000, pa.int64()))
    pq.write_table(sent.set_column(sent.schema.get_field_index("due_us"), "due_us", due), tmp_path / "sent.parquet")
    result = verdict.judge(history.read(tmp_path))

    assert Verdict.UNKNOWN is result.verdict
    assert "missed: latency" in result.why
    assert "generator-limited" in result.why

    file = tmp_path / "outputs" / "page_views.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    assert Verdict.FAIL is verdict.judge(history.read(tmp_path)).verdict


@pytest.mark.parametrize(
    ("late_s", "limited"),
    [
        pytest.param((10, 12), True, id="in the measured part"),
        pytest.param((20, 40), True, id="after it"),
        pytest.param((0, 0), False, id="never"),
    ],
)
def test_partly_late_load_is_generator_limited(tmp_path, late_s, limited):
    """A long time after the measured part does not make up for it, nor it for what comes after."""
    simulate(tmp_path, scenario.load("late", ["load.eps=20", "load.cool_down_s=300"]))
    sent = pq.read_table(tmp_path / "sent.parquet")
    second = pc.subtract(sent["due_us"], pc.min(sent["due_us"])).to_numpy() / 1e6
    late_us = 2_000_000 * ((second >= late_s[0]) & (second < late_s[1]))
    at = sent.schema.get_field_index("sent_us")
    pq.write_table(
        sent.set_column(at, "sent_us", pc.add(sent["sent_us"], pa.array(late_us))), tmp_path / "sent.parquet"
    )

    assert limited is ("generator-limited" in verdict.judge(history.read(tmp_path)).why)


def test_missing_batch_is_noticed(tmp_path):
    """The last of a query, at the watermark of the flush: without it the rows that it closes look as if they were open."""
    simulate(tmp_path, scenario.load("late", ["load.eps=200"]))
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    whole = history.read(tmp_path)
    last = max(event.batch for event in whole.of(Commit) if event.query == "sessions")
    closed = timeline.expected(timeline.gather(whole))["sessions"].batch
    kept = [line for line in lines if not _is_of(json.loads(line), "sessions", last)]
    (tmp_path / "history.jsonl").write_text("\n".join(kept) + "\n")
    for kind in ("offsets", "commits"):
        (tmp_path / "checkpoints" / "sessions" / kind / str(last)).unlink()
    file = tmp_path / "outputs" / "sessions.parquet"
    rows = pq.read_table(file)
    open_ = [closed[tuple(json.loads(key))] != last for key in rows["key"].to_pylist()]
    pq.write_table(rows.filter(pa.array(open_)), file)
    result = verdict.judge(history.read(tmp_path))

    assert 0 < sum(open_) < len(open_)
    assert Verdict.UNKNOWN is result.verdict
    assert "a batch of sessions was still to run" in result.why


def _is_of(event: dict, query: str, batch: int) -> bool:
    return (event.get("query"), event.get("batch")) == (query, batch)


def test_simulated_figures_come_back(tmp_path):
    """200 events/s, sent 0.1 ms after they are due and acknowledged 5 ms after; read every 1.5 s, committed 0.5 s later."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=200"]))
    result = verdict.judge(history.read(tmp_path / "run"))
    figures, counts = result.figures, result.counts

    for durable in figures["durable_latency_ms"].values():
        assert 1250 == pytest.approx(durable["p50"], abs=60)
        assert 1990 == pytest.approx(durable["p99"], abs=20)
    assert {"page_views", "revenue", "conversions", "sessions"} == set(figures["emission_delay_ms"])
    assert all(500 <= one["p50"] <= one["max"] < 3500 for one in figures["emission_delay_ms"].values())
    assert {0.1} == set(figures["generator_delay_ms"].values())
    assert {5.0} == set(figures["ack_latency_ms"].values())
    assert 200 == figures["offered_eps"] == pytest.approx(figures["throughput_eps"], rel=0.02)
    assert 1 == figures["due_sent_share"]
    assert 0 == pytest.approx(figures["lag_slope_eps"], abs=2)
    assert 200 * 2 == pytest.approx(figures["lag_records_max"], abs=60)
    assert (5 * 1000, 5 * 1) == (figures["state_bytes_max"], figures["state_rows_max"])
    assert [0.5] * 4 == [figures[f"{who}_cores"] for who in ("pipeline", "brokers", "generator", "harness")]
    assert 0.25 == figures["machine_cpu_share"]
    assert [10**8] * 2 == [figures[f"{who}_rss_bytes_max"] for who in ("pipeline", "harness")]
    assert 20 * 200 + 2 == counts["sent"] == counts["acknowledged"] == counts["read"]
    assert counts["read"] == counts["counted"] + counts["dropped_late"] + counts["dead_letter"]
    assert 0 < counts["dead_letter"] < counts["dropped_late"]


def test_unacknowledged_events_are_uncommitted(tmp_path):
    """Every second event: half of what was offered came through."""
    simulate(tmp_path, scenario.load("late", ["load.eps=200"]))
    gathered = timeline.gather(history.read(tmp_path))
    lost = (gathered.sent["n"] % 2 == 1) & ~gathered.sent["flush"]
    half = replace(
        gathered,
        sent={**gathered.sent, "offset": np.where(lost, -1, gathered.sent["offset"])},
        batch_of={query: np.where(lost, -1, batch) for query, batch in gathered.batch_of.items()},
    )
    figures = measured.figures(half, {})

    assert 200 == figures["offered_eps"]
    assert 100 == pytest.approx(figures["throughput_eps"], rel=0.05)


@pytest.mark.parametrize(
    ("judged", "wanted"),
    [
        pytest.param('["latency", "success"]', Verdict.FAIL, id="judged on it"),
        pytest.param('["success"]', Verdict.PASS, id="shown alone"),
    ],
)
def test_only_chosen_targets_decide(tmp_path, judged, wanted):
    """The others are measured, and told as what they are."""
    simulate(
        tmp_path / "run",
        scenario.load("late", ["load.eps=200", "limits.latency_s=0", "pipeline.quick_start=false", f"judged={judged}"]),
    )
    done = single.judge(tmp_path / "run")

    assert wanted is done.result.verdict, done.result.why
    [latency] = [target for target in done.result.targets if target.name == "latency"]
    assert (Verdict.FAIL, "latency" in judged) == (latency.verdict, latency.judged)
    assert any(line.lstrip().startswith("shown") for line in single.story(done))


def test_falling_behind_is_quantified():
    """Its throughput may be far above the limit that stands beside it."""
    figures = {"throughput_eps": 4913.2, "offered_eps": 5000.0, "lag_slope_eps": 87.3}
    target = throughput_target(figures)

    assert ["4,913 of 5,000 events/s offered were committed, the lag growing by 87 events/s"] == (
        list(verdict._too_slow([target], figures, ()))
    )


@pytest.mark.parametrize(
    ("committed", "faults", "said"),
    [
        pytest.param(20_703.1, (), True, id="catching up"),
        pytest.param(20_100.0, (), False, id="warm"),
        pytest.param(None, (), False, id="never measured"),
        pytest.param(20_703.1, ({"fault": "kill pipeline"},), False, id="after a fault"),
    ],
)
def test_warm_up_backlog_is_named(committed, faults, said):
    """Nothing else would show that its latency is that of a cold start."""
    figures = {"throughput_eps": committed, "offered_eps": 20_000.0, "lag_slope_eps": -141.5}
    more = list(verdict._too_slow([Target("latency", 17.8, 10, "s", Verdict.FAIL)], figures, faults))

    assert said == bool(more)
    assert all("20,703 events/s were committed of 20,000 offered" in why for why in more)


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        pytest.param("limits.recovery_s=15", Verdict.UNKNOWN, id="limited"),
        pytest.param("limits.latency_s=10", Verdict.PASS, id="shown alone"),
    ],
)
def test_unseen_recovery_misses_its_limit(tmp_path, limit, wanted):
    """A fault after the last commit, from which nobody can tell that the pipeline recovered."""
    struck = ("fault=[{at=1}]", "pipeline.quick_start=false")
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=200", *struck, limit]))
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    at_s = max(json.loads(line)["t"] for line in lines) + 1
    fault = healed(at_s, at_s, Fault(at=1))
    (tmp_path / "run" / "history.jsonl").write_text("\n".join([*lines, encode(fault)]) + "\n")
    result = verdict.judge(history.read(tmp_path / "run"))

    assert wanted is result.verdict, result.why
    assert ("recovered after kill pipeline: not seen" in result.why) is (wanted is Verdict.UNKNOWN)
    assert None is verdict.as_json(result)["recovery_s"]


@pytest.mark.parametrize(
    ("recovered_s", "unrecovered_s", "slow", "unseen"),
    [
        pytest.param(14.0, None, [], 0, id="in time"),
        pytest.param(16.0, None, ["recovered after kill pipeline: 16 s, above 15 s"], 0, id="late"),
        pytest.param(None, 16.5, ["not recovered after kill pipeline: 16.5 s, above 15 s"], 0, id="never, under load"),
        pytest.param(None, 14.5, [], 1, id="the load ended before"),
        pytest.param(None, None, [], 1, id="nothing to compare with"),
    ],
)
def test_overlong_recovery_fails(recovered_s, unrecovered_s, slow, unseen):
    """Where it ended before, nobody knows."""
    run = SimpleNamespace(scenario=scenario.load("kill", ["limits.recovery_s=15", "pipeline.quick_start=false"]))
    fault = {"fault": "kill pipeline", "recovered_s": recovered_s, "unrecovered_s": unrecovered_s}
    limited = list(verdict._limited(SimpleNamespace(run=run), [fault]))

    assert slow == list(verdict._overlong(SimpleNamespace(run=run), [fault]))
    assert unseen == sum(value is None for _, value, _ in limited)


def test_baseline_precedes_the_fault(tmp_path):
    """Two equal outages of 20 s, a minute apart: the second takes as long as the first, or its lag would be usual."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=200", "load.duration_s=120"]))
    gathered = timeline.gather(history.read(tmp_path / "run"))
    start_s = gathered.batches["page_views"][0].committed_s

    def held_up(batch: Batch) -> Batch:
        """What would be committed in an outage comes after it, and what follows catches up."""
        for begin_s in (start_s + 30, start_s + 90):
            if begin_s < batch.committed_s < begin_s + 30:
                return replace(batch, committed_s=begin_s + 20 + (batch.committed_s - begin_s) / 3)
        return batch

    happened = [healed(at_s, at_s + 20) for at_s in (start_s + 30, start_s + 90)]
    slow = replace(
        gathered,
        run=replace(gathered.run, events=(*gathered.run.events, *happened)),
        batches={query: [held_up(one) for one in found] for query, found in gathered.batches.items()},
    )
    first, second = recovery.costs(slow, findings.compare(slow, timeline.expected(slow)))

    assert ("kill", "kill") == (first["kind"], second["kind"])
    assert first["recovered_s"] > 25
    assert second["recovered_s"] == pytest.approx(first["recovered_s"], abs=2)


def test_early_fault_has_no_baseline(tmp_path):
    """Nor has one right after it."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=200"]))
    gathered = timeline.gather(history.read(tmp_path / "run"))
    first_s = max(found[0].committed_s for found in gathered.batches.values())
    happened = [
        healed(at_s, healed_s) for at_s, healed_s in ((first_s - 6, first_s - 0.5), (first_s + 0.1, first_s + 2))
    ]
    struck = replace(gathered, run=replace(gathered.run, events=(*gathered.run.events, *happened)))

    costs = list(recovery.costs(struck, findings.compare(struck, timeline.expected(struck))))
    assert [None, None] == [one["recovered_s"] for one in costs]


@pytest.mark.parametrize(
    ("values", "total"),
    [
        pytest.param([3, 4], 7, id="whole"),
        pytest.param([3.0, 4.0], 7, id="whole, written as JSON writes doubles"),
        pytest.param([3.5, 4], 4, id="half"),
        pytest.param([float("nan"), float("inf"), 4], 4, id="beyond all"),
        pytest.param([True, "3", None, 4], 4, id="no numbers"),
    ],
)
def test_counts_match_the_checkers(values, total):
    """A row that is right counts, and what is no count does not."""
    observed = {(at,): [SimpleNamespace(values=(value,))] for at, value in enumerate(values)}

    assert total == measured._total(SimpleNamespace(observed=observed), 0)


def altered(folder, *sets, drop=lambda event: False, add=()):
    """The directory of a simulated run of `late`, with happenings left out and others added."""
    simulate(folder / "run", scenario.load("late", ["load.eps=200", *sets]))
    path = folder / "run" / "history.jsonl"
    kept = [line for line in path.read_text().splitlines() if not drop(json.loads(line))]
    path.write_text("".join(f"{line}\n" for line in [*kept, *map(json.dumps, add)]))
    return folder / "run"


def test_stalled_run_does_not_pass(tmp_path):
    """The last windows may never have come out, and nothing is wrong with the others."""
    run = altered(tmp_path, add=[{"t": 1.0, "kind": "stalled", "why": "waiting for every query to commit everything"}])
    result = verdict.judge(history.read(run))

    assert Verdict.UNKNOWN is result.verdict
    assert "came to a standstill, waiting for every query" in result.why


@pytest.mark.parametrize(
    ("stalled", "wanted"),
    [
        pytest.param(True, Verdict.UNKNOWN, id="it may have been cut off"),
        pytest.param(False, Verdict.FAIL, id="it was all committed"),
    ],
)
def test_cut_off_batch_accuses_nobody(tmp_path, stalled, wanted):
    """They stand in the sink, and their batch is not committed: where the drain gave up, it would have been run again."""
    run = altered(tmp_path)
    last = max(event.batch for event in history.read(run).of(Commit) if event.query == "page_views")
    told = Standstill(t=2e9, why="waiting for every query to commit everything")
    lines = (run / "history.jsonl").read_text().splitlines()
    kept = [line for line in lines if not _is_of(json.loads(line), "page_views", last)]
    (run / "history.jsonl").write_text("\n".join(kept + ([encode(told)] if stalled else [])) + "\n")
    for log in ("offsets", "commits"):
        (run / "checkpoints" / "page_views" / log / str(last)).unlink()
    result = verdict.judge(history.read(run))

    assert {"invented_row"} == {one.kind for one in result.anomalies}
    assert wanted is result.verdict


@pytest.mark.parametrize(
    ("asked", "usable", "of"),
    [(1, 2.0, 1), (2, 2.0, 2), (4, 2.0, 2), (2, 1.5, 1.5), (4, None, 2)],
    ids=["fewer", "all", "more than there are", "more than may be used", "a run that does not tell"],
)
def test_cpu_share_uses_allowed_cores(tmp_path, asked, usable, of):
    """Half a core is used, of a machine with two."""
    run = altered(tmp_path, f"pipeline.cores={asked}", "pipeline.quick_start=false")
    told = json.loads((run / "manifest.json").read_text()) | ({} if usable is None else {"usable_cores": usable})
    (run / "manifest.json").write_text(json.dumps(told))
    [cpu] = [target.value for target in verdict.judge(history.read(run)).targets if target.name == "cpu"]

    assert 0.5 / of == pytest.approx(cpu)


@pytest.mark.parametrize(
    ("sets", "drop", "said"),
    [
        pytest.param(["workload.time_scale=1"], None, "not measured: latency", id="no window closed meanwhile"),
        pytest.param(
            ["workload.time_scale=60"],
            lambda event: event["kind"] == "progress" and event["query"] == "sessions",
            "not measured: state_size",
            id="a query says nothing of its state",
        ),
    ],
)
def test_hidden_target_is_unmeasured(tmp_path, sets, drop, said):
    """What the others show does not stand for it."""
    run = altered(
        tmp_path,
        *sets,
        'judged=["latency", "state_size"]',
        "pipeline.quick_start=false",
        drop=drop or (lambda event: False),
    )

    assert said in verdict.judge(history.read(run)).why


def test_rows_without_checkpoint_accuse_nobody(tmp_path):
    """It is looked for in the wrong place, and the rows may be right."""
    run = altered(tmp_path, drop=lambda event: event["kind"] == "commit" and event["query"] == "sessions")
    shutil.rmtree(run / "checkpoints" / "sessions")
    result = verdict.judge(history.read(run))

    assert (Verdict.UNKNOWN, 0) == (result.verdict, len(result.anomalies))
    assert "no batch of sessions is in its checkpoint" in result.why


@pytest.mark.parametrize("query", ["page_views", "revenue", "conversions", "sessions"])
@pytest.mark.parametrize(
    "key",
    [
        pytest.param(("page-views-0@5",), id="a row that could not be read"),
        pytest.param((None, None, None, None), id="nothing for times"),
        pytest.param((1_767_261_600_000, 1_767_261_660_000, "p", "c"), id="numbers for times"),
    ],
)
def test_unreadable_row_is_invented(tmp_path, query, key):
    """And no reason to end without a verdict."""
    run = altered(tmp_path)
    rows = [
        Row(tuple(json.loads(key)), tuple(json.loads(values)), where, at_s)
        for key, values, where, at_s, _ in history.read(run).rows(query)
    ]
    history.write_rows(run, query, [*rows, Row(key[:2] if query == "sessions" else key, (None,) * 4, "here", 1.0)])
    result = single.judge(run).result

    assert Verdict.FAIL is result.verdict, result.why
    assert ["invented_row"] == [anomaly.kind for anomaly in result.anomalies]


def test_crashed_checker_saw_nothing(tmp_path, monkeypatch):
    """Neither right nor wrong; the trace is kept."""
    run = altered(tmp_path)
    monkeypatch.setattr(timeline, "gather", lambda *args: 1 // 0)
    result = single.judge(run).result

    assert Verdict.UNKNOWN is result.verdict
    assert "a checker crashed, ZeroDivisionError" in result.why
    assert "ZeroDivisionError" in (run / "logs" / "judge.log").read_text()


def test_share_of_rows_is_available():
    """None is more than all."""
    success = Target("success", None, 1, "share of rows", Verdict.UNKNOWN, at_least=True)

    assert success.is_met(1.0)
    assert not replace(success, limit=0.999).is_met(0.999)
