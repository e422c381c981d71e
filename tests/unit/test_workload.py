"""Events are a pure function of seed and index."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.job.clickstream import events as workload
from harness.job.clickstream.events import MALFORMED, TOPICS, Workload
from harness.job.clickstream.records import Rejected, iso, parse
from harness.model import Record


def test_seed_7_bytes_never_change():
    """Every figure ever published rests on them; a change of this sum is a new workload."""
    events = workload.batch(Workload(time_scale=60, malformed=0.01), 7, 5000, 0, 1000)

    assert (
        "7699a545edcb3aeb9e2a6c793cc93161c6be564f6ee0edb46ed47bb9ffa9dd9c"
        == hashlib.sha256(b"\n".join(events.values)).hexdigest()
    )


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**9), st.integers(1, 50), st.integers(1, 50))
def test_batches_compose(seed, first, some, more):
    """It does not matter in which slices the events are made."""
    one = workload.batch(Workload(malformed=0.2), seed, 5000, first, some + more)
    head = workload.batch(Workload(malformed=0.2), seed, 5000, first, some)
    tail = workload.batch(Workload(malformed=0.2), seed, 5000, first + some, more)

    assert one.values == head.values + tail.values
    assert one.keys == head.keys + tail.keys
    assert one.event_time_ms.tolist() == head.event_time_ms.tolist() + tail.event_time_ms.tolist()


@given(st.integers(0, 2**63 - 1), st.floats(0, 3), st.floats(0, 3))
def test_valid_events_meet_the_contract(seed, user_skew, product_skew):
    """And their event time is the one that the journal will hold."""
    shape = Workload(user_skew=round(user_skew, 2), product_skew=round(product_skew, 2), products=12)
    events = workload.batch(shape, seed, 1000, 0, 50)

    for topic, value, ms in zip(events.topic.tolist(), events.values, events.event_time_ms.tolist(), strict=True):
        parsed = parse(Record(TOPICS[topic], 0, 0, value))
        assert not isinstance(parsed, Rejected)
        assert ms == parsed.at_ms


def test_malformed_events_are_rejected():
    """Each kind occurs, and none slips through as valid."""
    events = workload.batch(Workload(malformed=1), 7, 5000, 0, 2000)

    assert set(range(1, len(MALFORMED))) == set(events.malformed.tolist())
    for topic, value in zip(events.topic.tolist(), events.values, strict=True):
        assert isinstance(parse(Record(TOPICS[topic], 0, 0, value)), Rejected), value


@pytest.mark.parametrize(("share", "low", "high"), [(0.8, 0.79, 0.81), (0.0, 0, 0), (1.0, 1, 1)])
def test_the_mix_is_as_asked(share, low, high):
    """80 % clickstream by default; none and all are exact."""
    topics = workload.batch(Workload(clickstream_share=share), 7, 5000, 0, 50_000).topic

    assert low <= (topics == 0).mean() <= high


def test_a_skewed_product_is_hot():
    """Zipf with exponent 2 over five products gives the first 68 %."""
    keys = [
        value.split(b"prod_")[1][:3] for value in workload.batch(Workload(product_skew=2), 7, 5000, 0, 20_000).values
    ]

    assert 0.67 < keys.count(b"001") / len(keys) < 0.70


def test_event_time_runs_by_the_scale():
    """At 60 a second of load is a minute of event time."""
    events = workload.batch(Workload(time_scale=60), 7, 100, 0, 101)

    assert ["2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z"] == [
        iso(int(events.event_time_ms[at])) for at in (0, 100)
    ]


def test_flush_events_are_far_ahead():
    """One a topic, beyond every delay, horizon and gap of the contract."""
    for event in workload.flush(Workload(), 1_000_000):
        assert not isinstance(parse(Record(event.topic, 0, 0, event.value)), Rejected)
        assert event.event_time_ms - 1_000_000 > (5 + 10 + 30 + 30) * 60_000


@pytest.mark.parametrize("start", ["2026-01-01T00:00:00Z", "1969-12-31T23:00:00Z"])
def test_malformed_events_reject_at_any_time(start):
    """By the oracle, which reads the bytes."""
    events = workload.batch(Workload(malformed=1, start=start), 7, 100, 0, 400)

    for topic, value in zip(events.topic, events.values, strict=True):
        assert isinstance(parse(Record(TOPICS[topic], 0, 0, value)), Rejected), value
