"""Wrong rules of parsing and validation: each laxer rule of a field is apart from the contract on a record that breaks that rule alone."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from harness.job.clickstream.mutants import MUTANTS, given, records
from harness.model import Record

PLAIN = dict.fromkeys(("user_id", "session_id", "product_id", "category"), "x") | {"timestamp": "2026-01-01T10:00:00Z"}
VALID = {
    "clickstream": PLAIN | {"event_id": "e", "action": "view", "page_url": "/", "referrer": "r"},
    "transactions": PLAIN | {"transaction_id": "t", "payment_method": "paypal", "amount": 1, "quantity": 1},
}
LAX = [m for m in records.mutants() if m.name.startswith(("clickstream: ", "transactions: "))]


def spoiled():
    """Records with one field absent, null, of another type, or out of range."""
    for topic, fields in VALID.items():
        for name in fields:
            yield topic, {other: value for other, value in fields.items() if other != name}
            for value in (None, 5, True, [], {}, "other", -1, 0):
                yield topic, fields | {name: value}


@pytest.fixture(scope="module")
def inputs():
    rows = [Record(topic, 0, at, json.dumps(value).encode()) for at, (topic, value) in enumerate(spoiled())]
    return given([(record, {"dead_letter": 0}) for record in rows], {})


@pytest.mark.parametrize("mutant", LAX, ids=lambda mutant: mutant.name)
def test_laxer_rules_differ_from_contract(inputs, mutant):
    """A record that breaks one rule of one field is missing in the dead letters of the mutant."""
    right = [letter for _, letter in records.letters(inputs)]
    assert Counter(right) != Counter(mutant.rows(inputs)["dead_letter"])


def test_names_of_all_mutants_are_unique():
    """Query mutants and record mutants share no name."""
    assert [] == [name for name, times in Counter(mutant.name for mutant in MUTANTS).items() if times > 1]
