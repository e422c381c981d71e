"""A guard around each part of the judgement: a part that crashes is unknown and named, and the others still count.

A HarnessError is no crash: it reports a run directory that is damaged or incomplete, and ends the judgement.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

from harness.errors import HarnessError
from harness.model import Crash

Value = TypeVar("Value")
Other = TypeVar("Other")


class Guard:
    """Calls parts of the judgement and keeps the crashes of those that raise; a `strict` guard raises them instead."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.crashes: list[Crash] = []

    def of(self, part: str, compute: Callable[[], Value], otherwise: Other) -> Value | Other:
        """What `compute` returns, or `otherwise` where it crashes; `part` is the name that the crash is kept under."""
        try:
            return compute()
        except HarnessError:
            raise
        except Exception as error:
            if self.strict:
                raise
            trace = "".join(traceback.format_exception(error))
            self.crashes.append(Crash(part, f"{type(error).__name__}: {error}", trace))
            return otherwise


STRICT = Guard(strict=True)
"""For those who want the exception: tests of a part, and the self-check of the checkers."""
