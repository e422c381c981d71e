"""What is taken away is proved by what ends of it; what is refused, by the exit code and the line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import faults, scenario
from harness.errors import StackError
from harness.faults import restarts as again
from harness.faults.surroundings import take_away
from harness.runner import injector
from harness.scenario import Fault


class Pipeline:
    """A pipeline that refuses what it must, or does not; time passes when somebody sleeps."""

    def __init__(self, refuses: bool = True, goes_on: bool = False) -> None:
        self.up, self.code, self.refuses, self.goes_on = True, None, refuses, goes_on
        self.did: list[tuple[str, tuple[str, ...]]] = []
        self.may_end: list[bool] = []
        self.spoiled, self.orderly = False, True

    def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
        """Start, or end at once of what it refuses."""
        self.did.append(("start", tuple(flags)))
        self.may_end.append(may_end)
        refused = self.refuses and (self.spoiled or "--other" in flags)
        self.up, self.code = not refused, 1 if refused else None

    def stop(self) -> bool:
        """End in an orderly way."""
        self.up, self.code = False, 0
        return self.orderly

    def kill(self) -> None:
        """End at once."""
        self.up, self.code = False, -9

    def pause(self) -> None:
        """Not asked for here."""

    resume = pause

    def is_up(self) -> bool:
        """Whether it works."""
        return self.up

    def expect_end(self, expected: bool = True) -> None:
        """It may end by itself, or it may not."""
        self.may_end.append(expected)

    def ended(self) -> int | None:
        """Its exit code."""
        return self.code

    def last_line(self) -> str:
        """Why it refuses."""
        return "pipeline: no"


NOTHING = (lambda: None, lambda: {})
"""What is given back, and what is told."""


def patience() -> faults.Patience:
    """Five seconds, which pass when somebody sleeps."""
    now = [0.0]
    return faults.Patience(5, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds))


def restarts(pipeline: Pipeline, told: str = "") -> again.Restarts:
    """Of a pipeline whose refusals must match this."""
    return again.Restarts(pipeline, told, patience())


@pytest.mark.parametrize(
    ("flags", "refused", "refuses", "proved"),
    [
        pytest.param(["--new"], False, True, True, id="accepted"),
        pytest.param(["--other"], True, True, True, id="refused"),
        pytest.param(["--other"], True, False, False, id="accepted what it must refuse"),
        pytest.param(["--other"], False, True, False, id="refused what it must accept"),
    ],
)
def test_changes_follow_their_expectation(flags, refused, refuses, proved):
    """A refusal is undone by a start without the change."""
    pipeline = Pipeline(refuses)
    fault = Fault(kind="change", at=1, flags=tuple(flags), refused=refused)
    done = restarts(pipeline).changed(fault, lambda: None)

    assert proved is done.proved
    if refused and refuses:
        assert [("start", ("--other",)), ("start", ())] == pipeline.did
        assert [True, False] == pipeline.may_end
        assert (1, "pipeline: no") == (done.proof["code"], done.proof["said"])


def test_refused_upgrade_is_rolled_back():
    """Flags are for one start; another command would be refused again."""
    pipeline = Pipeline()
    pipeline.spoiled = True

    def undo() -> None:
        pipeline.spoiled = False

    done = restarts(pipeline).changed(Fault(kind="change", at=1, command=("new",), refused=True), undo)

    assert done.proved
    assert done.healed_s is not None


@pytest.mark.parametrize(
    ("code", "proved"),
    [
        pytest.param(1, True, id="it says why"),
        pytest.param(2, False, id="of a flag that is not there"),
        pytest.param(-9, False, id="killed by others"),
        pytest.param(137, False, id="killed by others, as a shell tells"),
    ],
)
def test_not_every_end_is_a_refusal(code, proved):
    """It is undone all the same."""

    class Ends(Pipeline):
        def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
            super().start(flags, may_end)
            self.code = code if flags else None

    pipeline = Ends(refuses=True)
    done = restarts(pipeline).changed(Fault(kind="change", at=1, flags=("--other",), refused=True), lambda: None)

    assert proved is done.proved
    assert pipeline.up


@pytest.mark.parametrize(
    ("said", "proved"),
    [
        ("pipeline: checkpoint /c/checkpoint/revenue/offsets/5: damaged", True),
        ("pipeline: checkpoint /c/checkpoint/revenue: older than its results", True),
        ("pipeline: no broker answers at 127.0.0.1:1", False),
        ("pipeline: query sessions died: No space left on device: /c/checkpoint/sessions/offsets/.7.tmp", False),
        ("pipeline: checkpoint /c/checkpoint/sessions/offsets/5: damaged", False),
    ],
)
def test_other_exits_are_no_refusal(said, proved):
    """A broker that does not answer in time ends it with the same code."""

    class Says(Pipeline):
        def last_line(self) -> str:
            return said

    fault = Fault(kind="change", at=1, flags=("--other",), refused=True)
    told = again.DAMAGED.replace("{query}", "revenue")
    assert proved is restarts(Says(), told).changed(fault, lambda: None).proved


def test_accepted_change_is_observed():
    """When it ends later, nobody expects that."""
    pipeline = Pipeline(refuses=False)
    restarts(pipeline).changed(Fault(kind="change", at=1, flags=("--other",), refused=True), lambda: None)

    assert [True, False] == pipeline.may_end


@pytest.fixture
def checkpoint(tmp_path):
    """Three batches of a query, with state."""
    for number in range(3):
        for log in ("offsets", "commits"):
            (tmp_path / "checkpoint" / "q" / log).mkdir(parents=True, exist_ok=True)
            (tmp_path / "checkpoint" / "q" / log / str(number)).write_text(f"v1\n{number}")
    (tmp_path / "checkpoint" / "q" / "state" / "0" / "0").mkdir(parents=True)
    (tmp_path / "checkpoint" / "q" / "state" / "0" / "0" / "1.delta").write_text("state")
    return tmp_path / "checkpoint"


def contents(folder):
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("damage", "changed"),
    [
        (again.cut_newest_offsets, "q/offsets/2"),
        (again.remove_offsets, "q/offsets/1"),
        (again.remove_state, "q/state/0/0/1.delta"),
    ],
)
def test_damaged_checkpoint_is_restored(tmp_path, checkpoint, damage, changed):
    """The damage is one file's, and nothing of it is left."""
    before, seen = contents(checkpoint), []

    class Looks(Pipeline):
        def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
            seen.append(contents(checkpoint))
            self.spoiled = seen[-1] != before
            super().start(flags, may_end)

    fault = Fault(kind="truncated", at=1, query="q")
    done = restarts(Looks()).spoiled(fault, damage, checkpoint / "q", tmp_path / "kept")

    assert done.proved
    assert {changed} == {name for name in before if seen[0].get(name) != before[name]}
    assert [before] == seen[1:]


def test_young_checkpoint_is_one_line(tmp_path, checkpoint):
    """One batch has none before it."""
    for number in (1, 2):
        (checkpoint / "q" / "offsets" / str(number)).unlink()

    with pytest.raises(StackError, match="fault missing of q: it has begun 1 batches: inject it later"):
        restarts(Pipeline()).spoiled(
            Fault(kind="missing", at=1), again.remove_offsets, checkpoint / "q", tmp_path / "kept"
        )


def test_undamaged_checkpoint_is_unproved(tmp_path, checkpoint):
    """There is no state to lose, and the pipeline ends for a reason of its own."""

    class Ends(Pipeline):
        def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
            self.spoiled = self.spoiled is False and not self.did
            super().start(flags, may_end)

    (checkpoint / "q" / "state" / "0" / "0" / "1.delta").unlink()
    fault = Fault(kind="state_lost", at=1, query="q")
    done = restarts(Ends()).spoiled(fault, again.remove_state, checkpoint / "q", tmp_path / "kept")

    assert 1 == done.proof["code"]
    assert not done.proved


def test_other_queries_keep_their_batches(tmp_path, checkpoint):
    """Its results stand in its sink: given back its older checkpoint, it would pass over their state."""
    other, starts = checkpoint / "other" / "commits" / "7", []

    class GoesOn(Pipeline):
        def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
            starts.append(flags)
            if len(starts) == 1:
                self.spoiled = True
                other.parent.mkdir(parents=True)
                other.write_text("v1")
            super().start(flags, may_end)

    fault = Fault(kind="state_lost", at=1, query="q")
    restarts(GoesOn()).spoiled(fault, again.remove_state, checkpoint / "q", tmp_path / "kept")

    assert other.exists()


@pytest.mark.parametrize("orderly", [True, False])
def test_killed_change_is_unproved(orderly):
    """It is another fault than was asked for."""
    pipeline = Pipeline()
    pipeline.orderly = orderly

    assert orderly is restarts(pipeline).changed(Fault(kind="change", at=1), lambda: None).proved


@pytest.mark.parametrize(
    ("orderly", "grown", "proved"),
    [
        pytest.param(True, 2, True, id="results of two batches more"),
        pytest.param(True, 1, False, id="of one more, which the copy may have begun"),
        pytest.param(False, 2, False, id="it had to be killed"),
    ],
)
def test_stale_checkpoint_is_restored(tmp_path, checkpoint, orderly, grown, proved):
    """The results have grown beyond what the copy can have begun."""
    batches, seen = [1], []

    class Works(Pipeline):
        def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
            seen.append(contents(checkpoint))
            batches[0] += grown
            self.spoiled = len(seen) == 2
            (checkpoint / "q" / "commits" / str(10 + len(seen))).write_text("v1")
            super().start(flags, may_end)

    fault = Fault(kind="older", at=1)
    pipeline = Works()
    pipeline.orderly = orderly
    done = restarts(pipeline).on_an_older(fault, checkpoint, lambda: batches[0], tmp_path / "kept")

    assert proved is done.proved
    assert seen[0] == seen[1]
    assert "q/commits/11" in seen[2]


@pytest.mark.parametrize(
    ("immune", "gone", "proved"),
    [(False, True, True), (True, True, False), (False, False, False)],
    ids=["it ends", "it goes on", "nothing was taken"],
)
def test_removed_resource_must_be_missed(immune, gone, proved):
    """A victim that goes on was not struck, and a disk that stayed as it was struck nobody."""
    pipeline = Pipeline()
    did: list[str] = []

    def take() -> bool:
        did.append("take")
        pipeline.up = immune
        return gone

    done = take_away(
        Fault(kind="full", on="checkpoint", at=1, for_s=2),
        "pipeline",
        pipeline,
        take,
        lambda: not pipeline.up,
        lambda: did.append("give back"),
        lambda: {"full": True},
        patience(),
    )

    assert proved is done.proved
    assert ["take", "give back"] == did
    assert pipeline.is_up()


def test_who_answers_slowly_has_not_ended():
    """A broker whose disk is full, and which lives: it was not struck, whatever one look says."""
    pipeline = Pipeline()
    pipeline.is_up = iter([False, True, *[False] * 5, *[True] * 99]).__next__
    done = take_away(
        Fault(kind="full", on="broker 1", at=1), "broker 1", pipeline, lambda: True, lambda: False, *NOTHING, patience()
    )

    assert {"broker 1": True, "gone": False} == done.proof["up_after"]
    assert done.proof["up_before"]
    assert not done.proved


def test_aside_reads_precede_healing(tmp_path, monkeypatch):
    """The next fault is so many events after it, and not after what had been read when it began."""
    checkpoint = Aside()
    rig = SimpleNamespace(
        scenario=scenario.load("restart"),
        system=Pipeline(),
        patience=patience(),
        checkpoint=checkpoint,
        scratch=tmp_path,
    )
    monkeypatch.setattr(again.Restarts, "spoiled", lambda *_: checkpoint.did.append("spoiled"))
    injector.injected(rig, Fault(kind="truncated", query="sessions", at=1))

    assert ["aside", "spoiled", "back", "swept"] == checkpoint.did


class Aside:
    """A checkpoint that somebody works on."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def source(self, query: str) -> Path:
        """Not looked at here."""
        return Path(query)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Nobody else looks at it meanwhile."""
        self.did.append("aside")
        yield
        self.did.append("back")

    def sweep(self) -> None:
        """What is new is taken."""
        self.did.append("swept")
