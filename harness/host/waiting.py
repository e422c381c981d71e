"""Waiting for a condition, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable


def await_true(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Check a condition every 20 ms until it holds or the time is over; returns whether it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
