"""Every detector is seen to fire, and only as its own kind."""

from __future__ import annotations

from decimal import Decimal

import pytest

from harness.judge.anomalies import Comparison, Seen, check

EXPECTED = {("a", "w1"): (3, Decimal("1.50")), ("b", "w1"): (1, Decimal("0.10"))}


def observed(**rows: list[tuple]) -> dict:
    """Observed rows by the first part of their key."""
    return {
        (name, "w1"): tuple(Seen(values, f"t-0@{at}", 0.0) for at, values in enumerate(all_values))
        for name, all_values in rows.items()
    }


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        pytest.param({"a": [(3, "1.50")], "b": [(1, "0.10")]}, [], id="right"),
        pytest.param({"b": [(1, "0.10")]}, ["lost_row"], id="no row"),
        pytest.param({"a": [(3, "1.50")] * 2, "b": [(1, "0.10")]}, ["duplicated_row"], id="row twice"),
        pytest.param({"a": [(2, "1.50")], "b": [(1, "0.10")]}, ["wrong_value"], id="an event short"),
        pytest.param({"a": [(3, "1.5")], "b": [(1, "0.10")]}, ["wrong_value"], id="a digit short"),
        pytest.param({"a": [(3, "1.50")], "b": [(True, "0.10")]}, ["wrong_value"], id="true instead of 1"),
        pytest.param({"a": [(3, "1.50")], "b": [([1], "0.10")]}, ["wrong_value"], id="a list instead of 1"),
        pytest.param(
            {"a": [(3, "1.50")], "b": [(1, "0.10")], "z": [(1, "1")]}, ["invented_row"], id="row from nowhere"
        ),
        pytest.param({}, ["lost_row", "lost_row"], id="nothing at all"),
    ],
)
def test_exactly_once_names_what_went_wrong(rows, kinds):
    """Each kind of damage is found, and found as that kind only."""
    comparison = Comparison("q", ("n", "sum"), EXPECTED, observed(**rows))

    assert kinds == [anomaly.kind for anomaly in check("exactly-once", comparison)]


@pytest.mark.parametrize(
    ("rows", "again", "kinds"),
    [
        pytest.param([(3, "1.50")] * 2, 1, [], id="its batch was run twice"),
        pytest.param([(3, "1.50")] * 2, 0, ["duplicated_row"], id="its batch was run once"),
        pytest.param([(3, "1.50")] * 3, 1, ["duplicated_row"], id="more often than its batch was run"),
        pytest.param([(3, "1.50"), (4, "1.50")], 1, ["wrong_value", "duplicated_row"], id="two rows that differ"),
    ],
)
def test_at_least_once_allows_replayed_rows(rows, again, kinds):
    """A row may stand as often as the batch that emits it was run."""
    comparison = Comparison(
        "q", ("n", "sum"), EXPECTED, observed(a=rows, b=[(1, "0.10")]), again={("a", "w1"): again, ("b", "w1"): 1}
    )

    assert kinds == [anomaly.kind for anomaly in check("at-least-once", comparison)]


def test_row_under_another_key_is_wrong():
    """Its measures are right; who reads by key does not find it."""
    rows = {("a", "w1"): (Seen((3, "1.50"), "t-0@0", 0.0, wrong_key="a"),)}
    [anomaly] = check("exactly-once", Comparison("q", ("n", "sum"), {("a", "w1"): (3, Decimal("1.50"))}, rows))

    assert "wrong_value" == anomaly.kind
    assert anomaly.why.startswith("wrong in its Kafka key, 'a';")


@pytest.mark.parametrize(
    ("at_s", "kinds"),
    [
        pytest.param(9.0, ["premature_row"], id="a second before"),
        pytest.param(9.999, [], id="within what the clocks cut off"),
        pytest.param(10.0, [], id="at the moment"),
    ],
)
def test_row_before_its_batch_is_premature(at_s, kinds):
    """It was written before the batch before the one that emits it was committed."""
    rows = {("a", "w1"): (Seen((3, "1.50"), "t-0@0", at_s),)}
    comparison = Comparison("q", ("n", "sum"), {("a", "w1"): (3, Decimal("1.50"))}, rows, {("a", "w1"): 10.0})

    found = check("exactly-once", comparison)
    assert kinds == [anomaly.kind for anomaly in found]
    assert all(one.why.startswith("it appeared 1.000 s before the batch that closes") for one in found)


def test_a_wrong_value_names_its_column():
    """The reader is told which measure differs, what it should be and what it was."""
    comparison = Comparison("q", ("n", "sum"), EXPECTED, observed(a=[(4, "1.50")], b=[(1, "0.10")]))

    [anomaly] = check("exactly-once", comparison)
    assert ("n 3, sum 1.50", "n 4, sum 1.50") == (anomaly.expected, anomaly.observed)
    assert anomaly.why.startswith("wrong in n;")


def test_any_fault_is_a_valid_reason():
    """A record with two faults may be rejected for either."""
    expected = {("a",): ("00", frozenset({"type user_id", "value action"}))}
    right = Comparison("q", ("value", "reason"), expected, {("a",): (Seen(("00", "value action"), "x", 0),)})
    wrong = Comparison("q", ("value", "reason"), expected, {("a",): (Seen(("00", "not json"), "x", 0),)})

    assert [] == check("exactly-once", right)
    assert ["wrong_value"] == [anomaly.kind for anomaly in check("exactly-once", wrong)]
