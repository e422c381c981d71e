"""Recovery at full load: how long it takes, and that nothing is lost meanwhile.

On embedded brokers, as `load` is: between a container and its clients stands a proxy of Docker's, which wants cores too.
"""

from __future__ import annotations

import pytest

from harness.model import Verdict

AS_LOAD = ("load.eps=5000", "kafka.where=embedded", "kafka.partitions=1", "pipeline.quick_start=false")
pytestmark = [pytest.mark.drill, pytest.mark.alone, pytest.mark.timeout(1800)]


def test_broker_killed_at_5000_events_s(run_scenario):
    """No event is lost, and the lag is back within 15 s of the kill, of a pipeline that is warm and keeps up."""
    fault = '[{kind = "kill", on = "leader", at = 800_000, caught_up = true, for_s = 5}]'
    load = (*AS_LOAD, "load.warm_up_s=150", "load.duration_s=40", "load.stretch_s=100")
    result = run_scenario("broker_kill", *load, f"fault={fault}", "limits.recovery_s=15")

    assert Verdict.PASS is result.verdict, result.why


@pytest.mark.parametrize("standby", ["false", "true"])
def test_pipeline_killed_with_20_minutes_state(run_scenario, standby):
    """It has caught up within 30 s. The 20 minutes are sent in two, and have been read before it is killed.

    A start of Java and Spark takes most of that: one that stands by has it behind it.
    """
    load = (*AS_LOAD, "load.warm_up_s=240", "load.duration_s=90", "load.stretch_s=300", "workload.time_scale=1")
    history = ("load.burst_at_s=1", "load.burst_factor=10", "load.burst_s=120")
    fault = '[{kind = "kill", on = "pipeline", at = 7_250_000, caught_up = true}]'
    spare = f"pipeline.standby={standby}"
    result = run_scenario("kill", *load, *history, spare, f"fault={fault}", "limits.recovery_s=30")

    assert Verdict.PASS is result.verdict, result.why
