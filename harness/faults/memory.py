"""Memory runs out, and the kernel ends the pipeline's largest process."""

from __future__ import annotations

from harness.faults import parts
from harness.faults.kind import Fault, FaultKind
from harness.faults.needs import Need
from harness.faults.surroundings import take_away
from harness.faults.target import TAKES_S, Outcome
from harness.faults.testbed import Testbed
from harness.host import cgroup, processes


def _inject(bed: Testbed, fault: Fault) -> Outcome:
    pipeline = bed.pipeline
    with cgroup.group() as group:

        def take() -> bool:
            pipeline.expect_end()
            group.take_in(processes.tree_pids(pipeline.pid or 0))
            with group.neighbour():
                return bed.patience.until(lambda: group.kills() > 0, TAKES_S)

        def describe() -> dict[str, object]:
            return {"ended by the kernel": group.kills(), "said": pipeline.last_line()}

        return take_away(fault, fault.on, pipeline, take, pipeline.has_ended, lambda: None, describe, bed.patience)


MEMORY = FaultKind(
    name="memory",
    about="A neighbour in the pipeline's control group takes its memory, until the kernel ends the largest process.",
    effect="The kernel counts a process ended for lack of memory, and the pipeline has ended.",
    heals="The pipeline works again after its start.",
    targets=(parts.PIPELINE,),
    inject=_inject,
    needs=(Need.CONTROL_GROUP,),
    drills={"memory pipeline": {"on": parts.PIPELINE}},
)
