"""The parser of tests/e2e/other_engine.py, written from the contract alone, agrees with the oracle's."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.job.clickstream import events as workload
from harness.job.clickstream.events import MALFORMED, Workload
from harness.job.clickstream.records import Purchase, Rejected, parse
from harness.job.clickstream.spoiled import SPOILED
from harness.model import Record

ENGINE = Path(__file__).parents[1] / "e2e" / "other_engine.py"
CLICK = {
    "event_id": "e1", "user_id": "u1", "session_id": "s1", "product_id": "p1", "category": "c1", "action": "view",
    "timestamp": "2026-01-01T00:00:00Z", "page_url": "/p", "referrer": "direct",
}  # fmt: skip
PURCHASE = {
    "transaction_id": "t1", "user_id": "u1", "session_id": "s1", "product_id": "p1", "category": "c1", "amount": 12.5,
    "quantity": 1, "timestamp": "2026-01-01T00:00:00Z", "payment_method": "paypal",
}  # fmt: skip
BASES = {"clickstream": CLICK, "transactions": PURCHASE}
NUMBERS = (
    "0", "-0", "1", "5", "-1", "1e2", "1E+2", "0e0", "1e-2", "100", "1.0", "29.999", "33.333333333333", "01", "1.", ".5",
    "-", "0.10e1", "1e400", "1e-400", "1e99999999999999999999", "0e99999999999999999999", "1e-99999999999999999999",
    "2147483647", "2147483648", "-2147483648", "-2147483649", "9999999999.99", "10000000000", "1234567890123e-3",
    "1.10000000000000000000000000000001e0", "1." + "0" * 40, "9" * 1000, "9" * 1001, "0." + "0" * 999, "0." + "0" * 1000,
    "1" + "0" * 40, "NaN", "Infinity", "-Infinity",
)  # fmt: skip
TEXTS = (
    '"x"', '""', '"view"', '"paypal"', '"\\ud83d"', '"\\ud83d\\ude00"', '"\\ude00"', '"\\\\ud83d"', '"\\ud83d\\\\ude00"',
    '"\\ude00\\ud83d"', '"\\ud83dx"', '"\\""', '"é"', '"😀"', '"\\u0000"', '"\\x"', '"{["', '"[[[[\\"]"', '"a\nb"', '"a', "'x'",
)  # fmt: skip
TIMES = tuple(
    f'"{day}{clock}{offset}"'
    for day in (
        "2026-01-01", "0000-01-01", "0001-01-01", "1970-01-01", "1969-12-31", "2261-12-31", "2262-01-01", "9999-12-31",
        "2024-02-29", "2026-02-29", "2026-13-01", "2026-1-1", "٢٠٢٦-01-01",
    )
    for clock in ("T00:00:00", " 00:00:00.001", "T00:00:00.0019", "t00:00:00", "T24:00:00", "T23:59:59.999999999",
        "T23:59:59.9999999999", "T23:59:60", "T23:60:00", "T00:00:61", "T00:00", "T00:00:00.")
    for offset in ("Z", "z", "", "+00:00", "-00:00", "-18:00", "+18:00", "+18:01", "-17:59", "+05:30", "+05:60", "+0530")
)  # fmt: skip
OTHERS = (
    "null", "true", "false", "[]", "{}", "[1,]", '{"amount":1e2}', '{"a":1,"a":"\\ud83d"}', '["\\ud83d"]', "[[],[],{}]",
    *(f"{'[' * depth}{']' * depth}" for depth in (98, 99, 100, 998, 999, 3000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (98, 99, 100, 990)),
    *('{"' + letter * length + '":1}' for letter, length in (("n", 50_000), ("n", 50_001), ("😀", 25_000), ("😀", 25_001))),
    '{"' + "\\u006e" * 50_000 + '":1}',
)  # fmt: skip
WHOLE = (
    b"", b" ", b"null", b"1", b'"x"', b"[]", b"{}", b"{", b"}", b"{}{}", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\x00",
    b"\xef\xbb\xbf{}", b"[" * 101 + b"]" * 101, b"[" * 200_000, b'{"a":' * 100_000, b'"' * 3, b"{\x0b}",
)  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    """The module, as a file of its own."""
    spec = importlib.util.spec_from_file_location("other_engine", ENGINE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(fields: dict[str, object], **odd: str) -> bytes:
    """A record with fields as JSON, some of them given as text."""
    texts = {name: json.dumps(value) for name, value in fields.items()} | odd
    return ("{" + ",".join(f'"{name}": {text}' for name, text in texts.items()) + "}").encode()


def assert_agrees(engine, topic: str, value: bytes) -> None:
    """The same verdict, the same fields, and a reason that the oracle gives as well."""
    expected = parse(Record(topic, 0, 0, value))
    found = read(engine, topic, value)
    if isinstance(expected, Rejected):
        assert found in expected.reasons, value[:300]
    else:
        amount = expected.amount if isinstance(expected, Purchase) else None
        assert (expected.at_ms, expected.user, expected.product, expected.category, amount) == found, value[:300]


def read(engine, topic: str, value: bytes) -> object:
    """The engine's event, or its reason."""
    try:
        return engine.read(topic, value)
    except engine.Rejected as error:
        return str(error)


def all_malformed(awkward: float) -> Iterator[tuple[str, int, bytes]]:
    """(topic, number of the kind, value) of records of every malformed kind, and of valid ones."""
    for topic, share in (("clickstream", 1.0), ("transactions", 0.0)):
        shape = Workload(clickstream_share=share, malformed=0.8, awkward=awkward)
        made = workload.batch(shape, 7, 100, 0, 400 if not awkward else 4_000)
        for kind, value in zip(made.malformed.tolist(), made.values, strict=True):
            yield topic, kind, value


@pytest.mark.parametrize(
    ("awkward", "numbers"), [(0.0, range(len(MALFORMED))), (Workload().awkward, range(1, len(SPOILED) + 1))]
)
def test_every_malformed_kind_agrees(engine, awkward, numbers):
    """Of both topics, without awkward events and with them."""
    kinds: set[int] = set()
    for topic, kind, value in all_malformed(awkward):
        kinds.add(kind)
        assert_agrees(engine, topic, value)

    assert set(numbers) <= kinds


@pytest.mark.parametrize("topic", BASES)
@pytest.mark.parametrize("pool", [NUMBERS, TEXTS, TIMES, OTHERS], ids=["numbers", "texts", "times", "others"])
def test_odd_fields_agree(engine, topic, pool):
    """Instead of each field, beside it under the same name, and in a field that nobody reads."""
    base = BASES[topic]
    for odd in pool:
        for name in (*base, "extra"):
            if pool is TIMES and name != "timestamp":
                continue
            value = written(base, **{name: odd})
            assert_agrees(engine, topic, value)
            twice = value[:-1] + b", " + written({name: base.get(name)})[1:]
            assert_agrees(engine, topic, twice)
            assert_agrees(engine, topic, written({name: 1}, **{name: odd})[:-1] + b", " + written(base)[1:])


@pytest.mark.parametrize("topic", BASES)
def test_missing_fields_agree(engine, topic):
    """Each in turn."""
    for name in BASES[topic]:
        value = written({other: field for other, field in BASES[topic].items() if other != name})
        assert_agrees(engine, topic, value)


@pytest.mark.parametrize("topic", BASES)
def test_whole_records_agree(engine, topic):
    """What is no record at all, cut at every byte, or of the longest length."""
    base = written(BASES[topic])
    for value in (*WHOLE, *(base[:cut] for cut in range(len(base))), base + b" ", base + b"x"):
        assert_agrees(engine, topic, value)
    for length in (1_048_576, 1_048_577):
        assert_agrees(engine, topic, base + b" " * (length - len(base)))


def test_reported_cases_agree(engine):
    """Records that disagreed once: exponents beside line items, doubled amounts, moments before 1970."""
    items = '[{"amount": 33.333333333333}]'
    assert_agrees(engine, "transactions", written(PURCHASE, amount="1E+2", items=items))
    twice = written(PURCHASE, amount="100")[:-1] + b', "amount": 5, "amount": 0e0}'
    assert_agrees(engine, "transactions", twice)
    assert_agrees(engine, "clickstream", written(CLICK, timestamp='"1969-07-20T20:17:40Z"'))
    assert_agrees(engine, "clickstream", written(CLICK, timestamp='"2026-01-01T24:00:00Z"'))
    assert_agrees(engine, "clickstream", written(CLICK, x='{"a":' * 990 + "1" + "}" * 990))
    assert 100 == engine.read("transactions", written(PURCHASE, amount="1E+2", items=items)).amount


def test_engine_imports_nothing_of_ours():
    """A user can copy the file: the standard library and confluent-kafka are enough."""
    nodes = list(ast.walk(ast.parse(ENGINE.read_text(encoding="utf-8"))))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}

    assert not any(node.level for node in nodes if isinstance(node, ast.ImportFrom))
    assert {"confluent_kafka"} == {name.partition(".")[0] for name in named} - sys.stdlib_module_names
    assert {"importlib", "runpy", "imp"}.isdisjoint(named)


def test_engine_runs_without_ours(tmp_path):
    """A copy in an empty folder loads neither the harness nor the pipeline."""
    (tmp_path / "engine.py").write_text(ENGINE.read_text(encoding="utf-8"), encoding="utf-8")
    code = "import engine, sys; print(sorted({'harness', 'pipeline'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, env={"PATH": ""}
    )

    assert ("[]", 0) == (done.stdout.strip(), done.returncode), done.stderr
