"""Every scenario that comes with the harness, judged by the exact oracle on real Kafka and real Spark."""

from __future__ import annotations

import pytest

from harness import scenario
from harness.host import cgroup, disks
from harness.model import Verdict

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", [name for name in scenario.names() if name != "load"])
def test_our_pipeline_passes(run_scenario, name):
    """Every row right, and what the scenario is about happened."""
    if scenario.load(name).needs_root and (why := disks.why_not() or cgroup.why_not()):
        pytest.skip(why)
    result = run_scenario(name)

    assert Verdict.PASS is result.verdict, result.why


@pytest.mark.parametrize("name", ["late", "edges"])
def test_the_join_passes_too(run_scenario, name):
    """The other form of conversions, whose late events are others."""
    result = run_scenario(name, "pipeline.conversions=join", 'pipeline.queries=["page_views", "conversions"]')

    assert Verdict.PASS is result.verdict, result.why


def test_deduplication_counts_each_event_once(run_scenario):
    """A tenth of the events is sent again, and none of the copies counts."""
    result = run_scenario("duplicates", "pipeline.deduplicate=true", 'proves=["copies_sent", "deduplicated"]')

    assert Verdict.PASS is result.verdict, result.why


def test_standby_takes_over_after_kill(run_scenario):
    """From its checkpoint, as if it had been started again."""
    fault = '[{kind = "kill", on = "pipeline", at = 7_200}]'
    result = run_scenario("kill", "pipeline.standby=true", f"fault={fault}")

    assert Verdict.PASS is result.verdict, result.why
