"""What a person sees while a run goes on: one live line on a terminal, plain lines elsewhere.

Everything goes to standard error; standard output is for results.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_EVERY_S = 5.0
# The width of a phase's name: the longest one, and a space.
NAME = len("cool down ")


class Status:
    """The phase of a run and its latest figures."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._phase = ""
        self._since = time.monotonic()
        self._printed = 0.0

    def __enter__(self) -> Status:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def phase(self, name: str, what: str = "") -> None:
        """A new phase begins."""
        self._phase, self._since = name, time.monotonic()
        self._console.print(Text.assemble((f"{name:<{NAME}}", "bold"), what), highlight=False)
        self._printed = time.monotonic()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(text), soft_wrap=True, highlight=False)

    def show(self, **figures: str) -> None:
        """The latest figures, by name."""
        elapsed = time.monotonic() - self._since
        line = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        if self._live:
            self._live.update(Text.assemble((f"{self._phase:<{NAME}}", "bold cyan"), f"{elapsed:4.0f} s  ", line))
        elif time.monotonic() - self._printed >= PLAIN_EVERY_S:
            self._printed = time.monotonic()
            self._console.print(f"{'':<{NAME}}{elapsed:4.0f} s  {line}", highlight=False, soft_wrap=True)
