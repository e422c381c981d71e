"""What a person sees while a run goes on."""

from __future__ import annotations

import io

from rich.console import Console

from harness.runner.console import Status


def test_phase_column_fits_every_name():
    """And all of them begin in one column."""
    told = io.StringIO()
    with Status(Console(file=told, width=80)) as status:
        status.phase("measure", "60 s")
        status.phase("cool down", "5 s")

    assert ["measure   60 s", "cool down 5 s"] == told.getvalue().splitlines()
