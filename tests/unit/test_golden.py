"""Run directories of every format, as they were left and judged: they are judged alike for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.experiments import single

GOLDEN = Path(__file__).parent.parent / "golden"
RUNS = sorted(path.parent for path in GOLDEN.glob("format-*/*/manifest.json"))


def named(run: Path) -> str:
    """The format and the name of a golden run."""
    return str(run.relative_to(GOLDEN))


def test_format_1_has_three_golden_runs():
    """A right one, one that lost a row, and one with two faults, of real brokers and a real Spark."""
    assert {"format-1/kill", "format-1/lost_row", "format-1/right"} <= set(map(named, RUNS))


@pytest.mark.parametrize("run", RUNS, ids=named)
def test_golden_runs_keep_their_results(run, tmp_path):
    """`result.json` is the same, byte for byte; it holds no time at which the run was judged."""
    expected = (run / "result.json").read_bytes()
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("result.json"))
    single.judge(copy)

    assert expected == (copy / "result.json").read_bytes()
