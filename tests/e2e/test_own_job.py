"""A job that knows nothing of the harness: the suite `orders`, unchanged, and with defects planted in its source."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from harness.experiments import own
from harness.model import Verdict

pytestmark = pytest.mark.e2e

SUITE = Path(__file__).parents[2] / "scenarios" / "orders"


def test_an_unchanged_job_passes_under_kill(run_scenario, tmp_path):
    """Windows, a left outer join, deduplication with a table, and a stateful processor: every row, after a restart."""
    result = run_scenario(str(SUITE / "kill.toml"))

    assert Verdict.PASS is result.verdict, result.why
    assert 1 == result.counts["restarts"]
    # A record that is late shows that the law of lateness is needed for these rows.
    assert all(result.counts[f"{query}.late"] for query in ("totals", "paid", "enriched", "fraud"))
    [directory] = (tmp_path / "reports" / "kill").glob("2*")
    assert result == own.judge(directory).result


DEFECTS = {
    "totals": ('F.count("*").alias("orders")', 'F.count_if(F.col("amount") > 250).alias("orders")', {"wrong_value"}),
    "paid": ('"leftOuter"', '"inner"', {"lost_row"}),
    "enriched": ('(F.col("amount") * F.col("rate"))', 'F.col("amount")', {"wrong_value"}),
    "fraud": ("len(times) == 3", "len(times) == 4", {"lost_row", "invented_row"}),
}
"""Query → the text of its source, what stands in its place, and the kinds of anomalies that this is found as."""


def test_planted_defects_are_found_as_their_kind(run_scenario, tmp_path):
    """One in each query of a job, killed once; none is found in another query, or as another kind."""
    suite = tmp_path / "orders"
    shutil.copytree(SUITE, suite)
    source = (suite / "job.py").read_text()
    for right, wrong, _ in DEFECTS.values():
        assert 1 == source.count(right)
        source = source.replace(right, wrong)
    (suite / "job.py").write_text(source)

    result = run_scenario(str(suite / "kill.toml"))

    assert Verdict.FAIL is result.verdict, result.why
    found = Counter((anomaly.query, anomaly.kind) for anomaly in result.anomalies)
    assert {(query, kind) for query, (_, _, kinds) in DEFECTS.items() for kind in kinds} == found.keys()
