"""A declaration is read whole, or refused with the field that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.job import declared

JOB = """
about = "Orders and payments."
[pipeline]
command = ["{python}", "job.py", "{bootstrap}", "{checkpoint}", "{rates}"]
[[topic]]
name = "orders"
share = 0.6
key = "customer"
time = "ordered_at"
[topic.fields]
order_id   = { sequence = "ord_{:06d}" }
customer   = { of = 200, name = "cust_{:05d}", zipf = 1.1 }
currency   = { choice = ["EUR", "USD"], weights = [6, 3] }
amount     = { decimal = [1, 500], places = 2 }
ordered_at = { time = "iso" }
[[topic]]
name = "payments"
share = 0.4
time = "paid_at"
[topic.fields]
order_id = { from = "orders.order_id", within = "25 minutes", missing = 0.05 }
paid_at  = { time = "ms" }
[[query]]
name = "totals"
reads = { orders = "10 minutes" }
row = ["window_start", "currency"]
sql = "totals.sql"
tables = { rates = "rates.csv" }
sink = { kafka = "totals" }
[[invariant]]
name = "no negative total"
query = "totals"
sql = "FROM seen WHERE total < 0"
"""
SQL = """
SELECT window_start, currency, count(*) AS orders, sum(amount * rate) AS total
FROM tumble(orders, INTERVAL 5 MINUTE) JOIN rates USING (currency) GROUP BY ALL
"""


def read(folder: Path, text: str = JOB, sql: str = SQL) -> declared.Job:
    """The job of a suite with this declaration."""
    (folder / "job.toml").write_text(text)
    (folder / "totals.sql").write_text(sql)
    (folder / "rates.csv").write_text("currency,rate\nEUR,1.0\nUSD,0.92\n")
    return declared.load(folder / "job.toml")


def test_a_page_of_toml_is_a_job(tmp_path):
    """Names, delays, and the guarantee of the sink where none is declared."""
    job = read(tmp_path)
    assert ["orders", "payments"] == [topic.name for topic in job.topics]
    assert 600_000 == job.delay_ms("orders")
    assert 0 == job.delay_ms("payments")
    assert "at-least-once" == job.query("totals").promise


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        pytest.param('about = "', 'abuot = "', "unknown field `abuot`", id="unknown field"),
        pytest.param("share = 0.6", "share = 0", r"topic\[0\].share: Expected `float` > 0", id="bound"),
        pytest.param('key = "customer"', 'key = "custmer"', "topic 'orders': key = 'custmer': no such field", id="key"),
        pytest.param('time = "paid_at"', 'time = "order_id"', "topic 'payments': time = 'order_id'", id="time"),
        pytest.param("decimal = [1, 500]", "decimal = [9, 5]", "fields.amount.decimal = .*first must not", id="span"),
        pytest.param("weights = [6, 3]", "weights = [6]", "fields.currency.weights: 1 weights of 2", id="weights"),
        pytest.param("{ of = 200,", "{ uuid = true, of = 200,", "fields.customer: exactly one of", id="two generators"),
        pytest.param("ord_{:06d}", "ord_{:06q}", "fields.order_id.sequence = .*not a format", id="format"),
        pytest.param("orders.order_id", "orders.id", "fields.order_id.from = 'orders.id': no field", id="reference"),
        pytest.param("25 minutes", "25 fortnights", "within: '25 fortnights' is no duration", id="duration"),
        pytest.param("{ orders = ", "{ oders = ", "query 'totals': reads.oders: no such topic", id="reads"),
        pytest.param('"10 minutes"', '"soon"', "query 'totals': reads.orders: 'soon' is no duration", id="delay"),
        pytest.param("totals.sql", "total.sql", "query 'totals': sql = 'total.sql': no such file", id="file"),
        pytest.param("rates.csv", "rate.csv", "query 'totals': tables.rates = 'rate.csv': no such file", id="table"),
        pytest.param('{ kafka = "totals" }', "{}", "query 'totals': sink: exactly one", id="sink"),
        pytest.param('"currency"]\n', '"curency"]\n', "row: totals.sql has no column 'curency'", id="row"),
        pytest.param("{rates}", "{rats}", r"pipeline.command: {rats} is no placeholder", id="placeholder"),
        pytest.param('query = "totals"', 'query = "sums"', "query = 'sums': no such query", id="invariant"),
        pytest.param('name = "payments"', 'name = "orders"', "topic.name = 'orders': declared twice", id="twice"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_names_the_field(tmp_path, before, after, message):
    """With the file, and what is allowed."""
    assert before in JOB
    with pytest.raises(ScenarioError, match=f"job.toml: .*{message}"):
        read(tmp_path, JOB.replace(before, after, 1))


def test_wrong_sql_is_found_before_a_run(tmp_path):
    """With the message of DuckDB, over relations without a record."""
    with pytest.raises(ScenarioError, match=r"query 'totals': sql = 'totals.sql': .*amuont"):
        read(tmp_path, sql=SQL.replace("sum(amount", "sum(amuont"))
