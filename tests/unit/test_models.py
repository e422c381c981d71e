"""Python models: replayed by key and batch, with timers that the watermark reaches."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from harness.errors import ScenarioError
from harness.job import models, relations
from harness.job.lateness import Watermarks
from harness.job.models import Model

MINUTE = 60_000
T0 = 1_767_261_600_000


class Pauses(Model):
    """Each record, and each ten minutes without one."""

    key = "k"

    def start(self):
        self.count = 0

    def events(self, rows, now, timers):
        for row in rows:
            self.count += 1
            yield {"k": row.k, "kind": f"{self.count}", "minute": row._time.minute}
        timers.only(max(row._time for row in rows) + timedelta(minutes=10))

    def timer(self, at, now, timers):
        yield {"k": "", "kind": f"pause after {self.count}", "minute": at.minute}


def rows(events, marks, model=Pauses, reverse=False):
    """(kind, minute, batch) of what a model yields of (key, minute, batch), at the watermarks of batches in minutes."""
    watermarks = Watermarks(tuple(T0 + minute * MINUTE if minute else 0 for minute in marks))
    keys, minutes, batches = zip(*events, strict=True)
    at_ms = np.array([T0 + minute * MINUTE for minute in minutes])
    zero, number = np.zeros(len(events), dtype=int), np.array(batches)
    relation = relations.relation({"k": pa.array(keys)}, at_ms, number, zero, np.arange(len(events)), watermarks, 0)
    with relations.database() as database:
        database.register("r", relation)
        answer = models.expected(database, "r", model, watermarks, reverse)
    return [(row.columns["kind"], row.columns["minute"], row.batch) for row in answer.rows]


def test_records_come_before_the_timers_of_their_batch():
    """A record in the batch whose watermark reaches the timer puts it off."""
    assert [("1", 0, 0), ("2", 5, 1), ("pause after 2", 15, 2)] == rows([("a", 0, 0), ("a", 5, 1)], [0, 12, 15])


def test_a_timer_fires_at_its_watermark():
    """In the batch whose watermark has reached it, before the records of later batches."""
    assert [("1", 0, 0), ("pause after 1", 10, 1), ("2", 20, 2)] == rows([("a", 0, 0), ("a", 20, 2)], [0, 10, 11])


def test_a_timer_may_fire_in_the_batch_that_sets_it():
    """Where the watermark of the batch has reached it already."""
    assert [("1", 10, 1), ("pause after 1", 20, 1)] == rows([("a", 10, 1)], [0, 30, 30])


def test_a_late_record_is_not_shown():
    """A model sees what is on time."""
    assert [("1", 31, 2)] == rows([("a", 10, 2), ("a", 31, 2)], [0, 30, 30])


def test_each_key_has_a_model_of_its_own():
    """And timers of its own."""
    assert ["1", "1"] == [kind for kind, _, _ in rows([("a", 0, 0), ("b", 0, 0)], [0, 0])]


def test_the_order_within_a_batch_is_turned():
    """By which the judge sees whether it matters."""
    events = [("a", 1, 0), ("a", 2, 0)]
    assert [("1", 1, 0), ("2", 2, 0)] == rows(events, [0])
    assert [("1", 2, 0), ("2", 1, 0)] == rows(events, [0], reverse=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("import nothing_of_this_name", "ModuleNotFoundError", id="import"),
        pytest.param("class Other: pass", "has no attribute 'Fraud'", id="class"),
        pytest.param("class Fraud: key = 'k'", "derives from Model", id="base"),
        pytest.param("from harness.job.models import Model\nclass Fraud(Model): pass", "has a key", id="key"),
    ],
)
def test_a_wrong_model_is_named(tmp_path, text, message):
    """With what Python finds wrong."""
    (tmp_path / "fraud.py").write_text(text)
    with pytest.raises(ScenarioError, match=message):
        models.load(tmp_path, "fraud.py:Fraud")
