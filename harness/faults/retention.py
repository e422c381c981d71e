"""Retention: records that a stopped pipeline has not read are deleted, and it must not go on as if nothing were missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from harness.faults import parts
from harness.faults.kind import Fault, FaultKind
from harness.faults.target import Outcome, Patience, Restartable
from harness.faults.testbed import Testbed

# Records that must have come after the stop before they are deleted: enough to be seen in every result.
UNREAD_MIN = 300
# The flags by which our pipeline goes on without records that it has not read.
ACCEPT = ("--accept-loss",)


class Log(Protocol):
    """A partition of a topic, as its broker has it."""

    def begin(self) -> int:
        """The first offset that is there."""

    def end(self) -> int:
        """The offset of the next record."""

    def delete(self, before: int) -> None:
        """Remove what lies before an offset, and write it down."""


def expire(
    fault: Fault, pipeline: Restartable, log: Log, has_passed: Callable[[int], bool], patience: Patience
) -> Outcome:
    """Delete records that a stopped pipeline has not read, start it to see whether it refuses, then with the flags.

    It took where records that came after the stop are gone. `has_passed` is whether the pipeline has gone on past an
    offset; one that does so without the flags has not refused, and is let alone.
    """
    before = pipeline.is_up()
    before &= pipeline.stop()
    # Its last batches end while it stops; what the fault costs counts from here.
    at_s, stopped_at = patience.clock(), log.end()
    patience.until(lambda: log.end() >= stopped_at + UNREAD_MIN)
    asked = log.end()
    log.delete(asked)
    begin = log.begin()
    pipeline.start(may_end=True)
    patience.until(lambda: pipeline.ended() is not None or has_passed(begin))
    refused = {"code": code, "said": pipeline.last_line()} if (code := pipeline.ended()) is not None else None
    if refused:
        pipeline.start(fault.flags)
    else:
        pipeline.expect_end(False)
    healed_s = patience.healed_s(pipeline.is_up)
    proof = {
        "up_before": before,
        "up_after": {"records": begin < stopped_at + UNREAD_MIN},
        "struck_s": round(at_s, 3),
        "stopped_at": stopped_at,
        "asked": asked,
        "begin": begin,
        "refused": refused,
    }
    return Outcome(fault, at_s, proof, healed_s)


def _inject(bed: Testbed, fault: Fault) -> Outcome:
    """Another pipeline than ours is started again with the flags of the fault."""
    flags = fault.flags or (ACCEPT if bed.is_ours else ())
    outcome = expire(replace(fault, flags=flags), bed.pipeline, bed.log(), bed.has_passed(), bed.patience)
    bed.pipeline.check()
    return outcome


RETENTION = FaultKind(
    name="retention",
    about="Records of the first input topic that a stopped pipeline has not read are deleted.",
    effect=f"{UNREAD_MIN} records or more that came after the stop are gone.",
    heals="The pipeline works again: it refused and was started with `flags`, or it went on by itself.",
    targets=(parts.PIPELINE,),
    inject=_inject,
    fields=("flags",),
)
