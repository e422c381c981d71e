"""What each kind of fault does to a testbed of fakes, in which order, and on what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.faults import KINDS, Fault, Outcome, Patience, parts, restarts


class Process:
    """A process that obeys, and notes what is done to it."""

    def __init__(self, name: str, did: list[str], number: int = 0) -> None:
        self.name, self.did, self.id, self.address = name, did, number, f"h:{number}"
        self.up, self.code = True, None

    @property
    def pid(self) -> int | None:
        """While it runs."""
        return 1 if self.code is None else None

    def note(self, verb: str, up: bool, code: int | None = None) -> bool:
        """Something is done to it."""
        self.did.append(f"{verb} {self.name}")
        self.up, self.code = up, code
        return True

    def stop(self) -> bool:
        """It ends in an orderly way."""
        return self.note("stop", False, 0)

    def kill(self) -> None:
        """It ends at once."""
        self.note("kill", False, -9)

    def pause(self) -> None:
        """It is frozen."""
        self.note("pause", False)

    def resume(self) -> None:
        """It goes on."""
        self.note("resume", True)

    def start(self, *_: object, **__: object) -> None:
        """It works again."""
        self.note("start", True)

    def is_up(self) -> bool:
        """Whether it works."""
        return self.up

    def log(self) -> str:
        """Its last words."""
        return "no room\n"


class Pipeline(Process):
    """A pipeline that refuses to be started with `refused` in its flags, or at all while `refuses`."""

    def __init__(self, did: list[str]) -> None:
        super().__init__("pipeline", did)
        self.refuses = False

    def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
        """Start, or end at once."""
        refused = (self.refuses and not flags) or "refused" in flags
        self.note(" ".join(["start", *flags]), not refused, 1 if refused else None)

    def expect_end(self, expected: bool = True) -> None:
        """It may end."""
        self.did.append("expect end" if expected else "expect none")

    def ended(self) -> int | None:
        """Its exit code."""
        return self.code

    def has_ended(self) -> bool:
        """Whether it has one."""
        return self.code is not None

    def last_line(self) -> str:
        """Why it refuses."""
        return "pipeline: was made by other settings"

    def check(self) -> None:
        """Whether it has ended by itself."""
        self.did.append("check")

    def become(self, args: list[str]) -> list[str]:
        """Another command from now on; the old one is not refused."""
        self.refuses = args != ["the old"]
        self.did.append(f"become {' '.join(args)}")
        return ["the old"]


@dataclass
class Disk:
    """A disk whose process notices that it is full or read-only."""

    victim: Process
    did: list[str]
    state: str = ""

    def fill(self) -> bool:
        """No room is left."""
        return self._becomes("full")

    def read_only(self) -> bool:
        """Nothing can be written."""
        return self._becomes("read only")

    def _becomes(self, state: str) -> bool:
        self.did.append(state)
        self.state = state
        self.victim.up, self.victim.code = False, 1
        return True

    def is_full(self) -> bool:
        """Whether no room is left."""
        return self.state == "full"

    def is_read_only(self) -> bool:
        """Whether nothing can be written."""
        return self.state == "read only"

    def mend(self) -> None:
        """As before."""
        self.did.append("mend")
        self.state = ""


class Log:
    """A partition that grows whenever its end is asked for."""

    def __init__(self) -> None:
        self.first, self.next = 0, 1000

    def begin(self) -> int:
        """The first offset."""
        return self.first

    def end(self) -> int:
        """The next offset."""
        self.next += 100
        return self.next

    def delete(self, before: int) -> None:
        """Remove what lies before."""
        self.first = before


class Testbed:
    """A pipeline, three brokers of which the first leads, and an executor; time passes when a fault sleeps."""

    __test__ = False

    def __init__(self, ours: bool = True) -> None:
        self.did: list[str] = []
        self.is_ours = ours
        self.pipeline = Pipeline(self.did)
        self.all = {number: Process(f"broker {number}", self.did, number) for number in (1, 2, 3)}
        self.executor = Process("executor", self.did)
        self.count, self.now = 2, [0.0]

    @property
    def patience(self) -> Patience:
        """A minute."""
        return Patience(60, lambda: self.now[0], lambda seconds: self.now.__setitem__(0, self.now[0] + seconds + 0.01))

    def targets(self, fault: Fault) -> Mapping[str, Process]:
        """By the part."""
        if fault.on in parts.SPARK:
            return {"executor 7": self.executor}
        return {"pipeline": self.pipeline} if fault.on == parts.PIPELINE else self.brokers(fault.on)

    def brokers(self, on: str) -> Mapping[str, Process]:
        """The leader is 1."""
        return parts.chosen(on, self.all, lambda: 1, lambda: 2)

    def followers(self, leader: Process) -> list[Process]:
        """The others."""
        return [broker for broker in self.all.values() if broker is not leader]

    def leads(self, brokers: Sequence[Process]) -> bool:
        """Once the first is down."""
        return not self.all[1].up and all(broker.up for broker in brokers)

    def disk(self, name: str) -> Disk:
        """Of the pipeline or of a broker."""
        return Disk(self.pipeline if name in parts.DISKS_OF_THE_PIPELINE else self.all[int(name[-1])], self.did)

    def look(self) -> None:
        """Who is there."""
        self.did.append("look")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Nobody else reads the checkpoint."""
        self.did.append("aside")
        yield
        self.did.append("back")

    def filled(self, command: Sequence[str]) -> list[str]:
        """Nothing to fill in."""
        return list(command)

    def partitions(self) -> int:
        """As many as there are."""
        return self.count

    partitions_used = partitions

    def add_partitions(self) -> int:
        """One a topic."""
        self.count += 2
        return 2

    def log(self) -> Log:
        """A partition."""
        return Log()

    def has_passed(self) -> Callable[[int], bool]:
        """Never, without flags."""
        return lambda offset: False


def injected(bed: Testbed, **fields: object) -> Outcome:
    """A fault on the testbed, which it must prove and heal from."""
    fault = Fault(at=1, **fields)
    outcome = KINDS[fault.kind].inject(bed, fault)

    assert outcome.proved, outcome.proof
    assert outcome.healed_s is not None
    return outcome


@pytest.mark.parametrize(
    ("kind", "on", "did"),
    [
        ("kill", "pipeline", ["kill pipeline", "start pipeline", "check"]),
        ("stop", "executor", ["look", "stop executor", "start executor", "look", "check"]),
        ("pause", "leader", ["pause broker 1", "resume broker 1"]),
    ],
)
def test_processes_are_hurt_and_healed(kind, on, did):
    """Executors are looked at before and after; the end of a pipeline must be the fault's."""
    bed = Testbed()
    injected(bed, kind=kind, on=on)

    assert did == bed.did


def test_all_brokers_are_down_at_once():
    """Only then are they started, together."""
    bed = Testbed()
    injected(bed, kind="kill", on="all brokers")

    assert ["kill broker 1", "kill broker 2", "kill broker 3"] == bed.did[:3]
    assert ["start broker 1", "start broker 2", "start broker 3"] == sorted(bed.did[3:])


def test_roll_restarts_every_broker():
    """Whatever part it is on."""
    bed = Testbed()
    injected(bed, kind="roll")

    assert [f"{verb} broker {number}" for number in (1, 2, 3) for verb in ("stop", "start")] == bed.did


def test_fail_over_freezes_the_followers():
    """All brokers but the leader, until it is dead."""
    bed = Testbed()
    injected(bed, kind="fail_over", on="leader", for_s=1)

    frozen, gone_on = ["pause broker 2", "pause broker 3"], ["resume broker 2", "resume broker 3"]
    assert [*frozen, "kill broker 1", *gone_on, "start broker 1"] == bed.did


def test_partitions_are_added():
    """Nothing is hurt."""
    bed = Testbed()
    injected(bed, kind="partitions")

    assert (4, []) == (bed.count, bed.did)


@pytest.mark.parametrize(
    ("kind", "on", "did"),
    [
        ("full", "results", ["expect end", "full", "mend", "kill pipeline", "start pipeline"]),
        ("read_only", "checkpoint", ["expect end", "read only", "mend", "kill pipeline", "start pipeline"]),
        ("full", "broker 2", ["full", "mend", "kill broker 2", "start broker 2"]),
    ],
)
def test_disk_is_taken_and_given_back(kind, on, did):
    """What had not noticed is killed, and started again."""
    bed = Testbed()
    outcome = injected(bed, kind=kind, on=on)

    assert did == bed.did
    assert outcome.proof["told"][kind.replace("_", " ")]


def test_broker_is_killed_before_its_disk_is_read_only():
    """It has files open for writing; it finds the disk read-only when it starts."""
    bed = Testbed()
    broker = bed.all[1]
    starts: list[object] = []

    def start(wait_s: float = 60.0) -> None:
        starts.append(wait_s)
        ended = len(starts) == 1
        broker.note("start", not ended, 1 if ended else None)

    broker.start = start
    injected(bed, kind="read_only", on="leader")

    assert ["kill broker 1", "read only", "start broker 1", "mend", "kill broker 1", "start broker 1"] == bed.did
    assert [0, 60.0] == starts


@pytest.mark.parametrize(
    ("ours", "flags", "given"),
    [
        pytest.param(True, (), "start --accept-loss pipeline", id="ours"),
        pytest.param(True, ("--go",), "start --go pipeline", id="ours, with flags"),
        pytest.param(False, ("--go",), "start --go pipeline", id="another"),
    ],
)
def test_retention_restarts_with_flags(ours, flags, given):
    """Of our pipeline the flag is known."""
    bed = Testbed(ours)
    bed.pipeline.refuses = True
    injected(bed, kind="retention", flags=flags)

    assert ["stop pipeline", "start pipeline", given, "check"] == bed.did


def test_refused_command_is_undone():
    """The pipeline goes on with the one that it had."""
    bed = Testbed(ours=False)
    injected(bed, kind="change", command=("the", "new"), refused=True)

    assert ["become the new", "stop pipeline", "start pipeline", "become the old", "start pipeline"] == bed.did


@pytest.mark.parametrize(("ours", "proved"), [(True, False), (False, True)])
def test_refusal_of_ours_must_be_worded(ours, proved):
    """A pipeline may end of something else; of another pipeline the words are not known."""
    bed = Testbed(ours)
    bed.pipeline.last_line = lambda: "pipeline: no broker answers"
    fault = Fault(kind="change", at=1, flags=("refused",), refused=True)

    assert proved is KINDS["change"].inject(bed, fault).proved


@pytest.mark.parametrize(
    ("kind", "path"), [("truncated", "offsets/2"), ("missing", "offsets/1"), ("state_lost", "state/0/0/1.delta")]
)
def test_damage_is_done_aside(tmp_path, kind, path):
    """Nobody takes the damaged checkpoint for what the pipeline has done, and it is put back."""
    folder = tmp_path / "revenue"
    for name in ("offsets/1", "offsets/2", "state/0/0/1.delta"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("v1\nwhole")
    bed = Testbed(ours=False)
    bed.checkpoint = lambda query: tmp_path / query
    bed.scratch = lambda: tmp_path
    seen: list[bool] = []
    start = bed.pipeline.start

    def notices(*args: object, **named: object) -> None:
        whole = (folder / path).exists() and (folder / path).read_text() == "v1\nwhole"
        seen.append(whole)
        bed.pipeline.refuses = not whole
        start(*args, **named)

    bed.pipeline.start = notices
    outcome = injected(bed, kind=kind, query="revenue")

    assert ["aside", "kill pipeline", "start pipeline", "start pipeline", "back"] == bed.did
    assert [False, True] == seen
    assert f"revenue/{path}".startswith(outcome.proof["what"])


@pytest.mark.parametrize(
    ("query", "line", "matches"),
    [
        ("revenue", "pipeline: checkpoint /c/revenue/offsets/2: damaged", True),
        ("sessions", "pipeline: checkpoint /c/revenue/offsets/2: damaged", False),
    ],
)
def test_message_must_name_the_query(monkeypatch, tmp_path, query, line, matches):
    """The checkpoint of another query was not damaged."""
    seen: list[str] = []

    def spoiled(self: restarts.Restarts, *_: object) -> str:
        seen.append(self.message)
        return "done"

    monkeypatch.setattr(restarts.Restarts, "spoiled", spoiled)
    bed = Testbed()
    bed.checkpoint, bed.scratch = Path, lambda: tmp_path
    assert "done" == KINDS["missing"].inject(bed, Fault(kind="missing", at=1, query=query))

    assert matches is (re.search(seen[0], line) is not None)
