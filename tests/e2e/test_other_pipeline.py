"""Anyone's pipeline: a second implementation of two of the queries, judged without a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.model import Verdict

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent


@pytest.fixture
def scenario_file(tmp_path: Path) -> str:
    """The example with the paths of this machine in it."""
    text = (HERE / "other_engine.toml").read_text()
    path = tmp_path / "other_engine.toml"
    path.write_text(text.replace("PYTHON", sys.executable).replace("ENGINE", str(HERE / "other_engine.py")))
    return str(path)


def test_a_right_engine_passes(run_scenario, scenario_file):
    """By the black-box oracle, and the result says so."""
    result = run_scenario(scenario_file)

    assert Verdict.PASS is result.verdict, result.why
    assert "by the black-box oracle" in result.why


def test_a_wrong_engine_fails(run_scenario, scenario_file):
    """A euro too much in each window is beyond what late events can explain."""
    command = [sys.executable, str(HERE / "other_engine.py"), "{bootstrap}", "{prefix}", "tip"]
    result = run_scenario(scenario_file, f"pipeline.command={command!r}".replace("'", '"'))

    assert Verdict.FAIL is result.verdict
    assert {"wrong_value"} == {anomaly.kind for anomaly in result.anomalies}
