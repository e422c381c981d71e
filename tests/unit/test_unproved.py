"""What a fault is said to lack."""

from __future__ import annotations

import pytest

from harness import recovery

TOOK = {"proved": True, "healed_s": 3.0, "proof": {"up_before": True, "up_after": {"broker 1": False}}}
UNHURT = {"up_before": True, "up_after": {"broker 1": False, "broker 2": True}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param(
            {"proved": False, "proof": {"up_before": False, "up_after": {"broker 1": False}}},
            "what it strikes did not work before",
            id="it was down already",
        ),
        pytest.param({"proved": False, "proof": UNHURT}, "no effect was seen on broker 2", id="one of two went on"),
        pytest.param({"proved": False, "proof": {}}, "no effect was seen", id="nothing is known of it"),
        pytest.param({"healed_s": None}, "it was not seen to heal", id="it stays down"),
    ],
)
def test_an_unproved_fault_says_which_part_of_its_proof_is_missing(changed, said):
    """So that one who reads the verdict knows where to look."""
    assert said == recovery.unproved(TOOK | changed)
