"""Pipelines with one defect each: every one fails, in a scenario that names the cause."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

BROKEN = [sys.executable, str(Path(__file__).with_name("broken.py"))]
WHERE = ["--bootstrap", "{bootstrap}", "--checkpoint", "{checkpoint}", "--output", "{output}", "--jars", "{jars}"]


@pytest.mark.parametrize(
    ("defect", "scenario", "kind", "query", "said"),
    [
        ("pairs", "late", "wrong_value", "conversions", "counted once per purchase"),
        ("approximate", "skew", "wrong_value", "page_views", "approximate count"),
        ("shifted_window", "late", "invented_row", "page_views", "1 ms off the grid"),
        ("open_boundary", "edges", "wrong_value", "conversions", "< stands for <="),
        ("short_watermark", "late", "wrong_watermark", "page_views", "60 s ahead of"),
        ("short_sessions", "sessions", "invented_row", "sessions", "a gap of 30 minutes; the gap is 30"),
        ("doubles", "late", "wrong_value", "revenue", "doubles stand for decimals"),
        ("swallowed", "malformed", "dead_letter_missing", "dead_letter", "never came out"),
        ("written_twice", "late", "duplicated_row", "page_views", "wrote it twice"),
        ("missing", "sessions", "lost_row", "sessions", "never came out"),
        ("state_kept", "late", "state_not_released", "page_views", "still holds"),
    ],
)
def test_a_defect_fails_by_its_cause(tmp_path, defect, scenario, kind, query, said):
    """The verdict is fail, and an anomaly of the kind, of the query, names the cause."""
    command = json.dumps([*BROKEN, defect, *WHERE])
    # One session in 5,000 takes the whole length to be missing.
    short = () if defect == "missing" else ("--warm-up", "4", "--duration", "12")
    args = ["run", scenario, *short, "--set", f"pipeline.command={command}", "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "harness", *args], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )

    assert 1 == run.returncode, run.stderr
    result = json.loads(run.stdout)
    assert result["anomalies"][kind], result["why"]
    assert any(said in one["why"] for one in result["examples"] if (one["kind"], one["query"]) == (kind, query)), [
        (one["kind"], one["query"], one["why"]) for one in result["examples"][:5]
    ]


PAGE_VIEWS_IN_FILES = '[[pipeline.output]]\nquery = "page_views"\nparquet = "page_views"\n'


@pytest.mark.parametrize(
    ("defect", "fault", "kind"),
    [
        pytest.param("append_sink", 'kind = "crash"\npoint = "after sink"\nquery = "page_views"', "duplicated_row"),
        pytest.param("forgetful", 'kind = "kill"\non = "pipeline"', "record_read_twice"),
    ],
)
def test_a_fault_is_noticed_where_nothing_protects_against_it(tmp_path, defect, fault, kind):
    """The same fault that the right pipeline survives makes these wrong: append for exactly once, no checkpoint."""
    command = json.dumps([*BROKEN, defect, *WHERE, "--sink", "page_views=parquet"])
    scenario = (
        'judged = ["state_size", "success"]\n'
        "[load]\neps = 500\nwarm_up_s = 10\nduration_s = 25\n[workload]\ntime_scale = 60\nmalformed = 0.001\n"
        f"[pipeline]\ncommand = {command}\n{PAGE_VIEWS_IN_FILES}[[fault]]\nat = 9_000\n{fault}\n"
    )
    (tmp_path / "unprotected.toml").write_text(scenario)
    args = ["run", "unprotected.toml", "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "harness", *args], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )

    assert 1 == run.returncode, run.stderr
    result = json.loads(run.stdout)
    assert result["anomalies"][kind], result["why"]
