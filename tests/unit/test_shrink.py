"""What is not needed to fail is left out, and what is needed stays."""

from __future__ import annotations

import pytest

from harness import scenario
from harness.errors import HarnessError, ScenarioError, StackError
from harness.experiments import shrink
from harness.job.clickstream.events import Workload
from harness.judge import verdict
from harness.model import Anomaly, Result
from harness.scenario import Fault, Limits, Load, Scenario

ANOMALY = Anomaly("lost_row", "revenue", ("k",), "a row", "no row", "")
START = Scenario(
    name="x",
    load=Load(eps=1000, warm_up_s=10, duration_s=20),
    workload=Workload(late=0.1, malformed=0.1),
    fault=(Fault(at=5), Fault(kind="stop", at=9)),
)


def failed(anomalies: tuple[Anomaly, ...] = (ANOMALY,)) -> Result:
    """A result with anomalies."""
    return Result(verdict.unknown("").verdict, "", (), {}, {}, anomalies)


def test_only_what_is_needed_is_left():
    """It fails whenever late data meets the kill with at least 1,000 events."""

    def attempt(one: Scenario) -> Result:
        bad = one.workload.late > 0 and any(fault.kind == "kill" for fault in one.fault) and one.load.events >= 1000
        return failed() if bad else failed(())

    smallest = shrink.shrink(START, failed(), attempt, lambda line: None)

    assert (0.1, 0.0) == (smallest.workload.late, smallest.workload.malformed)
    assert ["kill"] == [fault.kind for fault in smallest.fault]
    assert 1000 <= smallest.load.events < 2000


def test_needed_faults_move_forward():
    """It fails as long as anything is late, whatever else happens."""
    late = Workload(late=0.1)
    stretched = Scenario(
        name="x", load=Load(eps=1000, stretch_s=300), workload=late, fault=(Fault(at=8000, after=400),)
    )

    def needs_the_fault(one: Scenario) -> Result:
        return failed() if one.fault and one.workload.late else failed(())

    [fault] = shrink.shrink(stretched, failed(), needs_the_fault, lambda line: None).fault
    assert (1000, 50, 0) == (fault.at, fault.after, shrink.shrink(stretched, failed(), late_only, print).load.stretch_s)


def test_unneeded_fault_drops_its_limits():
    """Without any, a limit of recovery would be refused."""
    limited = Scenario(name="x", workload=Workload(late=0.1), limits=Limits(recovery_s=15), fault=(Fault(at=900),))

    smallest = shrink.shrink(limited, failed(), late_only, print)
    assert ((), Limits()) == (smallest.fault, smallest.limits)


def test_load_covers_its_faults():
    """It would be no scenario."""
    tried: list[Scenario] = []

    def attempt(one: Scenario) -> Result:
        tried.append(one)
        return failed() if one.fault else failed(())

    shrink.shrink(Scenario(name="x", load=Load(eps=100), fault=(Fault(at=900),)), failed(), attempt, print)

    assert all(one.load.events >= fault.at for one in tried for fault in one.fault)


def late_only(one: Scenario) -> Result:
    """No fault is needed."""
    return failed() if one.workload.late else failed(())


def test_right_run_is_not_shrunk():
    """To ask it is bad usage."""
    with pytest.raises(ScenarioError, match="only a run with a wrong output"):
        shrink.shrink(START, failed(()), lambda one: failed(()), lambda line: None)


def test_unrepeated_fail_is_not_shrunk():
    """Nothing was wrong with what was asked."""
    with pytest.raises(HarnessError, match="did not fail again with lost_row in revenue") as error:
        shrink.shrink(START, failed(), lambda one: failed(()), lambda line: None)

    assert not isinstance(error.value, ScenarioError)


@pytest.mark.parametrize("breaks_from", [1, 2])
def test_broken_attempt_keeps_its_step(breaks_from):
    """A broker that does not start says nothing of what was left out."""
    attempts = []

    def attempt(one: Scenario) -> Result:
        attempts.append(one)
        if len(attempts) >= breaks_from:
            raise StackError("no broker")
        return failed()

    if breaks_from == 1:
        with pytest.raises(StackError, match="no broker"):
            shrink.shrink(START, failed(), attempt, print)
    else:
        assert START == shrink.shrink(START, failed(), attempt, print)


def test_invalid_steps_are_not_tried():
    """A burst goes beyond a load without its warm-up, and it is the burst that fails."""
    tried: list[Scenario] = []

    def attempt(one: Scenario) -> Result:
        tried.append(one)
        return failed() if one.load.burst_s else failed(())

    smallest = shrink.shrink(scenario.load("burst"), failed(), attempt, lambda line: None)

    assert smallest.load.burst_s
    assert [] == [problem for one in tried for problem in scenario.contradictions(one)]
