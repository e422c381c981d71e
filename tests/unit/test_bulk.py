"""The bulk oracle held equal to the reference on hard histories: rows, batches, drops, and what is still open."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import scenario
from harness.experiments.simulate import simulate
from harness.job.clickstream import bulk
from harness.job.clickstream import events as workload
from harness.job.clickstream.events import Workload
from harness.job.clickstream.records import Click, Purchase, parse
from harness.job.clickstream.reference import Reference, Rules
from harness.job.lateness import Watermarks
from harness.judge import timeline
from harness.model import Record
from harness.rundir import history

MINUTE = 60_000
T0 = 1_767_261_600_000
EDGES = (0, 1, MINUTE - 1, 5 * MINUTE, 10 * MINUTE, 10 * MINUTE + 1, 15 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1)
QUERIES = ("page_views", "revenue", "conversions", "sessions")

times = st.builds(
    lambda minutes, edge, sign: T0 + minutes * MINUTE + sign * edge,
    st.integers(0, 120),
    st.sampled_from(EDGES),
    st.sampled_from((1, -1)),
)
events = st.lists(
    st.tuples(st.booleans(), times, st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(-1, 6)),
    max_size=25,
)
marks = st.lists(st.integers(0, 150), min_size=1, max_size=6).map(
    lambda minutes: tuple(sorted(T0 + minute * MINUTE for minute in minutes))
)


@settings(max_examples=40)
@given(events, marks, st.sampled_from(("linear", "join")), st.sampled_from(("previous", "own", "never")))
def test_bulk_equals_the_reference(history, at, form, lateness):
    """Whatever is late, equal, on an edge, in a batch that comes too late for its session, or never read."""
    marks = dict.fromkeys(QUERIES, Watermarks(at, lateness))
    reference = Reference(marks, Rules(conversions=form))
    for click, at_ms, user, session, product, batch in history:
        if 0 <= batch < len(at):
            names = (f"u{user}", f"s{session}", f"p{product}", f"c{product}")
            event = (
                Click("e", at_ms, *names) if click else Purchase("t", at_ms, *names[:1], *names[2:], Decimal("1.25"))
            )
            topic = "clickstream" if click else "transactions"
            reads = ("page_views", "conversions", "sessions") if click else ("revenue", "conversions")
            reference.add(Record(topic, user, 0, b""), event, dict.fromkeys(reads, batch))
    click, at_ms, user, session, product, batch = (np.array(column) for column in zip(*history)) if history else [np.array([], dtype=np.int64)] * 6  # fmt: skip  # noqa: B905
    columns = bulk.Columns(
        click=click.astype(bool),
        partition=user,
        at_ms=at_ms,
        user=user,
        session=session,
        product=product,
        category=product,
        cents=np.full(len(history), 125),
        batch=dict.fromkeys(QUERIES, batch),
        names={"session": ["s0", "s1"], "product": ["p0", "p1"], "category": ["c0", "c1"]},
    )

    found = bulk.expected(columns, marks, form)
    wanted = reference.expected()
    for query in QUERIES:
        assert wanted[query] == found[query], query


@settings(max_examples=30)
@given(
    st.integers(0, 2**60),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0.0, 3.0)),
    st.sampled_from((0.0, 0.5)),
)
def test_drawn_events_equal_written_events(seed, first, session_gaps, exact_horizon, disorder_s, odd_clocks):
    """A valid event's bytes, read by the contract, are its columns; a malformed one is rejected.

    Of one in an odd form the columns give topic, time and key alone.
    """
    shape = Workload(
        malformed=0.3, duplicates=0.1, session_gaps=session_gaps, exact_horizon=exact_horizon, disorder_s=disorder_s,
        odd_clocks=odd_clocks, late=0.1, too_late=0.1,
    )  # fmt: skip
    drawn = workload.draw(shape, seed, 100, np.arange(first, first + 160, dtype=np.uint64))
    written = workload.written(shape, drawn)
    (products, categories), names = workload.products(shape), workload.users(shape)
    cents = drawn.cents(shape)
    for at, value in enumerate(written.values):
        topic = workload.TOPICS[drawn.topic[at]]
        event = parse(Record(topic, 0, 0, value))
        assert bool(drawn.malformed[at]) == (not isinstance(event, Click | Purchase))
        product = int(drawn.product[at])
        if not drawn.malformed[at]:
            assert (event.at_ms, event.user) == (drawn.event_time_ms[at], written.keys[at].decode())
        if drawn.is_form[at]:
            continue
        common = (names[drawn.user[at]], products[product], categories[product], drawn.event_time_ms[at])
        if isinstance(event, Click):
            assert (*common, workload.session(shape, int(drawn.owner[at]), int(drawn.period[at]))) == (
                event.user, event.product, event.category, event.at_ms, event.session
            )  # fmt: skip
        elif isinstance(event, Purchase):
            assert (*common, cents[at]) == (event.user, event.product, event.category, event.at_ms, event.amount * 100)


@pytest.mark.parametrize(("form", "start"), [("linear", "2026-01-01T00:00:00Z"), ("join", "1970-01-02T23:30:00Z")])
def test_whole_run_matches_the_reference(tmp_path, form, start):
    """From the run directory, rejected records and flush events included, and near the first event time of the contract too."""
    chosen = scenario.load(
        "late",
        [
            "load.eps=50",
            "workload.malformed=0.05",
            "workload.too_late=0.2",
            f'pipeline.conversions="{form}"',
            f'workload.start="{start}"',
        ],
    )
    simulate(tmp_path / "run", chosen)
    gathered = timeline.gather(history.read(tmp_path / "run"))

    assert timeline.by_reference(gathered) == timeline.expected(gathered)
