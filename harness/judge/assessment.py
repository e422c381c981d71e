"""The assessment of a run: its verdict with all the evidence behind it, also as data frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import ScenarioError
from harness.job.clickstream.reference import Expected
from harness.judge import frames
from harness.judge.anomalies import Comparison
from harness.judge.timeline import Evidence
from harness.model import Anomaly, Result, Verdict
from harness.rundir.history import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Assessment:
    """A run directory and its result, with the timeline, the oracle's answers and the comparisons that it rests on.

    `evidence` is None where the run could not be judged; `answers` and `comparisons` are then empty, and lack a query
    whose oracle or rows crashed. `written` is False where the directory is read-only, and has no result and no report.
    """

    run: Run
    result: Result
    evidence: Evidence | None = None
    answers: Mapping[str, Expected] = field(default_factory=dict)
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    written: bool = True

    @property
    def verdict(self) -> Verdict:
        """Pass, fail or unknown."""
        return self.result.verdict

    @property
    def why(self) -> str:
        """The reason of the verdict, in a sentence."""
        return self.result.why

    @property
    def anomalies(self) -> tuple[Anomaly, ...]:
        """Every anomaly, causes first."""
        return self.result.anomalies

    def frame(self, name: str) -> pd.DataFrame:
        """A table of the run: "events", "batches", "rows", "samples" or "faults".

        The columns are in docs/reference/frames.md. ScenarioError for another name, or for a table that the run lacks
        because it was broken off.
        """
        if name == "samples":
            return frames.samples(self.run)
        if name == "faults":
            return frames.faults(self.result)
        if name not in frames.NAMES:
            raise ScenarioError(f"frame {name!r}: no such table; there are: {', '.join(frames.NAMES)}")
        if self.evidence is None:
            raise ScenarioError(f"frame {name!r}: {self.run.directory} could not be judged: {self.why}")
        if name == "events":
            return frames.events(self.evidence)
        if name == "batches":
            return frames.batches(self.evidence)
        return frames.rows(self.comparisons, self.result)
