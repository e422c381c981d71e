"""Records that were deleted before they were read, or that brokers lost, are lost, and nothing else is wrong."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from harness import bench, evidence, history, scenario, verdict
from harness.history import Run
from harness.model import Result, Verdict
from harness.simulate import START_S, simulate
from pipeline.schema import CLICKSTREAM, QUERIES

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
    [deletion] = run.of_kind("deleted")
    found = evidence.gather(run).batches
    return {
        query: deletion["before_offset"]
        - max(one.ends[CLICKSTREAM, 0] for one in found[query] if one.committed_s <= START_S + EXPIRED_S)
        for query in READERS
    }


def test_deleted_records_are_lost_and_nothing_else_is_wrong(judged):
    """Rows, watermarks, dropped rows and state follow from what was read."""
    _, result = judged

    assert Verdict.FAIL is result.verdict
    assert {"record_lost"} == {one.kind for one in result.anomalies}
    assert "fail" == next(one.verdict.value for one in result.targets if one.name == "success")


def test_each_query_has_lost_what_it_had_not_read(judged):
    """The number of records, for each query its own, and which they are."""
    run, result = judged
    expected = gaps(run)

    assert len(set(expected.values())) > 1
    assert all(count > 0 for count in expected.values())
    assert expected == Counter(one.query for one in result.anomalies)
    for query, count in expected.items():
        said = f"one of {count} acknowledged records deleted from the topic before {query} had read them"
        assert {said} == {one.why.split(". ")[0] for one in result.anomalies if one.query == query}


def test_malformed_records_are_lost_to_the_dead_letter_too(judged):
    """It expects none of them, and none is invented where a first attempt at its batch had written it already."""
    run, _ = judged
    gathered = evidence.gather(run)
    unread = gathered.batch_of["dead_letter"] == len(gathered.batches["dead_letter"])
    bad = unread & (gathered.sent["malformed"] != 0)
    answer = evidence.expected(gathered)["dead_letter"]
    deleted = {(CLICKSTREAM, 0, at) for at in gathered.sent["offset"][bad].tolist()}

    assert bad.any()
    assert not deleted & answer.rows.keys()
    assert deleted == answer.optional.keys()


def test_what_is_deleted_once_it_was_read_is_no_loss(tmp_path):
    """Long after the last batch."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=60"]), expired_s=10_000)
    gathered = evidence.gather(history.read(tmp_path / "run"))

    assert not any(np.any(index == len(gathered.batches[query])) for query, index in gathered.batch_of.items())


def test_a_batch_that_is_run_again_does_not_read_what_was_deleted_before(judged, tmp_path):
    """Begun before the deletion, and run after it by another process."""
    run, _ = judged
    gathered = evidence.gather(run)
    [deletion] = run.of_kind("deleted")
    before = int((gathered.batch_of["page_views"] == len(gathered.batches["page_views"])).sum())
    last = max(one.number for one in gathered.batches["page_views"] if one.committed_s <= deletion["at_s"])
    began_s = gathered.batches["page_views"][last].committed_s - 0.3
    start = {"t": began_s + 0.2, "kind": "process", "name": "pipeline", "event": "start"}
    earlier = {**deletion, "at_s": began_s + 0.1}
    events = [
        {**one, "begun_s": began_s}
        if (one["kind"], one.get("query"), one.get("batch")) == ("commit", "page_views", last)
        else one
        for one in run.events
        if one["kind"] != "deleted"
    ]
    again = evidence.gather(Run(run.directory, run.scenario, run.manifest, (*events, start, earlier)))

    assert int((again.batch_of["page_views"] == len(again.batches["page_views"])).sum()) > before


def test_a_record_whose_offset_another_has_was_lost_by_brokers(tmp_path):
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


def test_rows_are_not_held_against_a_pipeline_that_read_a_record_nobody_knows_of(tmp_path):
    """A retry may have written it: the rows look wrong, and the run is unknown."""
    simulate(tmp_path, scenario.load("late", ["load.eps=600"]))
    sent = pq.read_table(tmp_path / "sent.parquet")
    pq.write_table(pa.concat_tables([sent.slice(0, 5000), sent.slice(5001)]), tmp_path / "sent.parquet")
    result = verdict.judge(history.read(tmp_path))

    assert result.anomalies
    assert 1 == result.counts["unclaimed"]
    assert Verdict.UNKNOWN is result.verdict


@pytest.mark.parametrize("events", [bench.REFERENCE_EVENTS, 5_000_000])
def test_what_is_timed_is_as_many_events_as_is_said(events):
    """Warm-up and cool-down are the scenario's own, and are judged too."""
    assert events == bench.chosen(events).load.events


def test_too_few_events_to_be_timed_are_bad_usage(monkeypatch, capsys):
    """One line, as of a wrong flag."""
    monkeypatch.setattr("sys.argv", ["bench", "--events", "1000"])
    with pytest.raises(SystemExit) as ended:
        bench.main()

    assert 2 == ended.value.code
    assert "--events 1,000: " in capsys.readouterr().err
