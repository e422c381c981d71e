"""Scenarios of declared jobs, the suites that come with the harness, and a new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.experiments import own as trials
from harness.scenario import Override, own

ROOT = Path(__file__).parents[2]
SUITES = sorted((ROOT / "scenarios").glob("*/job.toml"))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A new suite."""
    return trials.new("mine", tmp_path)


def test_a_new_suite_is_whole(suite):
    """Its scenario loads, with the job's own SQL checked."""
    scenario = own.load(suite / "kill.toml")
    assert ["counts"] == [query.name for query in scenario.declaration.queries]
    assert {"job.py", "job.toml", "kill.toml", "counts.sql"} == {path.name for path in suite.iterdir()}
    compile((suite / "job.py").read_text(), "job.py", "exec")


def test_a_suite_is_never_overwritten(suite):
    """A second one of the name is refused."""
    with pytest.raises(ScenarioError, match="exists already"):
        trials.new("mine", suite.parent)


@pytest.mark.parametrize("job", SUITES, ids=lambda path: path.parent.name)
def test_shipped_suites_load(job):
    """Each scenario beside the declaration."""
    scenarios = [path for path in job.parent.glob("*.toml") if path.name != "job.toml"]
    assert scenarios
    for path in scenarios:
        assert own.load(path).declaration.queries


def test_a_dumped_scenario_is_the_same(suite):
    """Every field is in the file that a run directory keeps."""
    scenario = own.load(suite / "kill.toml", [Override("load.seed=11", "--seed 11")])
    (suite / "again.toml").write_text(own.dump(scenario, "job.toml"))
    assert scenario == own.load(suite / "again.toml")


def test_only_a_file_with_a_job_is_one(suite):
    """Names of shipped scenarios and files without `job` are left to others."""
    assert suite / "kill.toml" == own.find(str(suite / "kill.toml"))
    assert None is own.find("late")
    assert None is own.find(str(suite / "job.toml"))
    assert None is own.find(str(ROOT / "scenarios" / "late.toml"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param("lod.eps=5", "unknown field lod .did you mean load", id="table"),
        pytest.param("load.epz=5", "unknown field load.epz", id="field"),
        pytest.param("load.eps=0", "load.eps = 0: must lie between", id="bound"),
        pytest.param("load.burst_s=3", "load.burst_s: a declared job's load has none", id="not for it"),
        pytest.param("load.engine=locust", "load.engine: a declared job's load has none", id="no workers"),
        pytest.param("workload.late=2", r"workload.late: Expected `float` <= 1", id="workload"),
        pytest.param("workload.lat=2", "workload: .*unknown field `lat`", id="workload field"),
        pytest.param('workload.edge="soon"', "workload.edge: 'soon' is no duration", id="edge"),
        pytest.param("workload.too_late=0.99", "together more than 1", id="shares"),
        pytest.param('fault=[{kind="roll"}]', r"fault\[0\].kind = 'roll': a declared job is tested under", id="kind"),
        pytest.param('fault=[{kind="crash", query="counted"}]', r"fault\[0\].query = 'counted': no such", id="query"),
        pytest.param("fault=[{at=70000}]", r"fault\[0\].at = 70000: the load has 63000 events", id="at"),
        pytest.param('job="jobs.toml"', "jobs.toml: cannot be read", id="job"),
    ],
)
def test_a_wrong_scenario_names_the_field(suite, override, message):
    """With what is allowed."""
    with pytest.raises(ScenarioError, match=message):
        own.load(suite / "kill.toml", [Override(override, f"--set {override}")])
