"""Figures from a history small enough to be computed by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from harness.engines.spark.offset_log import Batch
from harness.judge import metrics
from harness.judge.metrics import Span
from harness.rundir.events import Progress

T0 = 1_767_261_600.0


def sent(count: int = 10, every_s: float = 1.0) -> dict:
    """Clickstream events one a second from T0, handed over 1 ms and acknowledged 5 ms after they were due."""
    due = ((T0 + np.arange(count) * every_s) * 1e6).astype(np.int64)
    return {
        "n": np.arange(count),
        "topic": np.array(["clickstream"] * count, dtype=object),
        "partition": np.zeros(count, dtype=np.int32),
        "offset": np.arange(count),
        "due_us": due,
        "sent_us": due + 1_000,
        "acked_us": due + 5_000,
        "event_time_ms": (np.arange(count) * 60_000).astype(np.int64),
        "malformed": np.zeros(count, dtype=np.uint8),
        "flush": np.zeros(count, dtype=bool),
    }


def batches(*ends_and_times: tuple[int, float]) -> list[Batch]:
    """Batches by exclusive end and seconds after T0 of their commit."""
    return [Batch(n, {("clickstream", 0): end}, 0, T0 + at) for n, (end, at) in enumerate(ends_and_times)]


WHOLE = Span(T0, T0 + 100)


def test_durable_latency_is_due_to_commit():
    """Event 0 is due at 0 and committed at 2 s; event 3 is due at 3 and committed at 3.5."""
    events, two = sent(4), batches((2, 2.0), (4, 3.5))
    batch = metrics.batch_of("page_views", events, two)

    assert [0, 0, 1, 1] == batch.tolist()
    assert [2000, 1000, 1500, 500] == pytest.approx(
        metrics.durable_latency_ms(events, batch, two, WHOLE).tolist(), abs=0.01
    )


def test_unread_events_are_separate():
    """Acknowledged beyond the last batch, never acknowledged, and another query's topic."""
    events = sent(4)
    events["offset"][3] = -1
    events["topic"][0] = "transactions"

    assert [-1, 0, 1, -1] == metrics.batch_of("page_views", events, batches((2, 1.0))).tolist()


def test_a_negative_latency_is_kept():
    """Clock trouble is shown, never dropped."""
    events, one = sent(1), batches((1, -1.0))
    batch = metrics.batch_of("page_views", events, one)

    assert metrics.percentiles(metrics.durable_latency_ms(events, batch, one, WHOLE))["max"] == -1000


def test_warm_up_ends_by_due_time():
    """Only events due inside the measured part count."""
    assert 3 == len(metrics.ack_latency_ms(sent(10), Span(T0 + 2, T0 + 5)))


def test_emission_delay_starts_at_closing_event():
    """The window that ends at minute 1 can close once the event of minute 6 is acknowledged."""
    key = ("1970-01-01T00:00:00.000Z", "1970-01-01T00:01:00.000Z", "p", "c")

    delay = metrics.emission_delay_ms("page_views", [(key, (1, 1), T0 + 6.505)], sent(10), WHOLE)
    assert [500] == pytest.approx(delay.tolist(), abs=0.01)


def test_throughput_is_slope_of_commits():
    """Two events a second, whatever the size of the batches."""
    events = sent(20, every_s=0.5)
    every = batches(*((2 * n, float(n)) for n in range(1, 11)))
    batch = metrics.batch_of("page_views", events, every)

    assert 1.0 == pytest.approx(metrics.kept_up(events["due_us"] / 1e6, batch, every, WHOLE))


def test_silent_source_keeps_throughput():
    """Twenty events in ten seconds, and none in the next ten; half of each batch left unread is half."""
    events = sent(20, every_s=0.5)
    every = batches(*((min(20, 2 * n), float(n)) for n in range(1, 21)))
    half = batches(*((min(10, n), float(n)) for n in range(1, 21)))

    for found, share in ((every, 1.0), (half, 0.5)):
        batch = metrics.batch_of("page_views", events, found)
        assert share == pytest.approx(metrics.kept_up(events["due_us"] / 1e6, batch, found, WHOLE), rel=0.05)


@pytest.mark.parametrize(
    ("commits", "share"),
    [
        pytest.param([(2 * at, at) for at in range(1, 61)], 1.0, id="a commit a second"),
        pytest.param([(2 * at, at) for at in range(1, 21)], 0.37, id="none after 20 s"),
        pytest.param([(2 * at - 80, at) for at in range(41, 61)], 0.37, id="none before 40 s"),
        pytest.param([], 0.0, id="none"),
    ],
)
def test_edge_stalls_are_seen(commits, share):
    """As one in its middle is: what is committed after the measured part is no excuse, and the lag grows by the rest."""
    events = sent(120, every_s=0.5)
    found = batches(*commits, (120, 63))
    batch, part = metrics.batch_of("page_views", events, found), Span(T0, T0 + 60)

    assert share == pytest.approx(metrics.kept_up(events["due_us"] / 1e6, batch, found, part), abs=0.03)
    lag = metrics.lag_at_commits(events, batch, found, part)
    assert 2 * (1 - share) == pytest.approx(metrics.slope(*lag), abs=0.1)


@pytest.mark.parametrize("commits", [[(2, 1)], [(2, 1), (4, 2)]])
def test_few_commits_give_no_share(commits):
    """A measured part so short could hold them at any moment of a batch: it is not measured, and no pass."""
    events = sent(120, every_s=0.5)
    found = batches(*commits, (120, 63))
    batch, part = metrics.batch_of("page_views", events, found), Span(T0, T0 + 60)

    assert None is metrics.kept_up(events["due_us"] / 1e6, batch, found, part)


def test_fresh_batch_is_no_stall():
    """A commit every 10 s, the next one half a second late: the records of a usual batch are not held against it."""
    events = sent(120, every_s=0.5)
    found = batches(*((int(2 * at), at) for at in (9.5, 19.5, 29.5, 39.5, 49.5)), (120, 63))
    batch, part = metrics.batch_of("page_views", events, found), Span(T0, T0 + 60)

    assert metrics.kept_up(events["due_us"] / 1e6, batch, found, part) > 0.99
    assert metrics.slope(*metrics.lag_at_commits(events, batch, found, part)) < 0.02


def test_no_due_events_give_no_share():
    """A source that was silent from the first commit to the last has offered nothing to keep up with."""
    events = sent(4)
    found = batches(*((4, 10.0 + at) for at in range(5)))
    batch = metrics.batch_of("page_views", events, found)

    assert None is metrics.kept_up(events["due_us"] / 1e6, batch, found, Span(T0 + 10, T0 + 15))


def test_lag_is_acknowledged_minus_committed():
    """At 3.1 s events 0 to 3 are acknowledged, and the first batch has committed two."""
    events, one = sent(10), batches((2, 2.5))
    batch = metrics.batch_of("page_views", events, one)

    assert [2] == metrics.lag_records(events, batch, one, np.array([T0 + 3.1])).tolist()


def test_state_sums_all_operators():
    """The latest figure of each query, added up at each progress."""

    def progress(at, query, *used):
        operators = [{"memoryUsedBytes": size} for size in used]
        return Progress(t=at, query=query, batch=0, progress={"stateOperators": operators})

    times, sums = metrics.state([progress(0, "a", 1, 2), progress(1, "b", 4), progress(2, "a", 5)], "memoryUsedBytes")
    assert ([0, 1, 2], [3, 7, 9]) == (times.tolist(), sums.tolist())


def test_consumed_interpolates_between_samples():
    """CPU seconds at the edges of the measured part, from samples around them."""
    samples = [SimpleNamespace(t=T0 + at, cpu=2.0 * at) for at in (0, 4, 8, 12)]

    assert 12.0 == pytest.approx(metrics.consumed(samples, "cpu", Span(T0 + 3, T0 + 9)))
    assert metrics.consumed(samples, "cpu", Span(T0 + 3, T0 + 30)) is None


def test_nothing_measured_is_none_not_zero():
    """No samples, no percentile."""
    assert metrics.percentiles(np.array([])) is None


@pytest.mark.parametrize(
    ("commits", "struck_s", "healed_s", "lasted", "recovered"),
    [
        pytest.param([*range(1, 11), *range(20, 41)], 10.5, 20.5, (10, 20), 20, id="at once"),
        pytest.param([*range(1, 13), *range(20, 41)], 10.5, 20.5, (12, 20), 20, id="after two more batches"),
        pytest.param([*range(1, 16), *range(20, 41)], 10.5, 14, None, None, id="not the gap after it had healed"),
        pytest.param([*range(1, 11)], 10.5, 12, None, None, id="nothing committed after it"),
        pytest.param([*range(12, 20)], 10.5, 12, None, None, id="nothing committed before it"),
    ],
)
def test_outage_is_the_longest_commit_gap(commits, struck_s, healed_s, lasted, recovered):
    """A fault may bite long after its stroke, as a pipeline that stops in an orderly way does; it commits meanwhile."""
    events = sent(40)
    found = batches(*((at, float(at)) for at in commits))
    outage = metrics.outage(found, T0 + struck_s, T0 + healed_s)
    if lasted is None:
        assert outage is None or outage.end_s - outage.start_s == 1
        return

    assert lasted == (outage.start_s - T0, outage.end_s - T0)
    batch = metrics.batch_of("page_views", events, found)
    back = metrics.recovered_s(events, batch, found, Span(T0, T0 + struck_s), outage, T0 + struck_s, T0 + healed_s)
    assert recovered == pytest.approx(back - T0, abs=0.5)


def test_lasting_lag_is_no_recovery():
    """From the fault on half of what is sent is read."""
    events = sent(60)
    found = batches(*((at, float(at)) for at in range(1, 20)), *((20 + at, 20.0 + 2 * at) for at in range(20)))
    outage = metrics.outage(found, T0 + 19.5, T0 + 25)
    batch = metrics.batch_of("page_views", events, found)

    calm = Span(T0, T0 + 19.5)
    assert None is metrics.recovered_s(events, batch, found, calm, outage, T0 + 19.5, T0 + 25)


def test_ending_load_is_no_recovery():
    """The last event is due at 29 s; what is read until then is 5 s or more behind."""
    events = sent(30)
    found = batches(*((at, float(at)) for at in range(1, 11)), (15, 20.0), (20, 25.0), (25, 30.0), (30, 35.0))
    outage = metrics.outage(found, T0 + 10.5, T0 + 19)
    batch = metrics.batch_of("page_views", events, found)

    assert None is metrics.recovered_s(events, batch, found, Span(T0, T0 + 10.5), outage, T0 + 10.5, T0 + 19)


def test_lag_is_of_the_worst_topic():
    """Acknowledged before the moment, and committed after it or never."""
    sent = {
        "acked_us": np.array([1, 2, 3, 4, 0, 9], dtype=np.int64) * 1_000_000,
        "topic": np.array(["a", "b", "b", "b", "b", "b"], dtype=object),
    }
    batches = [SimpleNamespace(committed_s=one) for one in (2.5, 6.0)]
    batch = np.array([0, 0, 1, 2, 1, 1])

    assert 2 == metrics.behind(sent, batch, batches, 5.0)
    assert 1 == metrics.behind(sent, batch, batches, 7.0)
    assert 0 == metrics.behind(sent, batch, batches, 0.5)


def test_outage_counts_since_last_healing():
    """A gap that began long before it is that one's, and must not hide a longer one of this fault."""
    batches = [SimpleNamespace(committed_s=one) for one in (0.0, 33.0, 43.0)]

    assert Span(33.0, 43.0) == metrics.outage(batches, 31.0, 40.0, since_s=30.0)
    assert Span(31.0, 33.0) == metrics.outage(batches, 31.0, 32.0, since_s=31.0004)
    assert Span(0.0, 33.0) == metrics.outage(batches, 31.0, 40.0)
