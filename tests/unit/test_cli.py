"""What the command line does with what it called."""

from __future__ import annotations

import pyarrow.parquet as pq
from typer.testing import CliRunner

from harness import cli, drill, scenario, trial
from harness.simulate import simulate


def test_a_random_run_that_fails_is_made_smaller(tmp_path, monkeypatch):
    """As a scenario file in its directory; every attempt here fails as the run did."""
    directory = tmp_path / "run"
    simulate(directory, scenario.load("kill", ["fault=[]", "load.eps=100", "load.duration_s=5", "load.stretch_s=0"]))
    rows = pq.read_table(directory / "outputs" / "page_views.parquet")
    pq.write_table(rows.slice(1), directory / "outputs" / "page_views.parquet")
    failed, tried = trial.judge(directory), []
    monkeypatch.setattr(cli.trial, "run", lambda one, *_: tried.append(one) or failed)
    plan = drill.Plan("loaded", failed.run.scenario, ())
    monkeypatch.setattr(cli.drill, "at_random", lambda seed, minutes: [plan])
    CliRunner().invoke(cli.app, ["drill", "random", "--reports", str(tmp_path / "drills")])

    smallest = scenario.load(str(directory / "shrunk.toml"))
    assert "lost_row" == failed.result.anomalies[0].kind
    assert smallest == tried[-1]
    assert smallest.load.events < failed.run.scenario.load.events
