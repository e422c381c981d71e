"""Where a run is written."""

from __future__ import annotations

import pytest

from harness import scenario, trial
from harness.errors import ScenarioError
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
