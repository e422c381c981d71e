"""The pipeline is stopped and started again otherwise: it must go on rightly, or refuse with a clear line.

A start that is refused is undone, and the pipeline goes on from where it was. What is written of a refusal is its
exit code and its last line. Where a stop had to be a kill, it is another fault than was asked for, and not proved.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.errors import StackError
from harness.faults import parts
from harness.faults.kind import Fault, FaultKind
from harness.faults.needs import Need
from harness.faults.target import Outcome, Patience, Restartable
from harness.faults.testbed import Testbed
from harness.job.clickstream.contract import QUERIES, first

# Exit codes that are no refusal: an unknown flag is not about the checkpoint, and a signal comes from another process.
BAD_USAGE = 2
SIGNALS_FROM = 128


# Damages the folder of a query's checkpoint, and returns the path that it has changed.
Damage = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class Restarts:
    """How a pipeline is started again otherwise, and its refusals are seen.

    The message of a refusal must match `message`, a regular expression: it may have died of something else.
    """

    pipeline: Restartable
    message: str
    patience: Patience

    def changed(self, fault: Fault, undo: Callable[[], None]) -> Outcome:
        """Stop it, and start it with the fault's flags; one that `refused` asks for must end by itself, and is undone.

        The flags are for one start; `undo` takes back what else is different.
        """
        pipeline, patience = self.pipeline, self.patience
        before, at_s = pipeline.is_up(), patience.clock()
        before &= pipeline.stop()
        patience.sleep(fault.for_s)  # the fault's own length
        pipeline.start(fault.flags, may_end=fault.refused)
        if fault.refused:
            return self._refusal(fault, before, at_s, undo)
        healed_s = patience.healed_s(pipeline.is_up)
        proof = {"up_before": before, "up_after": {"as it was": healed_s is None}, "flags": list(fault.flags)}
        return Outcome(fault, at_s, proof, healed_s)

    def spoiled(self, fault: Fault, damage: Damage, folder: Path, kept: Path) -> Outcome:
        """Kill it, damage the checkpoint of one query, see that it refuses, put back what was there, and start it.

        What is put back is that query's alone: the others may have gone on until the damage was found.
        """
        before, at_s = self.pipeline.is_up(), self.patience.clock()
        self.pipeline.kill()
        shutil.copytree(folder, kept)
        spoiled = damage(folder)
        changed = _files(folder) != _files(kept)
        self.pipeline.start(may_end=True)

        def mend() -> None:
            _replace(folder, kept)

        return self._refusal(fault, before and changed, at_s, mend, str(spoiled.relative_to(folder.parent)))

    def on_an_older(self, fault: Fault, checkpoint: Path, results: Callable[[], int], kept: Path) -> Outcome:
        """Give it a checkpoint that its results have left behind, see that it refuses, and give it its own again.

        `results` is the number of batches in the log of a Parquet sink. The copy may have begun one of which there are no
        results yet: once there are two more, it is older.
        """
        before, at_s = self.pipeline.is_up(), self.patience.clock()
        before &= self.pipeline.stop()
        older = kept / "older"
        shutil.copytree(checkpoint, older)
        then = results()
        self.pipeline.start()
        grown = self.patience.until(lambda: results() > then + 1)
        before &= self.pipeline.stop()
        shutil.copytree(checkpoint, kept / "own")
        _replace(checkpoint, older)
        self.pipeline.start(may_end=True)

        def mend() -> None:
            _replace(checkpoint, kept / "own")

        return self._refusal(fault, before and grown, at_s, mend)

    def _refusal(self, fault: Fault, before: bool, at_s: float, mend: Callable[[], None], what: str = "") -> Outcome:
        """Wait until a pipeline that was started has ended of its own accord, mend what it minded, and start it again.

        A pipeline that accepts what it must refuse goes on, and the oracle judges its rows.
        """
        pipeline = self.pipeline
        self.patience.until(lambda: pipeline.ended() is not None)
        code, last = pipeline.ended(), pipeline.last_line()
        of_itself = code is not None and 0 < code < SIGNALS_FROM and code != BAD_USAGE
        refused = of_itself and re.search(self.message, last) is not None
        if code is None:
            pipeline.expect_end(False)
        else:
            mend()
            pipeline.start()
        healed_s = self.patience.healed_s(pipeline.is_up)
        proof = {"up_before": before, "up_after": {"accepted": not refused}, "what": what, "code": code, "said": last}
        return Outcome(fault, at_s, proof, healed_s)


def cut_newest_offsets(folder: Path) -> Path:
    """The newest of its offsets are cut in half."""
    if not (written := _numbered(folder / "offsets")):
        raise StackError(f"fault truncated of {folder.name}: it has begun no batch: inject it later")
    path = written[-1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def remove_offsets(folder: Path) -> Path:
    """The offsets of the batch before the newest are not there: where it begins is not known."""
    written = _numbered(folder / "offsets")
    if len(written) < 2:
        raise StackError(f"fault missing of {folder.name}: it has begun {len(written)} batches: inject it later")
    written[-2].unlink()
    return written[-2]


def remove_state(folder: Path) -> Path:
    """No file of the state of its first operator's first partition is there."""
    place = folder / "state" / "0" / "0"
    for path in [file for file in place.rglob("*") if file.is_file() and file.name != "_metadata"]:
        path.unlink()
    return place


def _files(folder: Path) -> dict[str, int]:
    """The size of each file below a folder."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _numbered(log: Path) -> list[Path]:
    """The entries of a log of batches, in order."""
    return sorted((path for path in log.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _replace(folder: Path, by: Path) -> None:
    """Make the contents of a folder those of another, the folder itself staying: it may be a disk."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(by, folder, dirs_exist_ok=True)


def _change(bed: Testbed, fault: Fault) -> Outcome:
    restarts = _restarts(bed, fault, "was made by other settings|(older|newer) than its results")
    if not fault.command:
        return restarts.changed(fault, lambda: None)
    before = bed.pipeline.become(bed.filled(fault.command))

    def undo() -> None:
        bed.pipeline.become(before)

    return restarts.changed(fault, undo)


def _damaged(bed: Testbed, fault: Fault, damage: Damage, message: str) -> Outcome:
    """`message` is the refusal of our pipeline, with {query} for the query's name."""
    restarts = _restarts(bed, fault, message.replace("{query}", fault.query))
    with bed.aside():
        return restarts.spoiled(fault, damage, bed.checkpoint(fault.query), bed.scratch() / "copy")


def _older(bed: Testbed, fault: Fault) -> Outcome:
    # With the whole checkpoint, and so of any query that has its results in Parquet.
    restarts = _restarts(bed, fault, "checkpoint .+: older than its results")
    with bed.aside():
        checkpoint = bed.checkpoint(fault.query).parent
        return restarts.on_an_older(fault, checkpoint, lambda: bed.results(fault.query), bed.scratch() / "copy")


def _restarts(bed: Testbed, fault: Fault, message: str) -> Restarts:
    """Of another pipeline it is not known in what words it refuses."""
    return Restarts(bed.pipeline, message if bed.is_ours and not fault.command else "", bed.patience)


# How our pipeline refuses a checkpoint of which files are damaged.
DAMAGED = r"checkpoint .+/{query}[/:]"


def _of_checkpoint(
    name: str, about: str, inject: Callable[[Testbed, Fault], Outcome], drill: str, query: str, *needs: Need
) -> FaultKind:
    """A pipeline that is started on a checkpoint that it must refuse; in drills it is the checkpoint of `query`."""
    return FaultKind(
        name=name,
        about=about,
        effect="The checkpoint has changed, and the pipeline ended by itself with a message about it.",
        heals="The pipeline works again on its own checkpoint.",
        targets=(parts.PIPELINE,),
        inject=inject,
        needs=(Need.CHECKPOINT, *needs),
        fields=("query",),
        title=lambda fault: f"{fault.kind} of {fault.query}",
        drills={drill: {"query": query}},
    )


CHANGE = FaultKind(
    name="change",
    about="The pipeline is stopped, and started with other flags or by another command.",
    effect="It ended without having to be killed, and works again or, where `refused` asks for it, ended by itself.",
    heals="It works with the change, or as before where it refused.",
    targets=(parts.PIPELINE,),
    inject=_change,
    fields=("flags", "command", "refused"),
    title=lambda fault: " ".join(("change", *(fault.flags or (parts.PIPELINE,)))),
    drills={
        "other trigger": {"flags": ("--trigger", "500 ms")},
        "other partitions": {"flags": ("--partitions", "3"), "refused": True},
        "other state store": {"flags": ("--state-store", "rocksdb"), "refused": True},
        "other conversions": {"flags": ("--conversions", "join"), "refused": True},
    },
)
TRUNCATED = _of_checkpoint(
    "truncated",
    "The newest offsets of one query are cut in half.",
    partial(_damaged, damage=cut_newest_offsets, message=DAMAGED),
    "truncated offsets",
    max(QUERIES.values(), key=lambda query: query.stays_open_s).name,
)
MISSING = _of_checkpoint(
    "missing",
    "The offsets of the batch before the newest of one query are removed.",
    partial(_damaged, damage=remove_offsets, message=DAMAGED),
    "missing offsets",
    first(lambda query: query.joins),
)
STATE_LOST = _of_checkpoint(
    "state_lost",
    "The state of the first partition of one query is removed.",
    # Spark itself finds it, once the query runs.
    partial(_damaged, damage=remove_state, message=r"query {query} died: \[CANNOT_LOAD_STATE_STORE"),
    "lost state",
    first(lambda query: query.stateful),
    Need.STATE,
)
OLDER = _of_checkpoint(
    "older",
    "The whole checkpoint is replaced by an older copy, which the results in Parquet have left behind.",
    _older,
    "older checkpoint",
    first(lambda query: query.sink == "parquet"),
    Need.PARQUET,
    Need.CHECKPOINT_BELOW,
)
