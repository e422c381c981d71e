"""Records that were deleted before they were read, or that brokers lost, are lost, and nothing else is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from history_events import healed
from msgspec import structs

from harness import scenario
from harness.experiments import bench
from harness.experiments.simulate import START_S, simulate
from harness.job.clickstream.contract import CLICKSTREAM, QUERIES
from harness.job.clickstream.records import iso, parse
from harness.judge import timeline, verdict
from harness.judge.timeline import Evidence
from harness.model import Result, Row, Verdict
from harness.rundir import history
from harness.rundir.events import Commit, Deleted, Process, encode
from harness.rundir.history import Run
from harness.scenario import Fault

EXPIRED_S = 20.25
READERS = [name for name, query in QUERIES.items() if CLICKSTREAM in query.reads]


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> tuple[Run, Result]:
    """A run whose clickstream lost one of its partitions' records once, as it is judged."""
    directory = tmp_path_factory.mktemp("expired") / "run"
    simulate(directory, scenario.load("late", ["load.eps=600", "workload.malformed=0.02"]), expired_s=EXPIRED_S)
    run = history.read(directory)
    return run, verdict.judge(run)


def gaps(run: Run) -> dict[str, int]:
    """Where the partition begins after the deletion − how far each query had read it before."""
    [deletion] = run.of(Deleted)
    found = timeline.gather(run).batches
    return {
        query: deletion.before_offset
        - max(one.ends[CLICKSTREAM, 0] for one in found[query] if one.committed_s <= START_S + EXPIRED_S)
        for query in READERS
    }


def test_deleted_records_are_only_lost(judged):
    """Rows, watermarks, dropped rows and state follow from what was read."""
    _, result = judged

    assert Verdict.FAIL is result.verdict
    assert {"record_lost"} == {one.kind for one in result.anomalies}
    assert "fail" == next(one.verdict.value for one in result.targets if one.name == "success")


def test_each_query_loses_unread_records(judged):
    """The number of records, for each query its own, and which they are."""
    run, result = judged
    expected = gaps(run)

    assert len(set(expected.values())) > 1
    assert all(count > 0 for count in expected.values())
    assert expected == Counter(one.query for one in result.anomalies)
    for query, count in expected.items():
        said = f"one of {count} acknowledged records deleted from the topic before {query} had read them"
        assert {said} == {one.why.split(". ")[0] for one in result.anomalies if one.query == query}


def test_deleted_malformed_records_are_lost(judged):
    """It expects none of them, and none is invented where a first attempt at its batch had written it already."""
    run, _ = judged
    gathered = timeline.gather(run)
    unread = gathered.batch_of["dead_letter"] == len(gathered.batches["dead_letter"])
    bad = unread & (gathered.sent["malformed"] != 0)
    answer = timeline.expected(gathered)["dead_letter"]
    deleted = {(CLICKSTREAM, 0, at) for at in gathered.sent["offset"][bad].tolist()}

    assert bad.any()
    assert not deleted & answer.rows.keys()
    assert deleted == answer.optional.keys()


def test_deleting_read_records_loses_nothing(tmp_path):
    """Long after the last batch."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=60"]), expired_s=10_000)
    gathered = timeline.gather(history.read(tmp_path / "run"))

    assert not any(np.any(index == len(gathered.batches[query])) for query, index in gathered.batch_of.items())


def test_replayed_batch_skips_deleted_records(judged, tmp_path):
    """Begun before the deletion, and run after it by another process."""
    run, _ = judged
    gathered = timeline.gather(run)
    [deletion] = run.of(Deleted)
    before = int((gathered.batch_of["page_views"] == len(gathered.batches["page_views"])).sum())
    last = max(one.number for one in gathered.batches["page_views"] if one.committed_s <= deletion.at_s)
    began_s = gathered.batches["page_views"][last].committed_s - 0.3
    start = Process(t=began_s + 0.2, event="start")
    earlier = structs.replace(deletion, at_s=began_s + 0.1)
    events = [
        structs.replace(event, begun_s=began_s)
        if isinstance(event, Commit) and (event.query, event.batch) == ("page_views", last)
        else event
        for event in run.events
        if not isinstance(event, Deleted)
    ]
    again = timeline.gather(Run(run.directory, run.scenario, run.manifest, (*events, start, earlier)))

    assert int((again.batch_of["page_views"] == len(again.batches["page_views"])).sum()) > before


def test_overwritten_offset_is_broker_loss(tmp_path):
    """It was acknowledged first: the one that came later has its place in the log, and its rows."""
    simulate(tmp_path, scenario.load("late", ["load.eps=600"]))
    sent = pq.read_table(tmp_path / "sent.parquet")
    [row] = sent.filter(pc.equal(sent["topic"], CLICKSTREAM)).slice(1000, 1).to_pylist()
    lost = row | {"n": 10_000_000, "acked_us": row["acked_us"] - 1}
    pq.write_table(pa.concat_tables([sent, pa.Table.from_pylist([lost], sent.schema)]), tmp_path / "sent.parquet")
    result = verdict.judge(history.read(tmp_path))

    key = (CLICKSTREAM, row["partition"], row["offset"])
    assert {("record_lost", query, key) for query in READERS} == {
        (one.kind, one.query, one.key) for one in result.anomalies
    }
    assert {"one of 1 acknowledged records that brokers lost: another has its offset now"} == {
        one.why.split(". ")[0] for one in result.anomalies
    }


def test_unknown_record_excuses_rows(tmp_path):
    """A retry may have written it: the rows look wrong, and the run is unknown."""
    simulate(tmp_path, scenario.load("late", ["load.eps=600"]))
    sent = pq.read_table(tmp_path / "sent.parquet")
    pq.write_table(pa.concat_tables([sent.slice(0, 5000), sent.slice(5001)]), tmp_path / "sent.parquet")
    result = verdict.judge(history.read(tmp_path))

    assert result.anomalies
    assert 1 == result.counts["unclaimed"]
    assert Verdict.UNKNOWN is result.verdict


AWAY_S = 20.0
"""Twenty minutes of event time."""


def consumed(gathered: Evidence, back_s: float) -> tuple[list[Row], int]:
    """Page views of a pipeline that is back at `back_s`, reads what came before partition by partition, and then as it
    comes; and how many events it drops, none of them less than the delay behind."""
    clicks = [(at, parse(one)) for at, one in timeline.records(gathered) if one.topic == CLICKSTREAM]
    sent = gathered.sent
    before_us = (back_s - AWAY_S) * 1e6, back_s * 1e6
    turn = np.searchsorted(before_us, sent["acked_us"], side="right")
    clicks.sort(
        key=lambda one: (turn[one[0]], turn[one[0]] == 1 and sent["partition"][one[0]], sent["acked_us"][one[0]])
    )
    newest, dropped = 0, 0
    open_: defaultdict[tuple[int, str, str], list[str]] = defaultdict(list)
    done = {}
    for _, click in clicks:
        start = click.at_ms // 60_000 * 60_000
        if start + 60_000 > newest - 300_000:
            open_[start, click.product, click.category].append(click.user)
        else:
            dropped += 1
        newest = max(newest, click.at_ms)
        done |= {key: open_.pop(key) for key in [key for key in open_ if key[0] + 60_000 <= newest - 300_000]}
    rows = [
        Row((iso(start), iso(start + 60_000), *of), (len(users), len(set(users))), "page-views-0@0", 2e9)
        for (start, *of), users in done.items()
    ]
    return rows, dropped


@pytest.mark.parametrize(
    ("happened", "back_s", "wanted"),
    [
        pytest.param(Process(t=START_S + AWAY_S, event="ready"), AWAY_S, Verdict.PASS, id="it starts late"),
        pytest.param(
            healed(START_S + 10, START_S + 10 + AWAY_S), 10 + AWAY_S, Verdict.PASS, id="a fault keeps it away"
        ),
        pytest.param(None, AWAY_S, Verdict.FAIL, id="it stays away by itself"),
        pytest.param(
            healed(START_S + 10, START_S + 10 + AWAY_S, Fault(kind="latency", on="leader", at=1)),
            10 + AWAY_S,
            Verdict.FAIL,
            id="a fault that it reads through",
        ),
    ],
)
def test_harness_backlog_has_no_order(tmp_path, happened, back_s, wanted):
    """Of a black box: events that wait may be twenty minutes late when they are read, though it reads at once."""
    sets = ["load.eps=100", "load.warm_up_s=5", "load.duration_s=50", "workload.late=0", "workload.too_late=0"]
    sets += ["workload.malformed=0", "proves=[]", 'judged=["success"]', 'pipeline.queries=["page_views"]']
    simulate(tmp_path, scenario.load("late", sets))
    path = tmp_path / "scenario.toml"
    path.write_text(path.read_text().replace('checkpoint = "{checkpoint}/{query}"', 'checkpoint = ""'))
    if happened:
        with (tmp_path / "history.jsonl").open("a") as file:
            file.write(encode(happened) + "\n")
    rows, dropped = consumed(timeline.gather(history.read(tmp_path)), START_S + back_s)
    history.write_rows(tmp_path, "page_views", rows)
    result = verdict.judge(history.read(tmp_path))

    assert dropped > 100
    assert wanted is result.verdict, result.why


@pytest.mark.parametrize(("form", "sure"), [("linear", [True, True, False]), ("join", [True, False, False])])
def test_exact_delay_counts_except_joins(tmp_path, form, sure):
    """There Spark takes an event for late that the watermark has just reached; a millisecond less, and it counts."""
    simulate(tmp_path, scenario.load("late", ["load.eps=60", f"pipeline.conversions={form}"]))
    path = tmp_path / "scenario.toml"
    path.write_text(path.read_text().replace('checkpoint = "{checkpoint}/{query}"', 'checkpoint = ""'))
    gathered = timeline.gather(history.read(tmp_path))
    newest = 10**12
    times = np.array([newest, newest - 299_999, newest - 300_000, newest - 300_001])
    sent = {
        "event_time_ms": times,
        "acked_us": np.full(4, 10**15),
        "offset": np.arange(4),
        "malformed": np.zeros(4, dtype=np.int64),
    }

    assert [True, *sure] == timeline._surely_counts(replace(gathered, sent=sent)).tolist()


@pytest.mark.parametrize("events", [bench.REFERENCE_EVENTS, 5_000_000])
def test_timed_events_match_the_count(events):
    """Warm-up and cool-down are the scenario's own, and are judged too."""
    assert events == bench.chosen(events).load.events


def test_too_few_timed_events_refused(monkeypatch, capsys):
    """One line, as of a wrong flag."""
    monkeypatch.setattr("sys.argv", ["bench", "--events", "1000"])
    with pytest.raises(SystemExit) as ended:
        bench.main()

    assert 2 == ended.value.code
    assert "--events 1,000: " in capsys.readouterr().err
