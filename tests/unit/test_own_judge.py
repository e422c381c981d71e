"""The judge of declared jobs on runs made by a small operational Spark: windows with state, watermarks, drops."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import RunError
from harness.experiments import own as trials
from harness.job.draws import FLUSH, Records
from harness.judge import own
from harness.model import Verdict
from harness.scenario import own as scenarios

JOB = """
[pipeline]
command = ["job"]
[[topic]]
name = "orders"
time = "at"
[topic.fields]
currency = { choice = ["EUR", "USD"] }
amount = { decimal = [1, 500] }
at = { time = "iso" }
[[query]]
name = "totals"
reads = { orders = "10 minutes" }
row = ["window_start", "currency"]
groups = "window_start, currency"
sql = "totals.sql"
sink = { KIND = "totals" }
[[invariant]]
name = "no empty window"
query = "totals"
sql = "FROM seen WHERE orders = 0"
"""
SQL = """
SELECT window_start, window_end, currency, count(*) AS orders, sum(amount) AS total, avg(amount)::DOUBLE AS mean
FROM tumble(orders, INTERVAL 5 MINUTE) GROUP BY ALL
"""
SCENARIO = """
job = "job/job.toml"
[load]
eps = 100
warm_up_s = 0
duration_s = 12
[workload]
time_scale = 300
late = 0.1
too_late = 0.1
duplicates = 0.05
edges = 0.1
edge = "5 minutes"
"""
FIVE, TEN = 300_000, 600_000
BATCHES = 10
Rows = list[tuple[dict[str, Any], float]]
"""Rows with the epoch second of their appearance."""


def iso(at_ms: int) -> str:
    """A time as Spark's `to_json` writes it."""
    return f"{np.datetime_as_string(np.datetime64(at_ms, 'ms'), unit='ms')}Z"


def made(
    folder: Path,
    change: Callable[[Rows], Rows] = lambda rows: rows,
    *,
    sink: str = "kafka",
    delay_ms: int = TEN,
    restarts: int = 0,
    job: str = JOB,
) -> Path:
    """A run directory, its rows changed; the job that it shows runs with a delay of its own."""
    (folder / "job").mkdir(parents=True)
    (folder / "job" / "job.toml").write_text(job.replace("KIND", sink))
    (folder / "job" / "totals.sql").write_text(SQL)
    (folder / "scenario.toml").write_text(SCENARIO)
    (folder / "manifest.json").write_text(json.dumps({"command": ["run", "x"], "format": 2}))
    scenario = scenarios.load(folder / "scenario.toml")
    records = Records(scenario.declaration, scenario.workload, scenario.load.seed, scenario.load.eps)
    count = scenario.load.events
    drawn = records.draw("orders", np.arange(count))
    flush_ms = int(drawn.at_ms.max()) + 86_400_000
    at_ms = np.append(drawn.at_ms, flush_ms)
    last = records.flush("orders", flush_ms)
    currency = [*drawn.fields["currency"].to_pylist(), *last.fields["currency"].to_pylist()]
    amount = [*drawn.fields["amount"].to_pylist(), *last.fields["amount"].to_pylist()]
    partition = np.arange(count + 1) % 2
    sent = {
        "topic": np.zeros(count + 1, dtype=np.int64),
        "number": np.append(np.arange(count), FLUSH),
        "partition": partition,
        "offset": np.arange(count + 1) // 2,
        "at_ms": at_ms,
    }
    pq.write_table(pa.table(sent), folder / "sent.parquet")

    # The job: batches of equal size, the flush record in one of its own, and one without data that closes all.
    of_batch = [*(np.arange(count) * BATCHES // count).tolist(), BATCHES]
    watermark, open_groups, out = 0, {}, []
    lines: list[dict[str, Any]] = [{"kind": "process", "event": "start", "t": 1.0}]
    lines += [{"kind": "process", "event": "start", "t": 500.0}] * restarts
    for batch in range(BATCHES + 2):
        before = watermark
        read = [at for at, number in enumerate(of_batch) if number == batch]
        newest = max((int(at_ms[at]) for at, number in enumerate(of_batch) if number < batch), default=None)
        watermark = 0 if newest is None else max(0, newest - delay_ms)
        late = set()
        for at in read:
            start = int(at_ms[at]) // FIVE * FIVE
            if start + FIVE <= before:
                late.add((start, currency[at]))
            else:
                group = open_groups.setdefault((start, currency[at]), [0, Decimal(0)])
                group[0] += 1
                group[1] += amount[at]
        for start, name in [group for group in open_groups if group[0] + FIVE <= watermark]:
            orders, total = open_groups.pop((start, name))
            row = {
                "window_start": iso(start), "window_end": iso(start + FIVE), "currency": name, "orders": orders,
                "total": total, "mean": float(total) / orders,
            }  # fmt: skip
            out.append((row, 1000.0 + batch + 0.5))
        for log in ("offsets", "commits"):
            (folder / "checkpoints" / "totals" / log).mkdir(parents=True, exist_ok=True)
        ends = {
            str(p): int(sum(1 for at, n in enumerate(of_batch) if n <= batch and partition[at] == p)) for p in (0, 1)
        }
        offsets = ["v1", json.dumps({"batchWatermarkMs": watermark}), json.dumps({"orders": ends})]
        (folder / "checkpoints" / "totals" / "offsets" / str(batch)).write_text("\n".join(offsets))
        (folder / "checkpoints" / "totals" / "commits" / str(batch)).write_text("v1\n{}")
        times = {"begun_s": 1000.0 + batch, "committed_s": 1000.9 + batch, "t": 1001.0 + batch}
        lines.append({"kind": "commit", "query": "totals", "batch": batch, **times})
        progress = {"stateOperators": [{"numRowsDroppedByWatermark": len(late)}]}
        lines.append({"kind": "progress", "query": "totals", "batch": batch, "progress": progress, "t": 1001.0 + batch})
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "outputs").mkdir()
    found = change(out)
    rows = {
        "row": [json.dumps(row, default=float) if isinstance(row, dict) else row for row, _ in found],
        "where": [f"totals-0@{at}" for at in range(len(found))],
        "at_s": [at_s for _, at_s in found],
    }
    pq.write_table(pa.table(rows), folder / "outputs" / "totals.parquet")
    return folder


def judged(folder: Path) -> Any:
    """The result of a run directory."""
    return own.judge(own.read(folder))


def ended(folder: Path, *lines: dict[str, Any]) -> Path:
    """The run directory, with further lines at the end of its history."""
    with (folder / "history.jsonl").open("a") as history:
        history.writelines(json.dumps({"t": 2000.0} | line) + "\n" for line in lines)
    return folder


@pytest.mark.parametrize(
    ("death", "verdict", "why"),
    [
        pytest.param({}, Verdict.UNKNOWN, "interrupted in phase run: by the user", id="interrupted"),
        pytest.param({"code": 1, "last": "no such column"}, Verdict.FAIL, "code 1: no such column", id="its own fault"),
        pytest.param({"code": -9, "last": ""}, Verdict.UNKNOWN, "the harness sent none", id="killed from outside"),
        pytest.param({"code": 1, "last": "No space left on device"}, Verdict.UNKNOWN, "no fault", id="a full disk"),
    ],
)
def test_an_early_end_is_judged_by_its_cause(tmp_path, death, verdict, why):
    """As for any job: rows that are missing then accuse nobody, also where a directory is checked again."""
    died = [{"kind": "pipeline_died", "brokers_down": []} | death] if death else []
    folder = ended(
        made(tmp_path / "run", lambda rows: rows[:3]),
        *died,
        {"kind": "interrupted", "phase": "run", "why": "by the user"},
    )
    result = judged(folder)

    assert (verdict, True) == (result.verdict, why in result.why), result.why
    assert () == result.anomalies


def edit(at: int, **columns: Any) -> Callable[[Rows], Rows]:
    """One row is otherwise."""
    return lambda rows: [(row | columns if number == at else row, at_s) for number, (row, at_s) in enumerate(rows)]


def test_a_right_run_passes(tmp_path):
    """With late records in it, and every count of drops reconciled."""
    result = judged(made(tmp_path / "run"))
    assert Verdict.PASS is result.verdict, result.why
    assert result.counts["totals.expected"] == result.counts["totals.right"] > 20
    assert result.counts["totals.late"] > 20
    assert f"drops reconcile in {BATCHES + 2} of {BATCHES + 2} batches" in result.why


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        pytest.param(lambda rows: rows[:3] + rows[4:], {"lost_row": 1}, id="lost"),
        pytest.param(edit(3, orders=1), {"wrong_value": 1}, id="wrong count"),
        pytest.param(edit(3, total=0.01), {"wrong_value": 1}, id="wrong decimal"),
        pytest.param(edit(3, mean=7.0), {"wrong_value": 1}, id="wrong double"),
        pytest.param(edit(3, total=None), {"wrong_value": 1}, id="null"),
        pytest.param(lambda rows: [*rows, rows[3]], {"duplicated_row": 1}, id="duplicated"),
        pytest.param(edit(3, currency="CHF"), {"lost_row": 1, "invented_row": 1}, id="another identity"),
        pytest.param(lambda rows: [(rows[0][0], 1.0), *rows[1:]], {"premature_row": 1}, id="too early"),
        pytest.param(lambda rows: [("{", 2000.0), *rows], {"invented_row": 1}, id="no JSON"),
        pytest.param(
            lambda rows: [*rows, ({"window_start": iso(0), "currency": "EUR", "orders": 0}, 2000.0)],
            {"invented_row": 2},
            id="from nowhere, and against the invariant",
        ),
    ],
)
def test_damage_is_found_as_its_kind(tmp_path, change, kinds):
    """Each kind, and that kind only."""
    result = judged(made(tmp_path / "run", change))
    assert Verdict.FAIL is result.verdict
    assert kinds == Counter(anomaly.kind for anomaly in result.anomalies)


def test_doubles_are_compared_within_their_last_digits(tmp_path):
    """A sum in another order is no wrong value."""
    result = judged(
        made(tmp_path / "run", lambda rows: [(row | {"mean": math.nextafter(row["mean"], 0)}, at) for row, at in rows])
    )
    assert Verdict.PASS is result.verdict, result.why


@pytest.mark.parametrize(
    ("sink", "restarts", "verdict"),
    [
        pytest.param("kafka", 1, Verdict.PASS, id="at least once, after a restart"),
        pytest.param("kafka", 0, Verdict.FAIL, id="at least once, without one"),
        pytest.param("parquet", 1, Verdict.FAIL, id="exactly once"),
    ],
)
def test_copies_are_allowed_by_the_guarantee(tmp_path, sink, restarts, verdict):
    """As many as there were restarts, where the sink promises at least once."""
    result = judged(made(tmp_path / "run", lambda rows: [*rows, rows[3]], sink=sink, restarts=restarts))
    assert verdict is result.verdict, result.why
    assert 1 == result.counts["totals.copies"]


@pytest.mark.parametrize(
    ("delay_ms", "job", "why"),
    [
        pytest.param(5 * 60_000, JOB, "batch 1 ran at the watermark .* make it", id="another delay"),
        pytest.param(TEN, JOB.replace('groups = "window_start, currency"', 'groups = "window_start"'), "drops are not those", id="other groups"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_accuses_nobody(tmp_path, delay_ms, job, why):
    """What Spark's own log contradicts is unknown, whatever rows there are."""
    result = judged(made(tmp_path / "run", delay_ms=delay_ms, job=job))
    assert Verdict.UNKNOWN is result.verdict
    assert re.search(why, result.why), result.why


def test_a_fault_that_was_not_injected_makes_it_unknown(tmp_path):
    """Nothing is shown by what did not happen."""
    folder = made(tmp_path / "run")
    with (folder / "scenario.toml").open("a") as scenario:
        scenario.write('[[fault]]\nkind = "kill"\nat = 100\n')
    result = judged(folder)
    assert Verdict.UNKNOWN is result.verdict
    assert "fault kill pipeline: not injected" == result.why


@pytest.mark.parametrize(("version", "verdict"), [("4.2.0", Verdict.PASS), ("4.1.1", Verdict.UNKNOWN)])
def test_another_spark_is_unknown(tmp_path, version, verdict):
    """Which records are late was confirmed for some versions alone."""
    folder = made(tmp_path / "run")
    (folder / "spark.json").write_text(json.dumps({"versions": [version]}))
    assert verdict is judged(folder).verdict


def test_no_row_shows_nothing(tmp_path):
    """A run in which no row was due is unknown."""
    folder = made(tmp_path / "run", lambda rows: [])
    (folder / "job" / "totals.sql").write_text(SQL.replace("GROUP BY", "WHERE amount < 0 GROUP BY"))
    assert "no row of totals was to come out: nothing is shown" == judged(folder).why


def test_a_cut_run_is_named(tmp_path):
    """The file that is missing is in the message."""
    folder = made(tmp_path / "run")
    (folder / "outputs" / "totals.parquet").unlink()
    with pytest.raises(RunError, match=r"totals.parquet: missing"):
        judged(folder)


def test_a_judged_run_has_result_and_page(tmp_path):
    """And its story says what is wrong, where, and how to do it again."""
    done = trials.judge(made(tmp_path / "run", edit(3, orders=1)))
    assert "fail" == json.loads((tmp_path / "run" / "result.json").read_text())["verdict"]
    assert "1 wrong_value of totals" in (tmp_path / "run" / "report.html").read_text()
    assert any("orders: expected" in line for line in trials.story(done))


def test_an_unwritable_result_is_one_line(tmp_path):
    """A folder where the result goes: the error names it; one that is under way already is not hidden by it."""
    directory = made(tmp_path / "run")
    (directory / "result.json" / "in it").mkdir(parents=True)
    with pytest.raises(RunError, match=r"result\.json: cannot be written: Is a directory"):
        trials.judge(directory)

    (directory / "sent.parquet").unlink()
    with pytest.raises(RunError, match=r"sent\.parquet"):
        trials.judge(directory)
