"""When faults are injected: each at its position of the stream, one after the other, each in a thread of its own."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import HarnessError, StackError
from harness.faults import Cancelled, Fault, Outcome, in_order
from harness.rundir.events import FaultHealed, FaultInjected, Recorder


@dataclass(frozen=True, slots=True)
class Counts:
    """How many events of the load have been sent, acknowledged, and read by every query that reads them, up to now."""

    sent: Callable[[], int]
    acknowledged: Callable[[], int]
    read: Callable[[], int]


class Schedule:
    """The faults that are still to come; each is recorded when it is injected, and its outcome once it has healed."""

    def __init__(
        self,
        faults: Sequence[Fault],
        counts: Counts,
        inject: Callable[[Fault], Outcome],
        history: Recorder,
    ) -> None:
        """`inject` carries one fault out, from its injection until it has healed."""
        self._left = list(enumerate(in_order(faults)))
        self._counts = counts
        # When the last fault that has healed was injected.
        self.injected_s = 0.0
        self._read_when_healed = 0
        self._goal: int | None = None
        self._inject = inject
        self._history = history
        self._thread: threading.Thread | None = None
        self._errors: list[HarnessError] = []

    def look(self) -> None:
        """Inject the next fault when it is due and the one before has healed; raises what went wrong in the last."""
        if self._errors:
            raise self._errors[0]
        if self._left and not self.is_under_way() and self._is_due(self._left[0][1]):
            self._goal = None
            index, fault = self._left.pop(0)
            args = (index, fault, self._counts.acknowledged(), self._counts.read())
            self._history.write(FaultInjected(index=index, fault=fault))
            self._thread = threading.Thread(target=self._carry_out, args=args, daemon=True, name="fault")
            self._thread.start()

    def is_over(self) -> bool:
        """Whether all have been injected and have healed."""
        self.look()
        if self._left or self.is_under_way():
            return False
        self.look()  # what went wrong in a fault that has ended since
        return True

    def is_settled(self, rest: int) -> bool:
        """Whether all is over, and everything is read that was sent until then, and `rest` events more."""
        return self.is_over() and self._has_caught_up(rest)

    def close(self) -> None:
        """Inject no fault that is still to come."""
        self._left.clear()

    def join(self, wait_s: float) -> None:
        """Wait until the fault that is under way has been broken off."""
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

    def is_under_way(self) -> bool:
        """Whether a fault has been injected and has not healed."""
        return self._thread is not None and self._thread.is_alive()

    def _carry_out(self, index: int, fault: Fault, acknowledged: int, read: int) -> None:
        try:
            outcome = self._inject(fault)
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
        self.injected_s = outcome.at_s
        self._history.write(
            FaultHealed(
                index=index,
                fault=fault,
                targets=tuple(outcome.proof["up_after"]),
                acknowledged=acknowledged,
                unread=max(0, acknowledged - read),
                at_s=outcome.at_s,
                effect_observed=outcome.proved,
                proof=dict(outcome.proof),
                healed_s=outcome.healed_s,
            )
        )
