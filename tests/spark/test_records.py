"""Which records are valid: the pipeline and the oracle, each written from the contract, agree on every one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pyspark.sql import functions as F

from harness.job.clickstream import events as workload
from harness.job.clickstream.events import TOPICS, Workload
from harness.job.clickstream.records import Click, Purchase, Rejected, parse
from harness.model import Record
from pipeline import transforms
from pipeline.schema import CLICKSTREAM, INPUT, TRANSACTIONS

pytestmark = pytest.mark.spark

CLICK = json.loads(workload.batch(Workload(clickstream_share=1.0), 7, 100, 0, 1).values[0])
BUY = json.loads(workload.batch(Workload(clickstream_share=0.0), 7, 100, 0, 1).values[0])
ODD_VALUES = (None, 5, 1.5, True, [], {}, "", "x", '"', "é", "\u0000")
ODD_AMOUNTS = [
    "1",
    "1.0",
    "1.00",
    "1.000",
    "1.005",
    "-1",
    "-0.01",
    "-0",
    "0",
    "1e2",
    "1E-2",
    "1e-3",
    "9999999999.99",
    "10000000000",
    "1e400",
    "NaN",
    "Infinity",
    "01",
    "1.",
    ".5",
    '"1.00"',
    "12345678901234567890123",
    "0.1",
    "1.10000000000000000000000000000001",
    "1e-30",
    "-1e-30",
    "0e-30",
    "0e30",
    "12.5e-19",
    "12345678e-30",
    "1e400000000",
    "-1e-400000000",
    "0e400000000",
    "1e99999999999999999999",
    "0e99999999999999999999",
    "1.00000000000000001e0",
    "0." + "0" * 330 + "1",
    "0." + "0" * 400 + "7E3",
    "1" + "0" * 81 + "e-500",
    "0." + "0" * 330 + "e-5",
    "1234567890.1234e0",
    "1." + "0" * 999,
    "1." + "0" * 1000,
    "9" * 1000,
    "9" * 1001,
]
ODD_QUANTITIES = [
    "1",
    "1.0",
    "0",
    "-1",
    "2147483647",
    "2147483648",
    "-2147483649",
    "99999999999999999999",
    "1e0",
    '"1"',
    "true",
]
ENDLESS = ("1e100000000", "-1e-100000000", "1" * 1000)
"""Numbers instead of text; written out, the first two would take hours."""
ODD_TIMES = (
    "2026-01-01",
    "2026-01-01T10:00:00",
    "2026-01-01 10:00:00",
    "2026-01-01T10:00:00.1Z",
    "2026-01-01T10:00:00.123456789Z",
    "2026-01-01T10:00:00+02:00",
    "2026-01-01T10:00:00+0200",
    "2026-02-30T10:00:00Z",
    "2026-01-01T25:00:00Z",
    "2026-01-01T23:59:60Z",
    "10:00",
    "now",
    "1767225600000",
    "2026-01-01T10:00Z",
    "2026-01-01T10:00:00Z\n",
    "2026-01-01T10:00:00+18:00",
    "2026-01-01T10:00:00+18:01",
    "2026-01-01T10:00:00-19:00",
    "2026-01-01T10:00:00+01:60",
    "2026-01-01T10:00:00.٣Z",
    "2026-01-01T24:00:00Z",
    "0000-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00.000Z",
    "1970-01-01T00:00:00.001Z",
    "2261-12-31T23:59:59.999Z",
    "2262-01-01T00:00:00.000Z",
    "9999-12-31T23:59:59-18:00",
)


def altered(base: dict) -> list[bytes]:
    """Every field with every odd value, every field missing, extra fields, and damaged JSON."""
    values = [json.dumps(base | {name: value}).encode() for name in base for value in ODD_VALUES]
    values += [json.dumps({key: value for key, value in base.items() if key != name}).encode() for name in base]
    values += [json.dumps(base | {"extra": extra}).encode() for extra in (1, None, {"user_id": 5}, 'a"user_id":5', [1])]
    raw = json.dumps(base).encode()
    values += [
        raw + b" x",
        raw + raw,
        raw + b"}",
        raw + b"]",
        b"  " + raw + b"\n",
        raw[:-1],
        raw + b"\x0b",
        raw.replace(b'"', b"'"),
    ]
    twice = raw[:-1] + b', "user_id": "again"}'
    values += [
        twice,
        twice.replace(b"again", b"ag\\u0061in"),
        raw[:-1] + b', "user_id": 5}',
        b'{"user_id": 5, ' + raw[1:],
    ]
    values += [raw[:-1] + b",}", raw.replace(b"user_", b"us\xffer_"), raw.replace(b'"category"', b'"\\u0063ategory"')]
    values += [
        json.dumps(base | {"user_id": 5, name: 'x","user_id":"y'}).encode() for name in base if name != "user_id"
    ]
    return [*values, b"null", b"5", b'"a"', b"[]", b"{}", b"", b"\xff\xfe", b"\x00"]


def compact(values: list[bytes]) -> list[bytes]:
    """The same without spaces between the parts, as the pipeline's quickest look at a record wants it."""
    return [value.replace(b'": ', b'":').replace(b', "', b',"') for value in values]


def hard_clicks() -> list[bytes]:
    """Clickstream records on the edge of validity."""
    values = altered(CLICK) + [json.dumps(CLICK | {"timestamp": text}).encode() for text in ODD_TIMES]
    values += [json.dumps(CLICK).replace(f'"{CLICK["user_id"]}"', number).encode() for number in ENDLESS]
    raw = json.dumps(CLICK).encode()[:-1]
    values += [raw + b', "extra": ' + b'{"a":' * n + b"1" + b"}" * n + b"}" for n in (98, 99, 100, 990, 100_000)]
    values += [raw + b', "' + b"a" * n + b'": 1}' for n in (50_000, 50_001)]
    values += [raw.ljust(size - 1) + b"}" for size in (2**20, 2**20 + 1)]
    values += [raw + rb', "referrer": "' + text + b'"}' for text in (rb"\ud83d", rb"\ud83d\ude00", rb"\\ud83d")]
    values += [raw + b', "extra": [' + b",".join(b'{"a%d":1}' % n for n in range(20_000)) + b"]}"]
    return values + compact(values)


def hard_transactions() -> list[bytes]:
    """Transactions on the edge of validity."""
    amount, quantity = f'"amount": {json.dumps(BUY["amount"])}', f'"quantity": {BUY["quantity"]}'
    raw = json.dumps(BUY)
    values = [raw.replace(amount, f'"amount": {text}').encode() for text in ODD_AMOUNTS]
    values += [value.replace(b'"amount"', rb'"\u0061m\u006Funt"') for value in values]
    values += [json.dumps(BUY | {"extra": {"amount": odd}}).encode() for odd in (1e-30, 12345678901234.5)]
    values += altered(BUY) + [raw.replace(quantity, f'"quantity": {text}').encode() for text in ODD_QUANTITIES]
    exponent = raw.replace(amount, '"amount": 1E+2').encode()[:-1]
    values += [exponent + b', "items": [{"amount": 33.333333333333}]}', exponent + b', "amount": 5, "amount": 0e0}']
    values += [raw.encode()[:-1] + b', "quantity": %b}' % odd for odd in (b"2147483648", b"1e0", b"0", b"7")]
    return values + compact(values)


def test_rejected_records_match_the_oracle(records):
    """Several hundred hard records, and the reason is one of those that the contract gives."""
    values = {CLICKSTREAM: hard_clicks(), TRANSACTIONS: hard_transactions()}
    rows = transforms.dead_letter(*records(values[CLICKSTREAM], values[TRANSACTIONS])).collect()
    seen = {(row["topic"], row["offset"]): row["reason"] for row in rows}

    for topic, of_topic in values.items():
        for offset, value in enumerate(of_topic):
            parsed = parse(Record(topic, 0, offset, value))
            allowed = parsed.reasons if isinstance(parsed, Rejected) else {None}
            assert seen.get((topic, offset)) in allowed, value


def test_valid_records_match_the_oracle(records):
    """Every field that a result rests on; an amount to the last of its twelve digits."""
    values = {CLICKSTREAM: hard_clicks(), TRANSACTIONS: hard_transactions()}
    frames = dict(zip(values, records(values[CLICKSTREAM], values[TRANSACTIONS]), strict=True))
    for topic, of_topic in values.items():
        read = transforms.valid(frames[topic], topic).withColumn("at_ms", F.unix_millis("timestamp")).collect()
        expected = {offset: parse(Record(topic, 0, offset, value)) for offset, value in enumerate(of_topic)}

        assert {offset for offset, one in expected.items() if not isinstance(one, Rejected)} == {
            row["offset"] for row in read
        }
        for row in read:
            one = expected[row["offset"]]
            assert (one.at_ms, one.user, one.product, one.category) == (
                row["at_ms"],
                row["user_id"],
                row["product_id"],
                row["category"],
            )
            if isinstance(one, Click):
                assert (one.identity, one.session) == (row["event_id"], row["session_id"])
            else:
                assert (one.identity, one.amount) == (row["transaction_id"], row["amount"])


def test_rejected_record_keeps_bytes_and_offset(records):
    """Value untouched, with topic, partition and offset."""
    [row] = transforms.dead_letter(*records([b"\xff\x00{"], [])).collect()

    assert (b"\xff\x00{", CLICKSTREAM, 0, 0) == (bytes(row["value"]), row["topic"], row["partition"], row["offset"])


def test_every_record_is_valid_or_rejected(records):
    """No record is in both, none in neither."""
    clicks, transactions = records(hard_clicks(), hard_transactions())
    rejected = transforms.dead_letter(clicks, transactions).count()
    valid = transforms.valid(clicks, CLICKSTREAM).count() + transforms.valid(transactions, TRANSACTIONS).count()

    assert len(hard_clicks()) + len(hard_transactions()) == valid + rejected


def test_rejections_are_counted_by_topic_and_reason(records):
    """No dead letter has a reason that is not counted, and none is counted twice."""
    dead = transforms.dead_letter(*records(hard_clicks(), hard_transactions())).cache()
    expected = {
        f"{row['topic']}|{row['reason']}": row["count"] for row in dead.groupBy("topic", "reason").count().collect()
    }
    counts = dead.agg(*transforms.rejections("")).first().asDict()

    assert expected == {name: count for name, count in counts.items() if count}
    assert len(expected) > 20


def test_every_malformed_kind_is_rejected(records):
    """What the load calls malformed, the pipeline does too."""
    events = workload.batch(Workload(malformed=1), 7, 100, 0, 400)
    by_topic = {
        name: [v for t, v in zip(events.topic, events.values, strict=True) if TOPICS[t] == name] for name in INPUT
    }

    assert 400 == transforms.dead_letter(*records(by_topic[CLICKSTREAM], by_topic[TRANSACTIONS])).count()


def test_workload_records_fit_quick_parsing(records):
    """All but those in odd forms are byte for byte what Spark writes of them; else every figure of speed would be of slower rules."""
    shape = Workload()
    drawn = workload.draw(shape, 7, 100, np.arange(8_000, dtype=np.uint64))
    events = workload.written(shape, drawn)
    odd = {TOPICS[topic]: int((drawn.is_form & (drawn.topic == topic)).sum()) for topic in (0, 1)}
    by_topic = {
        name: [v for t, v in zip(events.topic, events.values, strict=True) if TOPICS[t] == name] for name in INPUT
    }
    frames = records(by_topic[CLICKSTREAM], by_topic[TRANSACTIONS])
    for frame, (topic, values) in zip(frames, by_topic.items(), strict=True):
        shown = transforms._typed(frame, topic).where(transforms._is_as_written(topic)).count()
        assert len(values) - odd[topic] <= shown
    assert sum(odd.values()) < 0.04 * 8_000


def test_awkward_records_are_read_alike(records):
    """Each valid record of 12,000, in every odd form, has the oracle's fields in the pipeline, and no other is taken."""
    events = workload.batch(Workload(malformed=0.05), 7, 100, 0, 12_000)
    for topic, number in ((CLICKSTREAM, 0), (TRANSACTIONS, 1)):
        values = [value for at, value in zip(events.topic.tolist(), events.values, strict=True) if at == number]
        clicks, buys = records(*((values, []) if number == 0 else ([], values)))
        chosen = ("user_id", "product_id", "category", "amount" if number else "session_id")
        frame = transforms.valid(buys if number else clicks, topic)
        seen = {row[0]: tuple(row[1:]) for row in frame.select("offset", F.unix_millis("timestamp"), *chosen).collect()}
        parsed = {at: parse(Record(topic, 0, at, value)) for at, value in enumerate(values)}
        assert seen == {at: fields(event) for at, event in parsed.items() if not isinstance(event, Rejected)}


def fields(event: Click | Purchase) -> tuple:
    """What the queries read of an event."""
    last = event.session if isinstance(event, Click) else event.amount
    return (event.at_ms, event.user, event.product, event.category, last)


def test_the_plan_of_valid_records_compiles(spark, records):
    """Inlined, the slow rules exceed what a Java method may hold, and Spark gives up on the stage batch after batch."""
    codegen = spark._jvm.org.apache.spark.sql.execution.debug.package
    for frame, topic in zip(records([json.dumps(CLICK).encode()], [json.dumps(BUY).encode()]), INPUT, strict=True):
        plan = transforms.valid(frame, topic)._jdf.queryExecution().executedPlan()
        stages = codegen.codegenStringSeq(plan)
        sizes = [stages.apply(at)._3().maxMethodCodeSize() for at in range(stages.size())]
        assert sizes
        assert all(0 < size < 65_000 for size in sizes)
