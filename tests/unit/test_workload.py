"""Events are a pure function of seed and index."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.job.clickstream import awkward
from harness.job.clickstream import events as workload
from harness.job.clickstream.events import MALFORMED, TOPICS, Workload
from harness.job.clickstream.records import Rejected, iso, parse
from harness.job.clickstream.spoiled import SPOILED
from harness.model import Record


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.0, 1000, "7699a545edcb3aeb9e2a6c793cc93161c6be564f6ee0edb46ed47bb9ffa9dd9c"),
        (0.1, 40_000, "ee2d33a5b1b5d6ef6be5177ff2bc01733747267691a46263f564e2e1aad2a4dd"),
    ],
)
def test_seed_7_bytes_never_change(share, count, expected):
    """Every figure ever published rests on them; a change of a sum is a new format of the events. The first is format 1's."""
    shape = Workload(time_scale=60, malformed=0.01, awkward=share)
    events = workload.batch(shape, 7, 5000, 0, count)

    assert expected == hashlib.sha256(b"\n".join(events.values)).hexdigest()


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


@pytest.mark.parametrize(("share", "kinds"), [(0.0, len(MALFORMED) - 1), (0.1, len(SPOILED))])
def test_malformed_events_are_rejected(share, kinds):
    """Each kind occurs, and none slips through as valid."""
    events = workload.batch(Workload(malformed=1, awkward=share), 7, 5000, 0, 2000)

    assert set(range(1, kinds + 1)) == set(events.malformed.tolist())
    for topic, value in zip(events.topic.tolist(), events.values, strict=True):
        assert isinstance(parse(Record(TOPICS[topic], 0, 0, value)), Rejected), value


def test_few_malformed_events_have_every_kind():
    """A hundredth of 20,000 events is enough: kinds come in turn, at even distances."""
    events = workload.batch(Workload(malformed=0.01), 7, 5000, 0, 20_000)

    assert set(range(len(SPOILED) + 1)) == set(events.malformed.tolist())


def test_awkward_events_show_every_role():
    """Each scene and each form occurs among 40,000 events, as valid as the contract has it, and a tenth is awkward at most."""
    shape = Workload(time_scale=60)
    drawn = workload.draw(shape, 7, 5000, np.arange(40_000, dtype=np.uint64))

    seen = set(drawn.role.tolist())
    assert [] == [role for at, role in enumerate(awkward.ROLES) if at not in seen and not role.copy]
    assert 0.08 < (drawn.role > 0).mean() <= awkward.SHARE_MAX


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_awkward_events_keep_to_one_topic(share):
    """Where the mix is all clicks, or all purchases, none is of the other topic."""
    events = workload.batch(Workload(clickstream_share=share, malformed=0.1), 7, 1000, 0, 20_000)
    assert {int(share == 0)} == set(events.topic.tolist())


@pytest.mark.parametrize(("share", "low", "high"), [(0.8, 0.79, 0.81), (0.0, 0, 0), (1.0, 1, 1)])
def test_the_mix_is_as_asked(share, low, high):
    """80 % clickstream by default; none and all are exact."""
    topics = workload.batch(Workload(clickstream_share=share), 7, 5000, 0, 50_000).topic

    assert low <= (topics == 0).mean() <= high


def test_a_skewed_product_is_hot():
    """Zipf with exponent 2 over five products gives the first 68 %."""
    shape = Workload(product_skew=2, awkward=0)
    keys = [value.split(b"prod_")[1][:3] for value in workload.batch(shape, 7, 5000, 0, 20_000).values]

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
