"""Events of a history as tests need them."""

from __future__ import annotations

from typing import Any

from harness.rundir.events import FaultHealed
from harness.scenario import Fault


def healed(at_s: float, healed_s: float | None, fault: Fault | None = None, **other: Any) -> FaultHealed:
    """A fault, by default a kill of the pipeline, that took effect and healed at these times."""
    usual: dict[str, Any] = {"index": 0, "acknowledged": 903, "unread": 7, "effect_observed": True, "proof": {}}
    return FaultHealed(
        t=at_s, fault=fault or Fault(at=900), targets=("pipeline",), at_s=at_s, healed_s=healed_s, **usual | other
    )
