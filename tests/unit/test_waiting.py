"""A standstill is told from a long batch: by commits, offsets and CPU, on a clock that is not real."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from harness.engines.process import Checkpoint
from harness.errors import StackError, Stalled
from harness.rundir import history
from harness.runner import waiting
from harness.runner.waiting import STALL_S, Work, batch_patience_s, eventually
from tests import fakes


@pytest.fixture
def rig() -> SimpleNamespace:
    """A clock, a process and a checkpoint, and `wait(condition, batch_s)` on them."""
    clock = fakes.Clock()
    process, checkpoint = fakes.Process(clock), fakes.Checkpoint(clock)

    def wait(condition: Callable[[], bool] = lambda: False, batch_s: float = 300.0) -> None:
        work = Work(checkpoint.under_way, process.cpu_s, lambda: batch_s)
        eventually(condition, checkpoint.committed, "all commits", work=work, clock=clock, now=clock, sleep=clock.sleep)

    return SimpleNamespace(clock=clock, process=process, checkpoint=checkpoint, wait=wait, start_s=clock())


def test_a_long_working_batch_is_progress(rig):
    """Four minutes of CPU without a commit, then the commit."""
    rig.checkpoint.begin("sessions", 3)
    rig.process.use(1.5)
    rig.clock.at(240, lambda: rig.checkpoint.commit("sessions"))

    rig.wait(lambda: rig.checkpoint.commits == 1)

    assert 240 <= rig.clock() - rig.start_s < 241


def test_a_hung_batch_is_a_standstill(rig):
    """No CPU and no new offsets: found after STALL_S, with the query and its batch."""
    rig.checkpoint.begin("sessions", 3)

    with pytest.raises(Stalled, match=r"all commits: no progress past 0 for 60 s: sessions is at batch 3 for 60 s"):
        rig.wait()

    assert STALL_S < rig.clock() - rig.start_s < STALL_S + 1


def test_idle_noise_is_not_work(rig):
    """A process that polls and hangs uses a little CPU."""
    rig.checkpoint.begin("sessions", 3)
    rig.process.use(waiting.BUSY_CORES / 2)

    with pytest.raises(Stalled, match="no progress past 0 for 60 s"):
        rig.wait()


def test_later_hang_is_found(rig):
    """STALL_S counts from its last work."""
    rig.checkpoint.begin("sessions", 3)
    rig.process.use(1.0)
    rig.clock.at(100, lambda: rig.process.use(0.0))

    with pytest.raises(Stalled, match="sessions is at batch 3"):
        rig.wait()

    assert 100 + STALL_S - waiting.WINDOW_S < rig.clock() - rig.start_s < 100 + STALL_S + waiting.WINDOW_S + 1


def test_cpu_alone_is_no_progress(rig):
    """Work counts only for a batch that is under way."""
    rig.process.use(2.0)

    with pytest.raises(Stalled, match=r"no progress past 0 for 60 s$"):
        rig.wait()


def test_new_offsets_are_progress(rig):
    """An entry of the offset log ahead of the commit counts, without CPU."""
    rig.clock.at(50, lambda: rig.checkpoint.begin("revenue", 8))

    with pytest.raises(Stalled, match="revenue is at batch 8 for 60 s"):
        rig.wait()

    assert 50 + STALL_S < rig.clock() - rig.start_s < 50 + STALL_S + 1


def test_patience_with_work_ends(rig):
    """A batch that works for ever ends the wait, and each query is named with its batch and its age."""
    rig.checkpoint.begin("sessions", 3)
    rig.clock.sleep(7)
    rig.checkpoint.begin("revenue", 9)
    rig.process.use(2.0)

    with pytest.raises(Stalled) as stalled:
        rig.wait(batch_s=200)

    assert "committed nothing for 200 s" in str(stalled.value)
    assert "pipeline.batch_s" in str(stalled.value)
    assert "sessions is at batch 3 for 207 s, revenue is at batch 9 for 200 s" in str(stalled.value)


def test_a_commit_renews_the_patience(rig):
    """Three batches of 150 s each, with 200 s allowed."""
    rig.process.use(1.0)
    for number in range(3):
        rig.clock.at(150 * number, lambda number=number: rig.checkpoint.begin("sessions", number))
        rig.clock.at(150 * number + 149, lambda: rig.checkpoint.commit("sessions"))

    rig.wait(lambda: rig.checkpoint.commits == 3, batch_s=200)

    assert rig.clock() - rig.start_s >= 448


def test_error_ends_the_wait(rig):
    """A pipeline that died is no standstill."""

    def look() -> None:
        raise StackError("it died")

    with pytest.raises(StackError, match="it died"):
        eventually(lambda: False, lambda: 0, "it", look=look, clock=rig.clock, sleep=rig.clock.sleep)


@pytest.mark.parametrize(
    ("backlog", "patience_s"),
    [
        pytest.param(0, 300, id="none"),
        pytest.param(600_000, 900, id="at the required rate"),
        pytest.param(6_000_000, 3600, id="bounded"),
        pytest.param(-5, 300, id="ahead"),
    ],
)
def test_patience_follows_from_the_backlog(backlog, patience_s):
    """The field, and the time that the backlog takes at the required rate, with a bound."""
    assert patience_s == batch_patience_s(300, backlog, 1000, 3600)


def test_batch_lasts_until_commit(tmp_path):
    """The newest entry of the offset log without a commit, with the time at which it was written."""
    with history.recording(tmp_path) as happenings:
        checkpoint = Checkpoint(str(tmp_path / "{query}"), tmp_path / "kept", {"a": [], "b": []}, happenings)
        for log, number in (("offsets", 0), ("offsets", 1), ("commits", 0)):
            (tmp_path / "a" / log).mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / log / str(number)).touch()

        written_s = (tmp_path / "a" / "offsets" / "1").stat().st_mtime
        assert {"a": (1, written_s)} == checkpoint.under_way()

        (tmp_path / "a" / "commits" / "1").touch()
        assert {} == checkpoint.under_way()
