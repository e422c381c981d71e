"""What is computed again for another lateness equals what the oracle gives for the whole run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import scenario
from harness.experiments.simulate import simulate
from harness.job.lateness import Watermarks
from harness.judge import findings, lateness, timeline
from harness.model import Anomaly
from harness.rundir import history

FORMS = [
    pytest.param((), id="linear"),
    pytest.param(("pipeline.conversions='join'",), id="join"),
    pytest.param(("pipeline.deduplicate=true", "workload.duplicates=0.05"), id="deduplicated"),
]


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """Evidence of a simulated run with many late events, by the form of the pipeline."""
    known = {}

    def of(sets):
        if sets not in known:
            directory = tmp_path_factory.mktemp("late") / "run"
            fixed = ["load.eps=30", "workload.too_late=0.2", "workload.late=0.2", "workload.malformed=0.02"]
            simulate(directory, scenario.load("late", [*fixed, *sets]))
            known[sets] = timeline.gather(history.read(directory))
        return known[sets]

    return of


@pytest.mark.parametrize("sets", FORMS)
@pytest.mark.parametrize("mode", ["never", "own"])
def test_touched_rows_are_all_that_differ(late, sets, mode):
    """The other rows are equal by either lateness, and those of the scope are complete."""
    gathered = late(sets)
    full, answers = timeline.expected(gathered, mode), timeline.expected(gathered)
    stateful = [query for query in answers if gathered.run.scenario.queries[query].stateful]
    ours, theirs = timeline.marks(gathered), timeline.marks(gathered, mode)
    scope = {query: lateness.touched(gathered, query, ours[query], theirs[query]) for query in stateful}
    again = lateness.recomputed(gathered, scope, mode)

    for query in stateful:
        beside = {key: values for key, values in answers[query].rows.items() if key[0] not in scope[query]}
        assert full[query].rows == beside | again.get(query, {})
    assert mode == "own" or any(full[query].rows != answers[query].rows for query in stateful)


@pytest.mark.parametrize("sets", FORMS)
@pytest.mark.parametrize("by_ms", [-240_000, 240_000])
def test_rows_of_other_watermarks_are_complete(late, sets, by_ms):
    """Watermarks that are ahead release more and drop more."""
    gathered = late(sets)
    queries = [query for query in gathered.batches if gathered.run.scenario.queries[query].stateful]
    at = {query: [max(0, batch.watermark_ms + by_ms) for batch in gathered.batches[query]] for query in queries}
    full, answers = timeline.expected(gathered, watermarks=at), timeline.expected(gathered)
    ours = timeline.marks(gathered)
    scope = {query: lateness.touched(gathered, query, ours[query], Watermarks(tuple(at[query]))) for query in queries}
    again = lateness.recomputed(gathered, scope, watermarks=at)

    for query in queries:
        beside = {key: values for key, values in answers[query].rows.items() if key[0] not in scope[query]}
        assert full[query].rows == beside | again.get(query, {})


def test_only_suspects_are_computed_again(late, monkeypatch):
    """A wrong row of one window does not cost an oracle of all."""
    gathered = late(())
    comparisons = findings.compare(gathered, timeline.expected(gathered))
    scopes = []
    recomputed = lateness.recomputed
    monkeypatch.setattr(lateness, "recomputed", lambda *given: scopes.append(given[1]) or recomputed(*given))
    query, comparison = next((name, found) for name, found in comparisons.items() if found.expected)
    touched = lateness.touched(
        gathered, query, timeline.marks(gathered)[query], timeline.marks(gathered, "never")[query]
    )
    key = next(key for key in comparison.expected if key[0] in touched)
    changed = lateness.with_lateness(gathered, comparisons, [Anomaly("wrong_value", query, key, "", "", "")])

    assert {query: {key[0]}} == scopes[0]
    assert {key[0]} == {found[0] for found in changed[query].if_late_counted}
    assert replace(comparison, if_late_counted={}, if_late_dropped={}) == replace(
        changed[query], if_late_counted={}, if_late_dropped={}
    )
