"""A test and benchmark harness for streaming pipelines: replay, break, measure, compare every row, report.

import harness

assessed = harness.run("late", "load.eps=500")
assert assessed.verdict is harness.Verdict.PASS, assessed.why
assessed.frame("events")  # a pandas DataFrame; see docs/reference/frames.md
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, ScenarioError
from harness.model import Anomaly, Verdict

if TYPE_CHECKING:
    from harness.judge.assessment import Assessment
    from harness.scenario import Scenario

__all__ = ["Anomaly", "HarnessError", "ScenarioError", "Verdict", "check", "run"]


def run(scenario: str | Path | Scenario, *overrides: str, reports: Path = Path("reports")) -> Assessment:
    """Run a scenario and judge it: what `harness run` does, without its lines.

    `scenario` is the name of a shipped scenario, the path of a TOML file, or a value. `overrides` are like
    ``load.eps=500``, as with ``--set``. The run directory, with result.json and report.html, is made below `reports`.

    Raises ScenarioError for a scenario or an override that cannot be, and StackError where Kafka or the pipeline cannot
    be started or stops answering. A pipeline that dies is judged, not raised.
    """
    from rich.console import Console  # imported here: `import harness` stays quick

    from harness import scenario as scenarios
    from harness.experiments import single
    from harness.runner.console import Status

    if isinstance(scenario, str | Path):
        named = [scenarios.Override(override, f"override {override}") for override in overrides]
        scenario = scenarios.load(str(scenario), named)
    elif overrides:
        raise ScenarioError(f"override {overrides[0]}: overrides are for a name or a path; change the value instead")
    return single.run(scenario, Path(reports), Status(Console(quiet=True)))


def check(directory: str | Path) -> Assessment:
    """Judge a run directory again, from its files alone: what `harness check` does.

    Raises NoRun where it is no run directory, and RunError where it is incomplete or damaged.
    """
    from harness.experiments import single

    return single.judge(Path(directory))
