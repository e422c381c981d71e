"""Crash points: the driver is killed at a chosen point of a micro-batch, and the files on disk show whether it was there.

A batch N of a query writes `offsets/N`, then its rows to the sink, then `commits/N`. What stands there after
the kill shows which point it was; a kill that came too late is repeated at a later batch, and never counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.faults.target import Patience
from harness.scenario import CRASH_POINTS

LOOK_EVERY_S = 0.0005
STATE = re.compile(r"\.?(\d+)\.(?:delta|snapshot|zip|changelog)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """What a query's checkpoint and sink show: the last batch begun, committed and with state files, and the sink's size."""

    begun: int
    committed: int
    rows: int
    state: int = -1


POINTS = CRASH_POINTS
"""`after offsets`: batch N is begun and its rows are not in the sink. `in state`: a file of its state is there, and it
is not committed. `after sink`: rows of it are in the sink, some of them or all, and it is not committed. `after commits`:
it is committed and N + 1 is not begun, which is also before `offsets` of N + 1."""


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
    """What stands there once the batch before is committed and this one is not begun; None until then.

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
