"""Every kind of anomaly is planted and found, and the untouched run is clean."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from harness import scenario
from harness.experiments import selfcheck
from harness.experiments.simulate import simulate
from harness.judge import timeline

COUNTED = ("page_views", "revenue", "conversions")
OF_DEAD_LETTERS = {"dead_letter_missing", "dead_letter_invented", "dead_letter_altered"}


def test_each_anomaly_has_its_own_kind():
    """Found as often as planted, never accused of anything else, and every kind had its place."""
    tally = selfcheck.prove([7])

    assert {} == {kind: one for kind, one in tally.items() if not one.planted or one.missed or one.accused}


@pytest.mark.parametrize(
    ("sets", "nowhere"),
    [
        pytest.param(["workload.malformed=0"], OF_DEAD_LETTERS, id="nothing malformed"),
        pytest.param(['pipeline.queries=["page_views", "revenue"]'], OF_DEAD_LETTERS, id="no such query"),
        pytest.param(
            ['pipeline.queries=["dead_letter"]', 'proves=["out_of_order"]'],
            set(selfcheck.KINDS) - OF_DEAD_LETTERS - {"duplicated_row", "record_lost", "record_read_twice"},
            id="nothing else",
        ),
    ],
)
def test_impossible_anomalies_are_not_planted(tmp_path, sets, nowhere):
    """And all else is, and found."""
    fixed = ["load.eps=60", "workload.malformed=0.02", "workload.too_late=0.2"]
    simulate(tmp_path / "run", scenario.load("late", [*fixed, *sets]))
    tally = selfcheck._proved(tmp_path / "run", 7)

    assert nowhere == {kind for kind, one in tally.items() if not one.planted}
    assert {} == {kind: one for kind, one in tally.items() if one.missed or one.accused}


def test_what_is_allowed_is_not_planted(tmp_path):
    """A row of a batch that was run again may stand twice; a value that one late event more makes has a name of its own."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=60", "workload.too_late=0.2"]))
    case = selfcheck._take_apart(tmp_path / "run")
    once, *others = [(name, key) for name in case.comparisons for key in selfcheck._released(case, name)]
    again = {name: {key: 1 for of, key in others if of == name} for name in case.comparisons}
    replayed = replace(
        case, comparisons={name: replace(one, again=again[name]) for name, one in case.comparisons.items()}
    )
    assert {once} == {selfcheck._duplicated(replayed, Random(seed))[1:] for seed in range(20)}

    late = timeline.expected(case.gathered, "never")
    counts = [(values, late[name].rows.get(key)) for name in COUNTED for key, values in case.answers[name].rows.items()]
    assert any(values != then for values, then in counts)
    assert not any(then and selfcheck._other(values[0]) <= then[0] for values, then in counts)


def test_few_anomalies_fit_without_a_checkpoint(tmp_path):
    """What is told by batches has none."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=60", "workload.malformed=0.02"]))
    path = tmp_path / "run" / "scenario.toml"
    path.write_text(path.read_text().replace('checkpoint = "{checkpoint}/{query}"', 'checkpoint = ""'))
    tally = selfcheck._proved(tmp_path / "run", 7)

    assert "wrong_watermark" in {kind for kind, one in tally.items() if not one.planted}
    assert tally["dead_letter_missing"].planted
