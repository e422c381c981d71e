"""Faults strike in the state that they wait for, one after the other."""

from __future__ import annotations

import re
from threading import Event
from types import SimpleNamespace

import pytest

from harness.errors import StackError
from harness.faults import Outcome
from harness.faults.target import Cancelled
from harness.rundir import history
from harness.runner.schedule import Counts, Schedule
from harness.scenario import Fault


class Stream:
    """Counts as a test sets them, and faults that take until they are let go."""

    def __init__(self, recorder, *faults: Fault) -> None:
        self.now = SimpleNamespace(sent=0, acknowledged=0, read=0)
        self.struck: list[Fault] = []
        self.begun, self.healed = Event(), Event()
        counts = Counts(*((lambda name=name: getattr(self.now, name)) for name in ("sent", "acknowledged", "read")))
        self.schedule = Schedule(faults, counts, self.strike, recorder)

    def strike(self, fault: Fault) -> Outcome:
        """Take effect, and heal when the test says so."""
        self.struck.append(fault)
        self.begun.set()
        assert self.healed.wait(10)
        return Outcome(fault, 0.0, {"up_before": True, "up_after": {}}, 1.0)

    def heal(self) -> None:
        """The fault that has struck is over."""
        self.healed.set()
        assert self.schedule._thread is not None
        self.schedule._thread.join(10)
        self.healed.clear()
        self.begun.clear()

    def at(self, sent: int, acknowledged: int, read: int) -> int:
        """How many have struck once the stream is here."""
        self.now.sent, self.now.acknowledged, self.now.read = sent, acknowledged, read
        self.schedule.look()
        if self.schedule.is_under_way():
            assert self.begun.wait(10)
        return len(self.struck)


@pytest.fixture
def recorder(tmp_path):
    """Of a history that nobody reads."""
    with history.recording(tmp_path) as one:
        yield one


def test_fault_waits_for_its_turn(recorder):
    """Of acknowledged events."""
    stream = Stream(recorder, Fault(at=200), Fault(at=100))

    assert [0, 1, 1] == [stream.at(300, 99, 0), stream.at(300, 100, 0), stream.at(300, 250, 0)]
    stream.heal()
    assert 2 == stream.at(300, 250, 0)
    stream.heal()
    assert stream.schedule.is_over()


def test_fault_can_wait_for_events(recorder):
    """However many are unread."""
    stream = Stream(recorder, Fault(at=100), Fault(at=101, after=50))
    assert 1 == stream.at(500, 500, 40)
    stream.now.read = 60
    stream.heal()

    assert [1, 2] == [stream.at(900, 900, 109), stream.at(900, 900, 110)]
    stream.heal()


def test_fault_can_wait_for_catch_up(recorder):
    """After an outage much of that is not acknowledged yet; the first fault waits as well."""
    stream = Stream(recorder, Fault(at=100, caught_up=True), Fault(at=101, caught_up=True))

    assert [0, 0, 1] == [stream.at(150, 100, 90), stream.at(200, 200, 149), stream.at(200, 200, 150)]
    stream.now.sent = 1000
    stream.heal()
    assert [1, 1, 2] == [stream.at(1000, 300, 300), stream.at(1200, 1200, 999), stream.at(1200, 1200, 1000)]
    stream.heal()


def test_settled_when_all_is_read(recorder):
    """And nothing strikes after it was closed."""
    stream = Stream(recorder, Fault(at=100), Fault(at=5000))
    stream.at(100, 100, 0)
    stream.heal()
    stream.schedule.close()

    assert 1 == stream.at(6000, 6000, 0)
    assert [False, False, True] == [
        stream.at(7000, 7000, read) and stream.schedule.is_settled(10) for read in (0, 7009, 7010)
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(StackError("no broker"), "no broker", id="of ours"),
        pytest.param(
            KeyError("page_views"), "the fault kill pipeline broke off, KeyError: 'page_views'", id="of anyone's"
        ),
    ],
)
def test_failed_fault_ends_the_run(recorder, error, said):
    """It is not over: what it has hurt is still down."""

    def strike(fault: Fault) -> Outcome:
        raise error

    schedule = Schedule([Fault(at=1)], Counts(lambda: 1, lambda: 1, lambda: 1), strike, recorder)
    schedule.look()
    assert schedule._thread is not None
    schedule._thread.join(10)
    with pytest.raises(StackError, match=re.escape(said)):
        schedule.is_over()


def test_aborted_fault_is_silent(recorder):
    """The run is over, for a reason of its own."""
    begun, over = Event(), Event()

    def strike(fault: Fault) -> Outcome:
        begun.set()
        assert over.wait(10)
        raise Cancelled

    schedule = Schedule([Fault(at=1), Fault(at=2)], Counts(lambda: 1, lambda: 1, lambda: 1), strike, recorder)
    schedule.look()
    assert begun.wait(10)
    over.set()
    schedule.join(10)

    assert schedule.is_over()
