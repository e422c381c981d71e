"""The watermarks of a query's batches, and which of them judges late rows."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The watermark at which each batch of a query ran, in epoch ms; they never fall."""

    at: tuple[int, ...]
    lateness: Literal["previous", "own", "never"] = "previous"
    """What late rows are judged by; `own` and `never` are what a wrong pipeline may do."""

    def before(self, batch: int) -> int:
        """What late rows of a batch are judged by: the watermark of the batch before it, 0 for the first."""
        if self.lateness == "never":
            return -(2**62)
        number = batch if self.lateness == "own" else batch - 1
        return self.at[number] if number >= 0 else 0

    def first_at(self, moment_ms: int) -> int | None:
        """The first batch whose watermark has reached a moment; None where none has."""
        found = bisect_left(self.at, moment_ms)
        return found if found < len(self.at) else None
