"""The benchmark's wrong run is the right one with as many wrong rows as it says."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.experiments import bench
from harness.experiments.simulate import simulate
from harness.job.clickstream.events import Workload
from harness.judge import verdict
from harness.model import Verdict
from harness.rundir import history
from harness.scenario import Load, Scenario


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A right run with some hundred rows."""
    directory = tmp_path_factory.mktemp("bench") / "right"
    shape = Workload(time_scale=60, malformed=0.01)
    simulate(directory, Scenario(name="bench", load=Load(eps=60, warm_up_s=0, duration_s=40), workload=shape))
    return directory


def test_wrong_rows_are_found_and_no_others(run, tmp_path):
    """Of each kind a quarter; the right run stays right."""
    bench.spoil(run, tmp_path / "wrong", 48)
    result = verdict.judge(history.read(tmp_path / "wrong"))

    assert Verdict.FAIL is result.verdict
    assert {"lost_row": 12, "duplicated_row": 12, "wrong_value": 12, "invented_row": 12} == Counter(
        anomaly.kind for anomaly in result.anomalies
    )
    assert () == verdict.judge(history.read(run)).anomalies


def test_too_few_rows_are_refused(run, tmp_path):
    """A figure for 1,000 wrong rows would be one for fewer."""
    with pytest.raises(SystemExit, match="too few"):
        bench.spoil(run, tmp_path / "wrong", 100_000)


def test_each_verdict_has_its_exit_code(run, tmp_path):
    """The wrong run must fail, and a run that does not is no measurement."""
    bench.spoil(run, tmp_path / "wrong", 48)

    assert bench.check(tmp_path / "wrong", Verdict.FAIL)[0] > 0
    with pytest.raises(SystemExit, match="ended with 1, not 0"):
        bench.check(tmp_path / "wrong", Verdict.PASS)
