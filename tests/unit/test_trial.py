"""Where a run is written."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from harness import history, scenario, trial
from harness.cli import app
from harness.errors import ScenarioError
from harness.model import Verdict
from harness.simulate import simulate


def test_runs_that_begin_at_the_same_moment_have_a_folder_each(tmp_path):
    """Many fit into the millisecond that their names tell."""
    chosen = scenario.load("late")

    assert 20 == len({trial._directory(tmp_path, chosen) for _ in range(20)})


def test_a_place_where_nothing_can_be_written_is_one_line(tmp_path):
    """The line names it."""
    (tmp_path / "file").touch()

    with pytest.raises(ScenarioError, match="file: no run directory can be made: Not a directory"):
        trial._directory(tmp_path / "file", scenario.load("late"))


def test_a_run_of_one_query_has_its_report(tmp_path):
    """Whatever a page shows by default, it shows of the queries that there are."""
    simulate(tmp_path, scenario.load("late", ["load.eps=100", 'pipeline.queries=["page_views"]']))
    done = trial.judge(tmp_path)

    assert {"page_views"} == done.result.figures["durable_latency_ms"].keys()
    assert "committed by page_views" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        pytest.param(["page_views", "revenue"], "not asked of this pipeline", id="no dead letter"),
        pytest.param(["page_views", "revenue", "dead_letter"], "they reconcile.", id="all that count"),
    ],
)
def test_a_page_says_of_the_counts_what_the_verdict_makes_of_them(tmp_path, queries, said):
    """A pipeline without one of the queries cannot account for every record."""
    simulate(tmp_path, scenario.load("late", ["load.eps=100", f"pipeline.queries={json.dumps(queries)}"]))
    done = trial.judge(tmp_path)

    assert Verdict.PASS is done.result.verdict, done.result.why
    assert said in (tmp_path / "report.html").read_text()


def test_a_pipeline_that_says_nothing_of_its_progress_has_its_report(tmp_path):
    """Without the charts that are drawn from it."""
    simulate(tmp_path, scenario.load("late", ["load.eps=100", 'judged=["success"]']))
    path = tmp_path / "history.jsonl"
    lines = [line for line in path.read_text().splitlines() if json.loads(line)["kind"] != "progress"]
    path.write_text("\n".join(lines) + "\n")

    assert Verdict.PASS is trial.judge(tmp_path).result.verdict
    assert 3 == len(re.findall("<figcaption", (tmp_path / "report.html").read_text()))


def test_one_directory_that_cannot_be_read_keeps_no_other_from_being_judged(tmp_path):
    """And no wrong one from failing."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=100"]))
    history.write_rows(tmp_path / "run", "page_views", [])

    done = CliRunner().invoke(app, ["check", str(tmp_path / "none"), str(tmp_path / "run")])
    assert Verdict.FAIL.exit_code == done.exit_code
