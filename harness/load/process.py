"""The load engine as a child process: commands on its standard input, status on its standard output."""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from harness.errors import StackError
from harness.host import processes


class Load:
    """The load engine's process."""

    def __init__(self, args: list[str], log: Path) -> None:
        self._args = args
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self.sent = 0
        self.acknowledged = 0
        self.flush_ms = 0
        self._cpu_s = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, or None before the start."""
        return self._process.pid if self._process else None

    def cpu_s(self) -> float:
        """CPU seconds of the process; after its end, the last value that it reported."""
        if self._process is not None and self._process.poll() is None:
            self._cpu_s = max(self._cpu_s, processes.tree_cpu_s(self._process.pid))
        return self._cpu_s

    def start(self) -> None:
        """Start the engine; it begins at the plan's start time."""
        self._process = processes.spawn(self._args, log=self._log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._follow, daemon=True, name="load")
        self._reader.start()

    def enough(self) -> None:
        """Have it send no further event of the plan."""
        self._say(b"enough\n")

    def flush(self) -> None:
        """Have it send the flush events, once everything that it sent is acknowledged, and end."""
        self._say(b"flush\n")

    def _say(self, word: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: `finished` raises, with its last line
            self._process.stdin.write(word)
            self._process.stdin.flush()

    def finished(self) -> bool:
        """Whether it has ended well; raises StackError if it ended otherwise."""
        code = None if self._process is None else self._process.poll()
        if code:
            lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
            raise StackError(f"the load engine ended with code {code}: {lines[-1] if lines else 'it printed nothing'}")
        if code == 0 and self._reader is not None:
            self._reader.join()  # its last line has the end of the flush
        return code == 0

    def stop(self) -> None:
        """Stop it; it writes down what it had sent."""
        if self._process is not None:
            processes.stop(self._process, 3.0)
            if self._process.stdin is not None:
                with suppress(BrokenPipeError):  # a word that it never took is still in the buffer
                    self._process.stdin.close()
            if self._reader is not None:
                self._reader.join(5)

    def _follow(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            self.sent, self.acknowledged = event.get("sent", self.sent), event.get("acked", self.acknowledged)
            self.flush_ms = event.get("flush_ms", self.flush_ms)
            self._cpu_s = max(self._cpu_s, event.get("cpu_s", 0.0))
        self._process.stdout.close()
