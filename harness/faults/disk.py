"""A disk becomes full or read-only: that of the checkpoint, of the results, or of a broker's log."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from harness.faults import parts
from harness.faults.kind import Fault, FaultKind
from harness.faults.needs import Need
from harness.faults.surroundings import take_away
from harness.faults.target import TAKES_S, Outcome
from harness.faults.testbed import Testbed
from harness.host import disks, processes
from harness.host.disks import Disk


def _inject(bed: Testbed, fault: Fault, spoil: Callable[[Disk], bool], *, held_open: bool) -> Outcome:
    if fault.on in parts.DISKS_OF_THE_PIPELINE:
        return _of_the_pipeline(bed, fault, spoil)
    [(name, broker)] = bed.brokers(fault.on).items()
    disk = bed.disk(name)

    def has_ended() -> bool:
        return broker.pid is None

    def take() -> bool:
        if not held_open:
            return disks.until(partial(spoil, disk), TAKES_S, time.time)
        # Its files stay open for writing as long as it runs: it finds the disk read-only when it starts again.
        broker.kill()
        done = disks.until(partial(spoil, disk), TAKES_S, time.time)
        broker.start(wait_s=0)
        return done and bed.patience.until(has_ended, TAKES_S)

    describe = partial(_described, disk, lambda: processes.last_said(broker.log()))
    return take_away(fault, name, broker, take, has_ended, disk.mend, describe, bed.patience)


def _of_the_pipeline(bed: Testbed, fault: Fault, spoil: Callable[[Disk], bool]) -> Outcome:
    disk, pipeline = bed.disk(fault.on), bed.pipeline

    def take() -> bool:
        pipeline.expect_end()
        return disks.until(partial(spoil, disk), TAKES_S, time.time)

    describe = partial(_described, disk, pipeline.last_line)
    return take_away(fault, parts.PIPELINE, pipeline, take, pipeline.has_ended, disk.mend, describe, bed.patience)


def _described(disk: Disk, last: Callable[[], object]) -> dict[str, object]:
    return {"full": disk.is_full(), "read only": disk.is_read_only(), "said": last()}


def _of_broker(fault: Fault) -> tuple[Need, ...]:
    return () if fault.on in parts.DISKS_OF_THE_PIPELINE else (Need.EMBEDDED,)


def _kind(name: str, about: str, spoil: Callable[[Disk], bool], *, held_open: bool) -> FaultKind:
    """`held_open`: files that a broker has open for writing stand in the way, so that it is killed first."""
    return FaultKind(
        name=name,
        about=about,
        effect="The disk was seen in that state, and the process ended of it.",
        heals="The disk is as before, and the process works again after its start.",
        targets=(*parts.DISKS_OF_THE_PIPELINE, *parts.ONE_BROKER),
        inject=partial(_inject, spoil=spoil, held_open=held_open),
        needs=(Need.DISK,),
        needs_also=_of_broker,
        drills={f"{name} {on}": {"on": on, "for_s": 2} for on in (*parts.DISKS_OF_THE_PIPELINE, "leader")},
    )


FULL = _kind("full", "No room is left on the disk.", lambda disk: disk.fill(), held_open=False)
READ_ONLY = _kind("read_only", "Nothing can be written to the disk.", lambda disk: disk.read_only(), held_open=True)
