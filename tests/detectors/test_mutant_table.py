"""The short scenarios that people run first tell wrong pipelines from right ones, and the documentation has how many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.experiments import mutation

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "mutants.md"
SHORT = ("late", "edges", "kill")


@pytest.fixture(scope="module")
def measured() -> list[mutation.Measured]:
    """The mutants that each short scenario kills."""
    return list(mutation.measure(SHORT))


def documented() -> dict[str, int]:
    """Mutants that the page has as killed, by scenario."""
    rows = re.findall(r"^\| (.*?) \| (\d+) \| \d+ % \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.replace("`", ""): int(count) for name, count in rows}


def test_short_scenarios_kill_97_percent(measured):
    """Of the mutants that some input kills, those that `late`, `edges` and `kill` show together."""
    assert len(mutation.killed(measured)) >= 0.97 * len(mutation.KILLABLE)


def test_page_has_the_measured_numbers(measured):
    """A simulated run is a pure function of its scenario, so the numbers are exact."""
    rows = documented()
    assert {found.scenario: len(found.killed) for found in measured} == {name: rows[name] for name in SHORT}
    assert len(mutation.killed(measured)) == rows["late, edges and kill"]


def test_page_counts_all_mutants():
    """Those that some input kills, and those that none does, by name."""
    text = PAGE.read_text(encoding="utf-8")
    assert f"Of {len(mutation.MUTANTS)} mutants" in text
    assert f"Of the other {len(mutation.KILLABLE)}:" in text
    assert [] == [m.name for m in mutation.MUTANTS if m.equivalent and f"`{m.name}`" not in text]
