"""One child process: started, stopped, killed, frozen and resumed, as often as asked; its CPU, its end and its log.

It knows nothing of what the process does: `works` is the caller's look at that. Brokers, Spark's daemons, the pipeline,
the load engine and the relay are adapters of it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from harness.errors import StackError
from harness.host import cause, processes
from harness.host.waiting import await_true

Command = Sequence[str | Path]


class Service:
    """A child process, from one start to the next."""

    def __init__(
        self,
        name: str,
        command: Command | Callable[[], Command],
        log: Path,
        *,
        works: Callable[[], bool] = lambda: True,
        grace_s: float = 10.0,
        start_s: float = 60.0,
        reason: Callable[[str], str] = processes.last_said,
        **how: Any,
    ) -> None:
        """`name` is used in errors. A `command` that is a function is called at each start.

        `works` is whether it does its work while it runs. It has `grace_s` seconds to end when it is asked to, and
        `start_s` to work after its start. `reason` finds the line of its log that has the reason of an end. `how` are
        further arguments of `processes.spawn`.
        """
        self.name = name
        self.log = log
        self._command = command
        self._works = works
        self._grace_s = grace_s
        self._start_s = start_s
        self._reason = reason
        self._how = how
        self._process: subprocess.Popen[bytes] | None = None
        self._may_end = True
        self._cpu_s = 0.0
        # Of the processes before this one.
        self._before_cpu_s = 0.0

    @property
    def pid(self) -> int | None:
        """The id of its process while that runs."""
        return self._process.pid if self._process is not None and self.code() is None else None

    @property
    def last_pid(self) -> int:
        """The id of its last process, whether or not that still runs; it has been started."""
        assert self._process is not None
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        """Its standard input, where it was started with ``stdin=subprocess.PIPE``."""
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Its standard output, where it was started with ``stdout=subprocess.PIPE``."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    def code(self) -> int | None:
        """The exit code of its last process, negative for a signal; None while that runs, and before the first start."""
        if self._process is None:
            return None
        if self._process.returncode is None and processes.has_ended(self._process):
            self._sample()  # until it is waited for, the kernel has what it used
        return self._process.poll()

    def cpu_s(self) -> float:
        """CPU seconds of all its processes and what came from them, also of those that have ended."""
        if self.code() is None:
            self._sample()
        return self._before_cpu_s + self._cpu_s

    def last_line(self) -> str:
        """The line of its log that has the reason of its end."""
        return self._reason(cause.tail(self.log))

    def start(self, wait_s: float | None = None) -> None:
        """Start it where it does not run, and wait until it works; 0 does not wait, None waits for its usual time.

        Raises StackError that ends with the reason where it ends or the time is over, OSError where there is no such program.
        """
        if self.pid is None:
            command = self._command() if callable(self._command) else self._command
            self._before_cpu_s, self._cpu_s = self.cpu_s(), 0.0
            self._process = processes.spawn(command, log=self.log, **self._how)
            self._may_end = False
        wait_s = self._start_s if wait_s is None else wait_s
        if wait_s > 0:
            self.await_up(wait_s)

    def await_up(self, wait_s: float | None = None) -> None:
        """Wait until it works; StackError where it ends or the time is over."""
        wait_s = self._start_s if wait_s is None else wait_s
        if not await_true(lambda: self.pid is None or self.is_up(), wait_s):
            raise StackError(f"{self.name} does not work after {wait_s:.0f} s: {self.last_line()}")
        if self.pid is None:
            raise StackError(f"{self.name} ended with {self.code()} while it started: {self.last_line()}")

    def check(self) -> None:
        """Raise StackError where it has ended, and nobody has stopped or killed it."""
        if not self._may_end and (code := self.code()) is not None:
            raise StackError(f"{self.name} ended with {code}, by no fault: {self.last_line()}")

    def is_up(self) -> bool:
        """Whether it runs, is not frozen, and does its work."""
        pid = self.pid
        return pid is not None and not processes.is_frozen(pid) and self._works()

    def stop(self, grace_s: float | None = None) -> bool:
        """Ask it to end, and kill what is left of it; false where it had to be killed itself."""
        self._may_end = True
        if self._process is None:
            return True
        return processes.stop(self._process, self._grace_s if grace_s is None else grace_s, at_end=self._sample)

    def kill(self) -> None:
        """SIGKILL, with all that it started.

        It stops at this point: it does no more work while what came from it is looked for, and the CPU of that is read.
        """
        self._may_end = True
        if self._process is None:
            return
        if self._process.returncode is None:
            processes.signal_tree(self._process.pid, signal.SIGSTOP)
            self._sample()
        processes.kill_tree(self._process)

    def pause(self) -> None:
        """Freeze it with all that it started; StackError where it does not run."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; StackError where it does not run."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it, and close the ends of its pipes; a reader of its output must have come to its end."""
        self.kill()
        for stream in (self._process.stdin, self._process.stdout) if self._process is not None else ():
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what it has not read is still in the buffer
                    stream.close()

    def _sample(self) -> None:
        """Read the CPU of its process; one that another thread has waited for meanwhile has the value that was read last."""
        if self._process is not None and self._process.returncode is None:
            self._cpu_s = max(self._cpu_s, processes.tree_cpu_s(self._process.pid))

    def _signal(self, number: int) -> None:
        if (pid := self.pid) is None:
            raise StackError(f"{self.name} does not run")
        processes.signal_tree(pid, number)
