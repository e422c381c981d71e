"""Histories of format 1 as today's events.

Format 1 named a fault by a display string and its position. Faults were injected one after the other, in the order of
their positions, so that the order of the lines gives each fault's index in the scenario.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.rundir.events import Event, FaultHealed, FaultInjected
from harness.scenario import Fault, Scenario, in_order


class Reader:
    """Reads the lines of one history, in order."""

    def __init__(self, scenario: Scenario) -> None:
        self._faults = in_order(scenario.fault)
        self._injected = self._healed = 0

    def decode(self, line: str) -> Event:
        """The event of the next line; msgspec.DecodeError where the line is none."""
        old = msgspec.json.decode(line, type=dict[str, Any])
        if old.get("kind") == "stroke":
            self._injected += 1
            return FaultInjected(t=old.get("t", 0.0), index=self._injected - 1, fault=self._fault(self._injected))
        if old.get("kind") == "fault":
            self._healed += 1
            return _healed(msgspec.convert(old, _Fault), self._healed - 1, self._fault(self._healed))
        return msgspec.convert(old, Event)  # type: ignore[no-any-return]

    def _fault(self, number: int) -> Fault:
        if number > len(self._faults):
            raise msgspec.ValidationError(f"fault {number} of a scenario that has {len(self._faults)}")
        return self._faults[number - 1]


class _Fault(msgspec.Struct):
    """A fault as format 1 wrote it."""

    t: float
    struck_at: int
    unread: int
    at_s: float
    proved: bool
    proof: dict[str, Any]
    healed_s: float | None


def _healed(old: _Fault, index: int, fault: Fault) -> FaultHealed:
    return FaultHealed(
        t=old.t,
        index=index,
        fault=fault,
        targets=tuple(old.proof.get("up_after", {})),
        acknowledged=old.struck_at,
        unread=old.unread,
        at_s=old.at_s,
        effect_observed=old.proved,
        proof=old.proof,
        healed_s=old.healed_s,
    )
