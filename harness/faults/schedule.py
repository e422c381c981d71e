"""When faults strike: each at its position of the stream, one after the other, each in a thread of its own."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import HarnessError, StackError
from harness.faults import Outcome
from harness.faults.target import Cancelled
from harness.rundir.events import FaultHealed, FaultInjected, Recorder
from harness.scenario import Fault, in_order


@dataclass(frozen=True, slots=True)
class Counts:
    """How many events of the load have been sent, acknowledged, and read by every query that reads them, up to now."""

    sent: Callable[[], int]
    acknowledged: Callable[[], int]
    read: Callable[[], int]


class Schedule:
    """The faults that are still to come; each is written down when it strikes, and all of it once it has healed."""

    def __init__(
        self,
        faults: Sequence[Fault],
        counts: Counts,
        strike: Callable[[Fault], Outcome],
        history: Recorder,
    ) -> None:
        """`strike` does one fault from stroke to healing."""
        self._left = list(enumerate(in_order(faults)))
        self._counts = counts
        self.struck_s = 0.0
        """When the last one that has healed had struck."""
        self._read_when_healed = 0
        self._goal: int | None = None
        self._strike = strike
        self._history = history
        self._thread: threading.Thread | None = None
        self._errors: list[HarnessError] = []

    def look(self) -> None:
        """Strike when the next one is due and the one before has healed; raises what went wrong in the last."""
        if self._errors:
            raise self._errors[0]
        if self._left and not self.is_striking() and self._is_due(self._left[0][1]):
            self._goal = None
            index, fault = self._left.pop(0)
            args = (index, fault, self._counts.acknowledged(), self._counts.read())
            self._history.write(FaultInjected(index=index, fault=fault))
            self._thread = threading.Thread(target=self._one, args=args, daemon=True, name="fault")
            self._thread.start()

    def is_over(self) -> bool:
        """Whether all have struck and healed."""
        self.look()
        if self._left or self.is_striking():
            return False
        self.look()  # what went wrong in one that has ended since
        return True

    def is_settled(self, rest: int) -> bool:
        """Whether all is over, and everything is read that was sent until then, and `rest` events more."""
        return self.is_over() and self._has_caught_up(rest)

    def close(self) -> None:
        """Strike none of those that are still to come."""
        self._left.clear()

    def join(self, wait_s: float) -> None:
        """Wait until the one that is striking has been broken off."""
        self.close()
        if self._thread is not None:
            self._thread.join(wait_s)

    def _is_due(self, fault: Fault) -> bool:
        if self._counts.acknowledged() < fault.at or self._counts.read() < self._read_when_healed + fault.after:
            return False
        return not fault.caught_up or self._has_caught_up()

    def _has_caught_up(self, more: int = 0) -> bool:
        """Whether what had been sent when this was first asked is read; after an outage much of it is not acknowledged."""
        if self._goal is None:
            self._goal = self._counts.sent() + more
        return self._counts.read() >= self._goal

    def is_striking(self) -> bool:
        """Whether one has struck and not healed."""
        return self._thread is not None and self._thread.is_alive()

    def _one(self, index: int, fault: Fault, acknowledged: int, read: int) -> None:
        try:
            struck = self._strike(fault)
        except Cancelled:
            return
        except HarnessError as error:
            self._errors.append(error)
            return
        except Exception as error:
            traceback.print_exception(error)
            self._errors.append(StackError(f"the fault {fault.name} broke off, {type(error).__name__}: {error}"))
            return
        self._read_when_healed = self._counts.read()
        self.struck_s = struck.at_s
        self._history.write(
            FaultHealed(
                index=index,
                fault=fault,
                targets=tuple(struck.proof["up_after"]),
                acknowledged=acknowledged,
                unread=max(0, acknowledged - read),
                at_s=struck.at_s,
                effect_observed=struck.proved,
                proof=dict(struck.proof),
                healed_s=struck.healed_s,
            )
        )
