"""What follows from the rates of 1, 2 and 4 workers."""

from __future__ import annotations

import pytest

from harness.load.scaling import advice, needed, slope

SCALES = {1: 100_000.0, 2: 180_000.0, 4: 340_000.0}
TAKEN = {1: 100_000.0, 2: 105_000.0, 4: 95_000.0}
"""Of a machine whose cores one worker and the broker have already."""


def test_the_slope_is_what_a_further_worker_adds():
    """Least squares over the number of workers."""
    assert 80_000 == pytest.approx(slope(SCALES))


@pytest.mark.parametrize(
    ("eps", "workers"),
    [
        pytest.param(70_000, 1, id="a worker with its reserve"),
        pytest.param(70_001, 2, id="just above"),
        pytest.param(126_000, 2, id="two with theirs"),
        pytest.param(126_001, 3, id="more than two"),
    ],
)
def test_workers_for_a_rate_leave_a_reserve(eps, workers):
    """70 % of what each adds."""
    assert workers == needed(SCALES, eps)


def test_more_machines_are_advised_where_more_workers_add_nothing():
    """And no formula that would divide by next to nothing."""
    assert "on more machines (--master)" in advice(TAKEN)[-1]
    assert "--workers 1 +" not in " ".join(advice(TAKEN))


def test_the_advice_has_its_formula():
    """And the rate above which this machine is not enough."""
    assert "--workers 1 + ⌈(rate − 70,000) ÷ 56,000⌉, such as 2 for 105,000" in advice(SCALES)[-1]
    assert "above 238,000 events/s use more machines" in advice(SCALES)[-1]
