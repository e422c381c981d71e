"""Records as a pure function of seed, topic, field and number."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import numpy as np
import pytest

from harness.job import draws
from harness.job.declared import Job
from harness.job.draws import Records, Workload

MINUTE = 60_000
JOB = msgspec.convert(
    {
        "pipeline": {"command": ["job"]},
        "topic": [
            {
                "name": "orders",
                "share": 3,
                "key": "customer",
                "time": "ordered_at",
                "fields": {
                    "order_id": {"sequence": "ord_{:06d}"},
                    "id": {"uuid": True},
                    "customer": {"of": 50, "name": "c{}", "zipf": 1.2},
                    "currency": {"choice": ["EUR", "USD"], "weights": [9, 1]},
                    "amount": {"decimal": [-1, 500], "places": 3},
                    "pieces": {"integer": [-2, 3], "null": 0.5},
                    "note": {"text": 4},
                    "gift": {"bool": 0.25},
                    "ordered_at": {"time": "iso"},
                },
            },
            {
                "name": "payments",
                "share": 1,
                "time": "paid_at",
                "fields": {
                    "order_id": {"from": "orders.order_id", "within": "10 minutes", "missing": 0.1},
                    "paid_at": {"time": "s"},
                },
            },
        ],
        "query": [
            {"name": "q", "reads": {"orders": "10 minutes"}, "sink": {"kafka": "q"}},
            {"name": "p", "reads": {"payments": "10 minutes"}, "sink": {"kafka": "p"}},
        ],
    },
    Job,
)
BUSY = Workload(late=0.2, too_late=0.1, disorder_s=30, duplicates=0.2, edges=0.2, edge="5 minutes")


def records(workload: Workload = BUSY, seed: int = 7, eps: float = 4.0) -> Records:
    """Those of the job, three orders and one payment a second."""
    return Records(JOB, workload, seed, eps)


def values(drawn: draws.Drawn, topic: str = "orders") -> list[bytes]:
    """Their bytes."""
    return draws.written(JOB.topic(topic), drawn)[1]


def test_a_record_is_fixed_for_ever():
    """The bytes of a record; a change here changes what every seed means."""
    keys, [value] = draws.written(JOB.topic("orders"), records().draw("orders", np.array([5])))
    assert [b"c0"] == keys
    assert value == (
        b'{"order_id":"ord_000005","id":"e63fbea7-1222-42f3-b075-48feffa33ee8","customer":"c0","currency":"EUR",'
        b'"amount":203.910,"pieces":null,"note":"ufrz","gift":false,"ordered_at":"2025-12-31T23:56:15.595Z"}'
    )


@pytest.mark.parametrize("topic", ["orders", "payments"])
def test_a_record_depends_on_its_number_alone(topic):
    """Drawn alone, or among others in another order."""
    together = values(records().draw(topic, np.arange(60)), topic)
    alone = [values(records().draw(topic, np.array([number])), topic)[0] for number in range(60)]
    assert alone == together
    assert together[::-1] == values(records().draw(topic, np.arange(60)[::-1]), topic)
    assert together != values(records(seed=8).draw(topic, np.arange(60)), topic)


def test_bytes_are_the_columns():
    """What a consumer parses is what the oracle computes with, digit by digit."""
    drawn = records().draw("orders", np.arange(200))
    rows = [json.loads(value, parse_float=Decimal) for value in values(drawn)]
    for name in ("order_id", "id", "customer", "currency", "pieces", "note", "gift"):
        assert [row[name] for row in rows] == drawn.fields[name].to_pylist()
    assert [str(row["amount"]) for row in rows] == [str(amount) for amount in drawn.fields["amount"].to_pylist()]
    times = [np.datetime64(row["ordered_at"].rstrip("Z"), "ms").astype(int) for row in rows]
    assert times == drawn.at_ms.tolist()
    assert [at * 1000 for at in times] == drawn.fields["ordered_at"].cast("int64").to_pylist()


def test_a_time_in_seconds_is_the_column_too():
    """What the record does not have, its relation does not have."""
    drawn = records().draw("payments", np.arange(200))
    times = [json.loads(value)["paid_at"] for value in values(drawn, "payments")]
    assert [at * 1_000_000 for at in times] == drawn.fields["paid_at"].cast("int64").to_pylist()
    assert [at * 1000 for at in times] == drawn.at_ms.tolist()


def test_topics_share_the_load():
    """Events in the order in which they are due, each number of a topic once."""
    topic, number = records().order(400)
    assert 300 == (topic == 0).sum()
    for index in (0, 1):
        assert list(range((topic == index).sum())) == number[topic == index].tolist()


def test_a_payment_refers_to_an_earlier_order():
    """Of at most ten minutes before it in event time; the rest of them to orders that never come."""
    calm = records(Workload(time_scale=60.0))
    orders = calm.draw("orders", np.arange(3000))
    at = dict(zip(orders.fields["order_id"].to_pylist(), orders.at_ms.tolist(), strict=True))
    payments = calm.draw("payments", np.arange(900))
    ages = [
        paid - at[order]
        for order, paid in zip(payments.fields["order_id"].to_pylist(), payments.at_ms.tolist(), strict=True)
        if order in at
    ]
    assert 0.8 < len(ages) / 900 < 0.95
    assert 0 <= min(ages)
    assert 8 * MINUTE < max(ages) <= 10 * MINUTE + 1000


def test_the_workload_shapes_event_times():
    """The shares of late, too late, copied and at an edge; and a calm one has none of them."""
    numbers = np.arange(20_000)
    place = records(Workload()).draw("orders", numbers).at_ms
    back = place - records(Workload(late=0.2, too_late=0.1)).draw("orders", numbers).at_ms
    assert abs((back > 0).mean() - 0.3) < 0.02
    assert abs((back >= 20 * MINUTE).mean() - 0.1) < 0.02
    assert back.max() <= 60 * MINUTE
    assert abs(records(Workload(duplicates=0.2)).draw("orders", numbers).copy.mean() - 0.2) < 0.02
    edge = records(Workload(edges=0.3, edge="1 hour")).draw("orders", numbers).at_ms % (60 * MINUTE)
    assert {0, 1, 60 * MINUTE - 1} <= set(edge.tolist())


def test_a_copy_has_the_bytes_of_another():
    """Of one of the fifty before it."""
    drawn = records(Workload(duplicates=0.3)).draw("orders", np.arange(300))
    written = values(drawn)
    copies = np.flatnonzero(drawn.copy)
    assert len(copies)
    assert all(written[at].split(b",")[0] != b'{"order_id":"ord_%06d"' % at for at in copies)


def test_the_flush_record_closes_all():
    """It has the event time that it is asked for."""
    [value] = values(records().flush("orders", 1_767_261_600_000))
    assert "2026-01-01T10:00:00.000Z" == json.loads(value)["ordered_at"]
