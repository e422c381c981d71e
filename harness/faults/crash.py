"""Crash points: the driver is killed at a chosen point of a micro-batch, and the files on disk show whether it was there.

A batch N of a query writes `offsets/N`, then its rows to the sink, then `commits/N`. What is there after
the kill shows which point it was; a kill that came too late is repeated at a later batch, and never counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.faults import parts
from harness.faults.kind import CRASH_POINTS, Fault, FaultKind
from harness.faults.needs import Need
from harness.faults.target import Outcome, Patience, Target
from harness.faults.testbed import Testbed

LOOK_EVERY_S = 0.0005
# Crashes that miss their point before the fault gives up.
MISSES_MAX = 5
# `after offsets`: batch N is begun and its rows are not in the sink. `in state`: a file of its state is there, and it
# is not committed. `after sink`: rows of it are in the sink, some of them or all, and it is not committed. `after commits`:
# it is committed and N + 1 is not begun, which is also before `offsets` of N + 1.
POINTS = CRASH_POINTS
STATE = re.compile(r"\.?(\d+)\.(?:delta|snapshot|zip|changelog)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """What a query's checkpoint and sink show: the last batch begun, committed and with state files, and the sink's size."""

    begun: int
    committed: int
    rows: int
    state: int = -1


@dataclass(frozen=True, slots=True)
class Query:
    """Where one query shows how far it is: its checkpoint, and the number of records or rows in its sink."""

    checkpoint: Path
    sink: Callable[[], int]

    def begun(self) -> int:
        """The last batch whose offsets are written, −1 for none."""
        return _last(self.checkpoint / "offsets")

    def committed(self) -> int:
        """The last batch that is committed, −1 for none."""
        return _last(self.checkpoint / "commits")

    def place(self) -> Place:
        """All of it; what has begun is read last, so that a batch that is not begun has left nothing in the rest."""
        rows, state, committed = self.sink(), self.state(), self.committed()
        return Place(self.begun(), committed, rows, state)

    def state(self) -> int:
        """The last batch of which a state file is there, finished or half-written; −1 for none.

        State of batch N has version N + 1: `N+1.delta`, `.N+1.delta.<id>.tmp`, or RocksDB's `N+1.zip` and `.changelog`.
        """
        versions = (
            STATE.match(path.name) for path in (self.checkpoint / "state").glob("*/*/**/*") if path.name != "_metadata"
        )
        return max((int(found[1]) - 1 for found in versions if found), default=-1)


@dataclass(frozen=True, slots=True)
class Hit:
    """A kill at a crash point: its batch and time, the files before and after, whether it was `killed` at all, and whether
    it hit the point."""

    point: str
    batch: int
    before: Place
    after: Place
    killed: bool
    hit: bool
    at_s: float


def crash(fault: Fault, pipeline: Target, query: Query, patience: Patience) -> Outcome:
    """The pipeline dies at a point of a micro-batch; after a miss it is started again and killed in a later batch.

    Where the point does not come it is let alone, and nothing is proved.
    """
    misses, first_s = 0, None
    while True:
        before = pipeline.is_up()
        hit = kill_at(fault.point, query, pipeline.kill, patience)
        first_s = first_s or round(hit.at_s, 3)
        after = pipeline.is_up()
        if hit.killed:
            patience.sleep(fault.for_s)  # the fault's own length
            pipeline.start()
        healed_s = patience.healed_s(pipeline.is_up)
        if hit.hit or not hit.killed or misses == MISSES_MAX or healed_s is None:
            break
        misses += 1
    proof = {
        "up_before": before,
        "up_after": {"pipeline": after or not hit.hit},
        "misses": misses,
        "first_s": first_s,
        **asdict(hit),
    }
    return Outcome(fault, hit.at_s, proof, healed_s)


def kill_at(point: str, query: Query, kill: Callable[[], None], patience: Patience) -> Hit:
    """Wait for the point in a batch that has not begun, kill, and compare the files; `killed` is false if the time is over."""
    before: Place | None = None
    batch = query.begun() + 1
    end = patience.clock() + patience.for_s
    while patience.clock() <= end:
        if before is None:
            before, batch = _between(query, batch)
        elif _reached(point, query, batch, before.rows):
            at_s = patience.clock()
            kill()
            after = query.place()
            return Hit(point, batch, before, after, True, _was_at(point, batch, before, after), at_s)
        elif query.committed() >= batch:
            # It wrote nothing, or was too quick: the next one.
            before, batch = None, batch + 1
        patience.sleep(LOOK_EVERY_S)
    now = query.place()
    return Hit(point, batch, before or now, now, False, False, patience.clock())


def _between(query: Query, batch: int) -> tuple[Place | None, int]:
    """What is there once the batch before is committed and this one is not begun; None until then.

    Only then the rows in the sink are all of earlier batches. A batch that began too soon to be seen is passed over.
    """
    if query.committed() < batch - 1:
        return None, batch
    place = query.place()
    return (place, batch) if place.begun < batch else (None, place.begun + 1)


def _reached(point: str, query: Query, batch: int, rows: int) -> bool:
    match point:
        case "after offsets":
            return query.begun() >= batch
        case "after commits":
            return query.committed() >= batch
        case "in state":
            return query.begun() >= batch and query.state() >= batch
    return query.begun() >= batch and query.sink() > rows


def _was_at(point: str, batch: int, before: Place, after: Place) -> bool:
    match point:
        case "after offsets":
            return (after.begun, after.committed, after.rows) == (batch, batch - 1, before.rows)
        case "after commits":
            return after.begun == after.committed == batch
        case "in state":
            return (after.begun, after.committed, after.state) == (batch, batch - 1, batch)
    return (after.begun, after.committed) == (batch, batch - 1) and after.rows > before.rows


def _last(folder: Path) -> int:
    try:
        return max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=-1)
    except FileNotFoundError:
        return -1


def _inject(bed: Testbed, fault: Fault) -> Outcome:
    return crash(fault, bed.pipeline, bed.progress(fault.query), bed.patience)


def _state(fault: Fault) -> tuple[Need, ...]:
    return (Need.STATE,) if fault.point == "in state" else ()


CRASH = FaultKind(
    name="crash",
    about="The pipeline is killed at a point of a micro-batch of one query; after a miss, in a later batch.",
    effect="The files on disk show after the death that it was at the point.",
    heals="The pipeline works again after its start.",
    targets=(parts.PIPELINE,),
    inject=_inject,
    needs=(Need.CHECKPOINT,),
    needs_also=_state,
    fields=("point", "query"),
    title=lambda fault: f"crash {fault.point} of {fault.query}",
)
