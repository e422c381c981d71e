"""A crash point is hit only when the disk shows it; what came too late is a miss."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.faults.crash import POINTS, Hit, Query, kill_at
from harness.faults.target import Patience


class Batches:
    """A query that does one thing each time somebody sleeps: offsets, state, rows, commit, and again."""

    def __init__(self, folder: Path, slow_kill: int = 0) -> None:
        for name in ("offsets", "commits", "state/0/0"):
            (folder / name).mkdir(parents=True)
        self.query = Query(folder, lambda: self.rows)
        self.rows = 0
        self.dead = False
        self.now = 0.0
        self.slow_kill = slow_kill
        self._done = 0

    def sleep(self, seconds: float) -> None:
        """The query goes on."""
        self.now += seconds
        if self.dead:
            return
        batch, part = divmod(self._done, 4)
        if part == 1:
            (self.query.checkpoint / "state/0/0" / f".{batch + 1}.delta.7.tmp").touch()
        elif part == 2:
            self.rows += 2
        else:
            (self.query.checkpoint / ("offsets" if part == 0 else "commits") / str(batch)).touch()
        self._done += 1

    def kill(self) -> None:
        """It may still do something before it dies."""
        for _ in range(self.slow_kill):
            self.sleep(0)
        self.dead = True

    def killed(self, point: str) -> Hit:
        """Strike at a point."""
        return kill_at(point, self.query, self.kill, Patience(5, lambda: self.now, self.sleep))


@pytest.mark.parametrize("point", POINTS)
def test_each_point_is_hit(tmp_path, point):
    """And the disk shows it."""
    assert Batches(tmp_path).killed(point).hit


@pytest.mark.parametrize(
    ("point", "steps"), [("after offsets", 2), ("in state", 2), ("after sink", 1), ("after commits", 1)]
)
def test_late_kill_is_a_miss(tmp_path, point, steps):
    """The query went on past the point before it died."""
    assert not Batches(tmp_path, slow_kill=steps).killed(point).hit


def test_batch_already_begun_is_not_killed(tmp_path):
    """What an earlier death left behind proves nothing of this one."""
    batches = Batches(tmp_path)
    batches.sleep(0)

    assert 1 == batches.killed("after offsets").batch


def test_idle_query_is_no_hit(tmp_path):
    """The time is over, and nobody is killed."""
    batches = Batches(tmp_path)
    batches.dead = True

    assert not batches.killed("after commits").hit
