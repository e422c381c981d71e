"""What is shown of a wrong row are the events that decide, with their content; equal causes are one group."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from harness.experiments.simulate import simulate
from harness.job.clickstream.events import Workload
from harness.job.clickstream.parts import Part
from harness.judge import anomalies, causes, decisive, explain, findings, timeline
from harness.judge.anomalies import Seen
from harness.model import Anomaly
from harness.rundir import history
from harness.scenario import Load, Scenario

RUN = Scenario(
    name="explained",
    load=Load(eps=150, warm_up_s=0, duration_s=40),
    workload=Workload(time_scale=60, users=40, malformed=0.01, too_late=0.05, duplicates=0.01),
)
MINUTE = 60_000


@pytest.fixture(scope="module")
def gathered(tmp_path_factory):
    """Evidence of a right run of 40 minutes of event time, with late events and copies."""
    directory = tmp_path_factory.mktemp("explained") / "run"
    simulate(directory, RUN)
    return timeline.gather(history.read(directory))


def found(gathered, query, rows, explained=findings.EXPLAINED_MAX):
    """All anomalies of a run whose rows of a query were these (key → measures, or several rows)."""
    answers = timeline.expected(gathered)
    comparisons = findings.compare(gathered, answers)
    at_s = gathered.batches[query][-1].committed_s
    observed = {
        key: tuple(Seen(tuple(map(anomalies.plain, values)), f"{query}-0@0", at_s) for values in some)
        for key, some in ((key, values if isinstance(values, list) else [values]) for key, values in rows.items())
    }
    comparisons[query] = replace(comparisons[query], observed=observed, earliest_s={})
    with mock.patch.object(findings, "EXPLAINED_MAX", explained):
        return findings.find(gathered, answers, comparisons)


def rows_of(gathered, query, keeps):
    """The rows of a query that reads only the events that `keeps` masks."""
    index = gathered.batch_of[query]
    part = replace(gathered, batch_of={query: np.where(keeps, index, -1)}, batches={query: gathered.batches[query]})
    return timeline.expected(part)[query].rows


def right(gathered, query):
    """The expected rows of a query."""
    return dict(timeline.expected(gathered)[query].rows)


def drawn(gathered):
    """Every valid event as columns, and a function that turns a mask over them into one over `sent`."""
    columns = timeline.columns(gathered, np.flatnonzero(gathered.sent["offset"] >= 0))

    def sent(mask):
        whole = np.zeros(len(gathered.sent["n"]), dtype=bool)
        whole[columns.row[mask]] = True
        return whole

    return columns, sent


def test_missing_purchases_are_shown_at_the_cut(gathered):
    """Of a conversions row whose purchases from a moment on are missing: the last that counted, and the first missing."""
    is_purchase = gathered.sent["topic"] == "transactions"
    cut_ms = int(np.median(gathered.sent["event_time_ms"])) // (5 * MINUTE) * 5 * MINUTE
    rows = rows_of(gathered, "conversions", ~is_purchase | (gathered.sent["event_time_ms"] < cut_ms))
    wrong = found(gathered, "conversions", rows, explained=1000)
    of_window = [
        anomaly
        for anomaly in wrong
        if anomaly.kind == "wrong_value" and timeline.epoch_ms(anomaly.key[0]) == cut_ms - 5 * MINUTE
    ]

    assert of_window
    for anomaly in of_window:
        assert f"purchases from {explain.moment(cut_ms)} on are not counted in conversions" == anomaly.cause
        missing = [event for event in anomaly.events if " not counted: " in event]
        assert missing
        assert all(event.startswith("transactions-") and " txn_" in event for event in missing)
        assert all(event.split()[1] >= explain.moment(cut_ms) for event in missing)
        assert anomaly.key[2] in missing[0]
        counted = [event for event in anomaly.events if " counted: " in event and event not in missing]
        assert all(event.split()[1] < explain.moment(cut_ms) for event in counted)


@pytest.mark.parametrize("query", ["page_views", "revenue", "conversions"])
def test_a_missing_user_is_one_cause(gathered, query):
    """All wrong rows are one group, with that name."""
    columns, sent = drawn(gathered)
    code = columns.names["user"].index("user_3")
    wrong = found(gathered, query, rows_of(gathered, query, ~sent(columns.user == code)))
    groups = causes.groups([anomaly for anomaly in wrong if anomaly.kind == "wrong_value"])

    assert len(wrong) > findings.EXPLAINED_MAX
    noun = "clicks" if query == "conversions" else "events"
    assert any(f"{kind} of user_3 are not counted in {query}" == groups[0].cause for kind in {noun, "events"}), groups[
        0
    ].cause
    assert 1 == len(groups)
    assert all(" user_3 " in event for event in groups[0].anomalies[0].events if " not counted: " in event)


@pytest.mark.parametrize("query", ["page_views", "revenue"])
def test_a_batch_that_is_missing_is_named(gathered, query):
    """And its events are those shown."""
    number = len(gathered.batches[query]) // 2
    rows = rows_of(gathered, query, gathered.batch_of[query] != number)
    wrong = [anomaly for anomaly in found(gathered, query, rows) if anomaly.kind == "wrong_value" and anomaly.events]

    cause = f"events of batch {number} are not counted in {query}"
    assert wrong
    assert cause in {anomaly.cause for anomaly in wrong}
    for anomaly in wrong:
        if anomaly.cause == cause:
            missing = [event for event in anomaly.events if " not counted: " in event]
            assert missing
            assert all(f"batch {number} " in event for event in missing)


def test_a_batch_counted_twice_is_named(gathered):
    """Its measures are sums: what is counted twice is added."""
    number = len(gathered.batches["revenue"]) // 2
    mine = rows_of(gathered, "revenue", gathered.batch_of["revenue"] == number)
    rows = right(gathered, "revenue")
    for key in rows.keys() & mine.keys():
        count, total = rows[key][0] + mine[key][0], rows[key][1] + mine[key][1]
        rows[key] = (count, total, (total / count).quantize(mine[key][2]))
    wrong = [anomaly for anomaly in found(gathered, "revenue", rows) if anomaly.events]

    assert f"events of batch {number} are counted twice in revenue" in {anomaly.cause for anomaly in wrong}


def test_one_event_short_has_no_cause(gathered):
    """A hundred users would fit: none of them is accused."""
    rows = right(gathered, "page_views")
    copied = gathered.sent["event_time_ms"][gathered.sent["copy"]] // MINUTE
    key = next(key for key in rows if rows[key][0] > 5 and timeline.epoch_ms(key[0]) // MINUTE not in copied)
    rows[key] = (rows[key][0] - 1, rows[key][1])
    [wrong] = found(gathered, "page_views", rows)

    assert "" == wrong.cause
    assert "No part of its events" in wrong.why


def test_late_events_decide_where_they_are_counted(gathered):
    """They alone are shown as late."""
    rows = dict(timeline.expected(gathered, "never")["page_views"].rows)
    wrong = [anomaly for anomaly in found(gathered, "page_views", rows) if anomaly.kind == "late_counted"]

    assert wrong
    assert {"late events are counted in page_views"} == {anomaly.cause for anomaly in wrong}
    assert all(any(" late: " in event for event in anomaly.events) for anomaly in wrong if anomaly.events)


@pytest.mark.parametrize(
    ("column", "cause"),
    [
        pytest.param(2, "no row of page_views with product_id prod_002 came out", id="of a product"),
        pytest.param(None, "no row of page_views came out", id="of all"),
    ],
)
def test_lost_rows_with_one_trait_are_one_group(gathered, column, cause):
    """Every lost row has the cause, the explained and the others."""
    rows = right(gathered, "page_views")
    left = {key: values for key, values in rows.items() if column is not None and key[column] != "prod_002"}
    wrong = found(gathered, "page_views", left)

    assert [cause] == [group.cause for group in causes.groups(wrong)]
    assert len(rows) - len(left) == len(wrong)


def test_rows_of_one_batch_that_come_twice_are_one_group(gathered):
    """The batch is named."""
    batches = timeline.expected(gathered)["page_views"].batch
    rows = right(gathered, "page_views")
    number = next(batch for batch in batches.values() if list(batches.values()).count(batch) > 1)
    twice = {key: [values] * (1 + (batches[key] == number)) for key, values in rows.items()}
    groups = causes.groups(found(gathered, "page_views", twice))

    assert [f"every row of page_views of batch {number} was written more than once"] == [
        group.cause for group in groups
    ]


def test_a_split_session_shows_both_sides(gathered):
    """The last event of the first part and the first of the second."""
    rows = right(gathered, "sessions")
    key = max(rows, key=lambda key: rows[key][1])
    columns, _ = drawn(gathered)
    times = np.sort(columns.at_ms[columns.click & (columns.session == columns.names["session"].index(key[0]))])
    half = len(times) // 2
    left, from_ms = int(times[half - 1]), int(times[half])
    rows[key] = (explain.moment(left), half, (left - int(times[0])) / 1000, "completed")
    rows[key[0], explain.moment(from_ms)] = (explain.moment(int(times[-1])), 1, 0.0, "completed")
    wrong = next(anomaly for anomaly in found(gathered, "sessions", rows) if anomaly.key == key)

    shown = [event.split()[1] for event in wrong.events]
    assert explain.moment(left) in shown
    assert explain.moment(from_ms) in shown


def test_a_missing_dead_letter_shows_its_record(gathered):
    """The bytes, and why they are rejected."""
    rows = right(gathered, "dead_letter")
    key, (_, reasons) = rows.popitem()
    rows = {key: (value, sorted(why)[0]) for key, (value, why) in rows.items()}
    [wrong] = found(gathered, "dead_letter", rows)

    assert "dead_letter_missing" == wrong.kind
    assert wrong.events[0].startswith(f"{key[0]}-{key[1]}@{key[2]} batch ")
    assert sorted(reasons)[0] in wrong.events[0]


def test_an_altered_dead_letter_shows_its_record(gathered):
    """It has no events that could be missing."""
    rows = {key: (value, sorted(why)[0]) for key, (value, why) in right(gathered, "dead_letter").items()}
    key = next(iter(rows))
    rows[key] = ("00", rows[key][1])
    [wrong] = found(gathered, "dead_letter", rows)

    assert "dead_letter_altered" == wrong.kind
    assert wrong.events[0].startswith(f"{key[0]}-{key[1]}@{key[2]} batch ")


def test_only_shown_events_are_written(gathered, monkeypatch):
    """A wrong run does not cost a record for each event of its rows."""
    written, count = timeline.written, []

    def counted(evidence, rows):
        count.append(len(rows))
        return written(evidence, rows)

    answers = timeline.expected(gathered)
    comparisons = findings.compare(gathered, answers)
    wrong = [
        Anomaly("lost_row", query, key, "", "", "")
        for query, answer in answers.items()
        if comparisons[query].measures and query != "dead_letter"
        for key in list(answer.rows)[:5]
    ]
    plain = (gathered.sent["malformed"] == 0) & ~gathered.sent["flush"]
    monkeypatch.setattr(timeline, "written", counted)
    explain.explain(gathered, wrong, answers, comparisons)

    shown = explain.EVENTS_MAX * len(wrong)
    assert sum(count) <= shown + int((~plain).sum())
    assert shown < int(plain.sum()) / 2


def test_first_lines_show_each_cause(gathered):
    """The first anomaly of each group comes before the second of any."""
    rows = right(gathered, "page_views")
    keys = [key for key in rows if rows[key][0] > 2]
    for key in keys[:3]:
        rows[key] = (rows[key][0] - 1, rows[key][1])
    for key in keys[3:6]:
        rows[key] = [rows[key], rows[key]]
    wrong = found(gathered, "page_views", rows)

    assert len(causes.groups(wrong)) == len(
        {(anomaly.kind, anomaly.cause) for anomaly in wrong[: len(causes.groups(wrong))]}
    )


def test_a_horizon_without_its_end_is_named():
    """The clicks and purchases that are exactly ten minutes apart decide."""
    clicks, purchases = [0, 10, 20, 30], [600_000, 600_010, 600_019, 600_030]
    at_ms = np.array([*clicks, *purchases])
    many = len(at_ms)
    numbers, no = np.arange(many), np.zeros(many, dtype=bool)
    users = np.array([*range(4), *range(4)])
    part = Part("conversions", numbers, numbers < 4, at_ms, users, numbers, numbers * 0, numbers * 0, numbers, no, no)
    [fit] = decisive.chosen([decisive.fitting(part, ~no, ["a", "b", "c", "d"], (4, 1, 0.25), 0)])

    assert "purchases exactly 10:00.000 after the click are not counted in conversions: < stands for <=" == fit.cause
    assert [0, 10, 30, 600_000, 600_010, 600_030] == part.at_ms[fit.decides].tolist()
