"""The load engine as a child process: commands on its standard input, status on its standard output."""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import StackError
from harness.host.service import Service

# How long it may take to write down what it had sent, when it is asked to end.
GRACE_S = 3.0


class Load:
    """The load engine's process."""

    def __init__(self, args: list[str], log: Path) -> None:
        self._service = Service(
            "the load engine", args, log, grace_s=GRACE_S, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._reader: threading.Thread | None = None
        self.sent = 0
        self.acknowledged = 0
        self.flush_ms = 0
        self.delay_ms_p99 = 0.0
        # Of a load from several workers: each one's row of `harness.load.workers.Workers.table`.
        self.workers: list[dict[str, Any]] = []
        # The address of Locust's page, where there is one.
        self.page = ""
        self._ready = False
        self._cpu_s = 0.0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._service.pid

    def cpu_s(self) -> float:
        """CPU seconds of the process, also after its end."""
        return max(self._cpu_s, self._service.cpu_s())

    def prepare(self) -> None:
        """Start the process; it waits for `start` where the plan has no start time."""
        self._service.start(wait_s=0)
        self._reader = threading.Thread(target=self._follow, daemon=True, name="load")
        self._reader.start()

    def is_ready(self) -> bool:
        """Whether it can begin at once, all of its workers included."""
        return self._ready

    def start(self, at_s: float) -> None:
        """Have event 0 due at an epoch second."""
        self._command(b"start %.6f\n" % at_s)

    def enough(self) -> None:
        """Have it send no further event of the plan."""
        self._command(b"enough\n")

    def flush(self) -> None:
        """Have it send the flush events, once everything that it sent is acknowledged, and end."""
        self._command(b"flush\n")

    def _command(self, word: bytes) -> None:
        with suppress(BrokenPipeError):  # it has ended: `finished` raises, with its last line
            self._service.stdin.write(word)
            self._service.stdin.flush()

    def finished(self) -> bool:
        """Whether it has ended well; raises StackError if it ended otherwise."""
        code = self._service.code()
        if code:
            raise StackError(f"the load engine ended with code {code}: {self._service.last_line()}")
        if code == 0 and self._reader is not None:
            self._reader.join()  # its last line has the end of the flush
        return code == 0

    def stop(self) -> None:
        """Stop it; it writes down what it had sent."""
        self._service.stop()
        if self._reader is not None:
            with suppress(BrokenPipeError):  # a word that it never took is still in the buffer
                self._service.stdin.close()
            self._reader.join(5)

    def _follow(self) -> None:
        stream = self._service.stdout
        for line in stream:
            event = json.loads(line)
            self._ready |= event["event"] == "ready"
            self.workers, self.page = event.get("workers", self.workers), event.get("page", self.page)
            self.sent, self.acknowledged = event.get("sent", self.sent), event.get("acked", self.acknowledged)
            self.flush_ms = event.get("flush_ms", self.flush_ms)
            self.delay_ms_p99 = event.get("delay_ms_p99", self.delay_ms_p99)
            self._cpu_s = max(self._cpu_s, event.get("cpu_s", 0.0))
        stream.close()
