"""What a scenario is about is counted where it happened, and is none where it did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from history_events import healed

from harness import scenario
from harness.experiments.simulate import simulate
from harness.judge import coverage, findings, timeline, verdict
from harness.judge.guard import STRICT
from harness.judge.timeline import Evidence
from harness.model import Verdict
from harness.rundir import history
from harness.rundir.events import Process


@pytest.fixture(scope="module")
def gathered(tmp_path_factory):
    """A simulated run of each scenario asked for, and of `late`, which is about something else; awkward by default."""
    known: dict[tuple[str, float], Evidence] = {}

    def run(name: str, awkward: float = 0.1) -> Evidence:
        if (name, awkward) not in known:
            directory = tmp_path_factory.mktemp(name) / "run"
            simulate(directory, scenario.load(name, ["load.eps=600", f"workload.awkward={awkward}"]))
            known[name, awkward] = timeline.gather(history.read(directory))
        return known[name, awkward]

    return run


def counted(one: Evidence) -> dict[str, int]:
    """The counts of a run."""
    answers = timeline.expected(one)
    return coverage.counts(one, answers, findings.compare(one, answers))


@pytest.mark.parametrize(
    ("name", "count"),
    [("skew", "hot_views"), ("idle_source", "idle_clicks"), ("edges", "edge_purchases"), ("late", "out_of_order")],
)
def test_scenario_subject_is_counted(gathered, name, count):
    """There, and not in a scenario that is about something else, without its awkward events: they are about everything."""
    other = "late" if name != "late" else "skew"

    assert counted(gathered(name))[count] > 0
    assert 0 == counted(gathered(other, awkward=0))[count]


@pytest.mark.parametrize("count", ["hot_views", "idle_clicks", "edge_purchases"])
def test_awkward_events_prove_no_subject(gathered, count):
    """What a scenario is about must come from the scenario."""
    assert 0 == counted(gathered("late"))[count]


def test_black_box_counts_certain_events(gathered):
    """The black-box oracle gives intervals, and their lower ends are what is known."""
    exact = gathered("skew")
    pipeline = replace(exact.run.scenario.pipeline, checkpoint="")
    blind = timeline.gather(replace(exact.run, scenario=replace(exact.run.scenario, pipeline=pipeline)))

    assert 0 < counted(blind)["hot_views"] <= counted(exact)["hot_views"]


def test_burst_exceeds_half_its_rate(gathered):
    """Sent ten times as fast for a second, it counts; sent evenly, it does not."""
    even = gathered("burst")
    sent_us = even.sent["sent_us"].copy()
    sent_us[6000:12000] = sent_us[6000] + np.arange(6000) * 150
    bursting = replace(even, sent={**even.sent, "sent_us": sent_us})

    assert 0 == counted(even)["burst_events"]
    assert counted(bursting)["burst_events"] >= 3000


def test_refused_start_is_no_restart(gathered):
    """It was started three times, and worked twice."""
    whole = gathered("late")
    happened = ("start", "ready", "start", "start", "ready")
    told = tuple(Process(event=event) for event in happened)

    assert 1 == coverage._restarts(replace(whole, run=replace(whole.run, events=told)))


def test_unacknowledged_record_makes_run_unknown(gathered):
    """It was read, so it may have been counted, and what is right is not known."""
    whole = gathered("late")
    row = int(np.flatnonzero(whole.sent["malformed"] == 0)[100])
    sent = {name: np.delete(column, row) for name, column in whole.sent.items()}
    less = replace(whole, sent=sent, batch_of={query: np.delete(index, row) for query, index in whole.batch_of.items()})

    assert 0 == coverage.unclaimed(whole)
    assert 1 == coverage.unclaimed(less)
    counts = {"acknowledged": 1, "read": 1, "counted": 1, "dropped_late": 0, "deduplicated": 0, "dead_letter": 0}
    figures = {"generator_delay_ms": {"p99": 1.0}, "due_sent_share": 1.0}
    doubts = list(
        verdict._doubts(less, [], figures, counts | {"unclaimed": 1, "dropped_late": 0}, {}, [], STRICT, limited=False)
    )
    assert any(found is Verdict.UNKNOWN and "producer's retry" in why for found, why in doubts)


def test_unacknowledged_read_is_not_offset(gathered):
    """A pipeline without revenue and conversions reads no transactions."""
    whole = gathered("late")
    row = int(np.flatnonzero((whole.sent["malformed"] == 0) & (whole.sent["topic"] == "clickstream"))[100])
    mine = {query: whole.batches[query] for query in ("page_views", "sessions")}
    sent = {name: np.delete(column, row) for name, column in whole.sent.items()}

    assert 0 == coverage.unclaimed(replace(whole, batches=mine))
    assert 1 == coverage.unclaimed(replace(whole, batches=mine, sent=sent))


TOOK = {"effect_observed": True, "healed_s": 3.0, "proof": {"up_before": True, "up_after": {"broker 1": False}}}
UNHURT = {"up_before": True, "up_after": {"broker 1": False, "broker 2": True}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param(
            {"effect_observed": False, "proof": {"up_before": False, "up_after": {"broker 1": False}}},
            "its target did not work before",
            id="it was down already",
        ),
        pytest.param(
            {"effect_observed": False, "proof": UNHURT}, "no effect was seen on broker 2", id="one of two went on"
        ),
        pytest.param({"effect_observed": False, "proof": {}}, "no effect was seen", id="nothing is known of it"),
        pytest.param({"healed_s": None}, "it was not seen to heal", id="it stays down"),
    ],
)
def test_unproved_fault_names_missing_evidence(changed, said):
    """So that one who reads the verdict knows where to look."""
    assert said == coverage.unproved(healed(1.0, **TOOK | changed))
