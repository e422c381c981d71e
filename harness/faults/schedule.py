"""When faults strike: each at its position of the stream, one after the other, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from harness.errors import HarnessError
from harness.faults import Struck
from harness.history import Recorder
from harness.scenario import FAULTS_OF_RESTARTS, Fault


class Schedule:
    """The faults that are still to come; each is written down once it has healed."""

    def __init__(
        self,
        faults: Sequence[Fault],
        acknowledged: Callable[[], int],
        read: Callable[[], int],
        strike: Callable[[Fault], Struck],
        history: Recorder,
    ) -> None:
        """`acknowledged` and `read` are numbers of events, `strike` does one fault from stroke to healing."""
        self._left = sorted(faults, key=lambda fault: fault.at)
        self._acknowledged = acknowledged
        self._read = read
        self._healed = (0, 0)
        self._strike = strike
        self._history = history
        self._thread: threading.Thread | None = None
        self._errors: list[HarnessError] = []

    def look(self) -> None:
        """Strike when the next one is due and the one before has healed; raises what went wrong in the last."""
        if self._errors:
            raise self._errors[0]
        if self._left and not self._striking() and self._is_due(self._left[0]):
            args = (self._left.pop(0), self._acknowledged(), self._read())
            self._thread = threading.Thread(target=self._one, args=args, daemon=True, name="fault")
            self._thread.start()

    def is_over(self) -> bool:
        """Whether all have struck and healed."""
        self.look()
        return not self._left and not self._striking()

    def _is_due(self, fault: Fault) -> bool:
        acknowledged, read = self._healed
        enough = max(read + fault.after, acknowledged if fault.caught_up else 0)
        return self._acknowledged() >= fault.at and self._read() >= enough

    def _striking(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _one(self, fault: Fault, acknowledged: int, read: int) -> None:
        try:
            struck = self._strike(fault)
        except HarnessError as error:
            self._errors.append(error)
            return
        self._healed = (self._acknowledged(), self._read())
        self._history.write(
            "fault",
            fault=named(fault),
            at=fault.at,
            struck_at=acknowledged,
            unread=max(0, acknowledged - read),
            at_s=struck.at_s,
            proved=struck.proved,
            proof=struck.proof,
            healed_s=struck.healed_s,
        )


def named(fault: Fault) -> str:
    """A fault in a few words, for a table or a chart."""
    if fault.kind == "crash":
        return f"crash {fault.point} of {fault.query}"
    if fault.kind == "change":
        return " ".join(("change", *(fault.flags or ("pipeline",))))
    if fault.kind in FAULTS_OF_RESTARTS:
        return f"{fault.kind} of {fault.query}"
    return f"{fault.kind} {fault.on}"
