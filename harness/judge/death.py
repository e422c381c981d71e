"""How a pipeline died: when, with which exit code, of which cause, and where its log is.

The cause is the one that was recorded at the death, or else the innermost one that the log names.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from harness.host import cause
from harness.rundir.events import FaultHealed, FaultInjected, Interrupted, PipelineEnded, Process
from harness.rundir.history import Run

LINES = 10
"""Last lines of the log that are shown."""


def explained(run: Run) -> Iterator[str]:
    """The death of the run's pipeline in lines; none where it did not end by itself."""
    for died in run.of(PipelineEnded):
        phase = next((event.phase for event in run.of(Interrupted)), "unknown")
        yield f"the pipeline ended by itself in phase {phase} with code {died.code}, at {_clock(died.t)}{_lived(run, died)}"
        log = _log(run, died)
        found = died.cause or (cause.of_log(log) if log else died.last)
        yield f"  cause    {found}"
        if died.last not in (found, ""):
            yield f"  last     {died.last}"
        yield from (f"  before   {line}" for line in _faults(run))
        if died.brokers_down:
            yield f"  down     brokers {', '.join(map(str, died.brokers_down))}"
        yield f"  log      {log or 'none is in the run directory'}"
        yield from (f"    {line}" for line in (cause.last_lines(log, LINES) if log else ()))


def _clock(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S.%f}"[:-3] + " UTC"


def _lived(run: Run, died: PipelineEnded) -> str:
    """How long after its last start."""
    started = [event.t for event in run.of(Process) if event.event == "start" and event.t <= died.t]
    return f", {died.t - started[-1]:.1f} s after its start" if started else ""


def _log(run: Run, died: PipelineEnded) -> Path | None:
    """The log of the process that died; older histories do not name it, and the newest log of the pipeline stands for it."""
    logs = run.directory / "logs"
    named = run.directory / died.log if died.log else max(logs.glob("pipeline*.log"), key=_number, default=logs)
    return named if named.is_file() else None


def _number(log: Path) -> int:
    """Which process of the pipeline wrote a log, counted from 1."""
    digits = log.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 1


def _faults(run: Run) -> Iterator[str]:
    """The faults that had been injected, and whether each had healed."""
    healed = {event.index: event.healed_s for event in run.of(FaultHealed)}
    for event in run.of(FaultInjected):
        end = "not healed" if healed.get(event.index) is None else f"healed at {_clock(healed[event.index] or 0.0)}"
        yield f"{event.fault.name} at event {event.fault.at:,}, injected at {_clock(event.t)}, {end}"
