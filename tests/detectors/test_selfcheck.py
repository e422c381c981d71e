"""Every kind of anomaly is planted and found, and the untouched run is clean."""

from __future__ import annotations

import pytest

from harness import scenario, selfcheck
from harness.simulate import simulate

OF_DEAD_LETTERS = {"dead_letter_missing", "dead_letter_invented", "dead_letter_altered"}


def test_every_anomaly_is_found_as_its_own_kind():
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
def test_what_a_run_has_no_place_for_is_not_planted(tmp_path, sets, nowhere):
    """And all else is, and found."""
    fixed = ["load.eps=60", "workload.malformed=0.02", "workload.too_late=0.2"]
    simulate(tmp_path / "run", scenario.load("late", [*fixed, *sets]))
    tally = selfcheck._proved(tmp_path / "run", 7)

    assert nowhere == {kind for kind, one in tally.items() if not one.planted}
    assert {} == {kind: one for kind, one in tally.items() if one.missed or one.accused}


def test_a_run_without_a_checkpoint_has_places_for_few(tmp_path):
    """What is told by batches has none."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=60", "workload.malformed=0.02"]))
    path = tmp_path / "run" / "scenario.toml"
    path.write_text(path.read_text().replace('checkpoint = "{checkpoint}/{query}"', 'checkpoint = ""'))
    tally = selfcheck._proved(tmp_path / "run", 7)

    assert "wrong_watermark" in {kind for kind, one in tally.items() if not one.planted}
    assert tally["dead_letter_missing"].planted
