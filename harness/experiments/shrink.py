"""A failed run made smaller: fewer events, fewer faults, plainer data, as long as it fails in the same way.

Greedy: each step is tried on the real thing, and kept where the first anomaly's kind and query come again.
What is left is a scenario file; interleavings are not replayed, so a rare failure may not come again at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import HarnessError, ScenarioError
from harness.job.clickstream.events import Workload
from harness.model import Result
from harness.scenario import Limits, Load, Scenario, contradictions

EVENTS_MIN_S = 2.0
AT_MIN = 1000
KEPT = ("start", "time_scale", "users", "products")
"""Fields of the workload that set an amount, not a difficulty."""
NO_LIMITS_OF_FAULTS = {"recovery_s": Limits().recovery_s, "gap_s": Limits().gap_s}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing left out."""

    what: str
    scenario: Scenario


def shrink(
    scenario: Scenario, failed: Result, attempt: Callable[[Scenario], Result], report: Callable[[str], None]
) -> Scenario:
    """The smallest scenario found that still fails as `failed` did; `attempt` runs one.

    Raises ScenarioError where the run has no anomaly, HarnessError where it does not fail again at all, and what
    `attempt` raises of the run as it was.
    """
    if not failed.anomalies:
        raise ScenarioError("this run has no anomaly: only a run with a wrong output can be made smaller")
    wanted = (failed.anomalies[0].kind, failed.anomalies[0].query)

    def fails(candidate: Scenario) -> bool:
        return wanted in {(anomaly.kind, anomaly.query) for anomaly in attempt(candidate).anomalies}

    if not fails(scenario):
        raise HarnessError(f"the run did not fail again with {wanted[0]} in {wanted[1]}: nothing to shrink")
    smallest, tried = scenario, set[str]()
    while step := next((step for step in steps(smallest) if step.what not in tried and _can_be(step, smallest)), None):
        if _holds(fails, step.scenario):
            report(f"kept     {step.what}")
            smallest = step.scenario
        else:
            report(f"needed   {step.what}")
            tried.add(step.what)
    return smallest


def _can_be(step: Step, before: Scenario) -> bool:
    """Whether it asks for nothing that would be refused, and was not there before."""
    return set(contradictions(step.scenario)) <= set(contradictions(before))


def _holds(fails: Callable[[Scenario], bool], candidate: Scenario) -> bool:
    """Whether a smaller one fails; one that breaks off does not fail in that way."""
    try:
        return fails(candidate)
    except HarnessError:
        return False


def steps(scenario: Scenario) -> Iterator[Step]:
    """What could be left out next, the most first."""
    for number, fault in enumerate(scenario.fault):
        rest = scenario.fault[:number] + scenario.fault[number + 1 :]
        limits = scenario.limits if rest else replace(scenario.limits, **NO_LIMITS_OF_FAULTS)
        yield Step(
            f"without the fault {fault.kind} {fault.on} at {fault.at:,}",
            replace(scenario, fault=rest, limits=limits, proves=()),
        )
    for item in dataclasses.fields(Workload):
        if item.name not in KEPT and getattr(scenario.workload, item.name) != item.default:
            default: Any = item.default
            plainer = replace(scenario.workload, **{item.name: default})
            yield Step(f"without {item.name}", replace(scenario, workload=plainer, proves=()))
    last = max((fault.at for fault in scenario.fault), default=0)
    if last > AT_MIN:
        sooner = tuple(replace(fault, at=max(1, fault.at // 2), after=fault.after // 2) for fault in scenario.fault)
        yield Step(f"faults from event {sooner[0].at:,} on", replace(scenario, fault=sooner, proves=()))
    yield from (step for step in _shorter(scenario) if step.scenario.load.events >= last)


def _shorter(scenario: Scenario) -> Iterator[Step]:
    load = scenario.load
    if load.burst_s:
        yield _loaded(scenario, "no burst", replace(load, burst_s=0, burst_at_s=0, burst_factor=1, silence_s=0))
    if load.stretch_s and not scenario.fault:
        yield _loaded(scenario, "no stretch", replace(load, stretch_s=0))
    if load.warm_up_s or load.cool_down_s:
        yield _loaded(scenario, "no warm-up", replace(load, warm_up_s=0, cool_down_s=0))
    if load.duration_s / 2 >= EVENTS_MIN_S:
        half = replace(load, duration_s=load.duration_s / 2)
        yield _loaded(scenario, _events(half), half)
    elif load.eps >= 20:
        half = replace(load, eps=round(load.eps / 2))
        yield _loaded(scenario, _events(half), half)


def _loaded(scenario: Scenario, what: str, load: Load) -> Step:
    return Step(what, replace(scenario, load=load, proves=()))


def _events(load: Load) -> str:
    """How many, without those that come while faults take their time."""
    return f"{replace(load, stretch_s=0).events:,} events"
