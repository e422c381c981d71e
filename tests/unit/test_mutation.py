"""Which mutants a scenario kills, and what is printed of those that live."""

from __future__ import annotations

from typer.testing import CliRunner

from harness import cli
from harness.experiments import mutation
from harness.job.clickstream.mutants import MUTANTS
from harness.job.clickstream.reference import Expected


def test_living_mutants_are_printed_in_words(monkeypatch):
    """Killed mutants are counted, and each living one has its sentence."""
    counts = {mutant.name: 1 for mutant in MUTANTS} | {MUTANTS[0].name: 0}
    monkeypatch.setattr(mutation, "measure", lambda names: [mutation.Measured(names[0], counts)])
    done = CliRunner().invoke(cli.app, ["selfcheck", "--mutants", "late"])

    assert 0 == done.exit_code
    assert f"no event distinguishes {MUTANTS[0].sentence}: 0 rows differ" in done.output
    assert MUTANTS[1].sentence not in done.output.replace(MUTANTS[0].sentence, "")


def test_a_row_that_differs_kills():
    """Equal rows are no anomaly; a wrong, a missing and a second row are."""
    right = Expected(rows={("s", "e", "p", "c"): (2, 1)})
    [row] = right.rows.items()
    wrong = [[row], [(row[0], (3, 1))], [], [row, row]]
    assert [0, 1, 1, 1] == [mutation._found("page_views", right, rows) for rows in wrong]
