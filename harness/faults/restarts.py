"""The pipeline is stopped and started again otherwise: it must go on rightly, or refuse with a clear line.

A start that is refused is undone, and the pipeline goes on from where it was. What is written of a refusal is its
exit code and its last line. Where a stop had to be a kill, it is another fault than was asked for, and not proved.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import StackError
from harness.faults.target import Outcome, Patience
from harness.scenario import Fault

BAD_USAGE = 2
SIGNALS_FROM = 128
"""Exit codes that are no refusal: an unknown flag is not about the checkpoint, and a signal comes from another process."""


class Restartable(Protocol):
    """What a fault needs of a pipeline that it starts again otherwise."""

    def stop(self) -> bool:
        """End it in an orderly way; false where it had to be killed."""

    def kill(self) -> None:
        """End it at once."""

    def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
        """Start it from its checkpoint, with these flags after its own for this once; it may end by itself, or not."""

    def is_up(self) -> bool:
        """Whether its queries have started."""

    def expect_end(self, expected: bool = True) -> None:
        """It may end by itself, until it is started again; or it may not any more."""

    def ended(self) -> int | None:
        """The exit code of a process that has ended, or None."""

    def last_line(self) -> str:
        """The last line of its log."""


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

    def spoiled(self, fault: Fault, folder: Path, kept: Path) -> Outcome:
        """Kill it, damage the checkpoint of one query, see that it refuses, put back what was there, and start it.

        What is put back is that query's alone: the others may have gone on until the damage was found.
        """
        before, at_s = self.pipeline.is_up(), self.patience.clock()
        self.pipeline.kill()
        shutil.copytree(folder, kept)
        spoiled = SPOIL[fault.kind](folder)
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


def _truncated(folder: Path) -> Path:
    """The newest of its offsets are cut in half."""
    if not (written := _numbered(folder / "offsets")):
        raise StackError(f"fault truncated of {folder.name}: it has begun no batch: inject it later")
    path = written[-1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _missing(folder: Path) -> Path:
    """The offsets of the batch before the newest are not there: where it begins is not known."""
    written = _numbered(folder / "offsets")
    if len(written) < 2:
        raise StackError(f"fault missing of {folder.name}: it has begun {len(written)} batches: inject it later")
    written[-2].unlink()
    return written[-2]


def _state_lost(folder: Path) -> Path:
    """No file of the state of its first operator's first partition is there."""
    place = folder / "state" / "0" / "0"
    for path in [one for one in place.rglob("*") if one.is_file() and one.name != "_metadata"]:
        path.unlink()
    return place


SPOIL: dict[str, Callable[[Path], Path]] = {"truncated": _truncated, "missing": _missing, "state_lost": _state_lost}


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
