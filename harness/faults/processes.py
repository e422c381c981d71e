"""A process is stopped, killed or frozen: the pipeline, brokers, or a part of the standalone cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from harness.faults import parts
from harness.faults.kind import Fault, FaultKind
from harness.faults.target import TAKES_S, Outcome, Patience, Target
from harness.faults.testbed import Testbed

# Kind → the function that hurts a target: False where it was not done as it is called, as a stop that had to be a kill.
INJECT: Mapping[str, Callable[[Target], bool | None]] = {
    "stop": lambda target: target.stop(),
    "kill": lambda target: target.kill(),
    "pause": lambda target: target.pause(),
}
HEAL: Mapping[str, Callable[[Target], None]] = {
    "stop": lambda target: target.start(),
    "kill": lambda target: target.start(),
    "pause": lambda target: target.resume(),
}


def inject(fault: Fault, targets: Mapping[str, Target], patience: Patience) -> Outcome:
    """Hurt all targets, wait out the fault's length, heal them; StackError where a target cannot be started again."""
    before = patience.until(lambda: all(target.is_up() for target in targets.values()), TAKES_S)
    at_s = patience.clock()
    done = {name: INJECT[fault.kind](target) for name, target in targets.items()}
    patience.until(lambda: not any(target.is_up() for target in targets.values()), TAKES_S)
    after = {name: target.is_up() or done[name] is False for name, target in targets.items()}
    patience.wait_out(fault, at_s)
    with ThreadPoolExecutor() as together:  # brokers that are all down come up only together
        list(together.map(HEAL[fault.kind], targets.values()))
    healed_s = patience.healed_s(lambda: all(target.is_up() for target in targets.values()))
    proof = {"up_before": before, "up_after": after, "struck_s": round(at_s, 3)}
    return Outcome(fault, at_s, proof, healed_s)


def _inject(bed: Testbed, fault: Fault) -> Outcome:
    targets = bed.targets(fault)
    if fault.on in parts.SPARK:
        bed.look()
    outcome = inject(fault, targets, bed.patience)
    if fault.on in parts.SPARK:
        bed.look()
    if fault.on not in parts.BROKERS:
        bed.pipeline.check()
    return outcome


ON = (parts.PIPELINE, *parts.BROKERS, *parts.SPARK)
STOP = FaultKind(
    name="stop",
    about="The process is asked to end, and started again.",
    effect="It worked before, and ended without having to be killed.",
    heals="It works again after its start.",
    targets=ON,
    inject=_inject,
    standby=True,
    drills={f"stop {on}": {"on": on, "for_s": 2} for on in ("pipeline", "leader")},
)
KILL = FaultKind(
    name="kill",
    about="The process and all that it started end at once, by SIGKILL, and it is started again.",
    effect="It worked before, and does not work after.",
    heals="It works again after its start.",
    targets=ON,
    inject=_inject,
    standby=True,
    drills={
        **{f"kill {on}": {"on": on, "for_s": 2} for on in ("pipeline", "leader", "controller")},
        **{f"kill {on}": {"on": on, "for_s": 3} for on in ("two brokers", "all brokers")},
    },
)
PAUSE = FaultKind(
    name="pause",
    about="The process and all that it started are frozen by SIGSTOP: its connections stay open and nothing answers.",
    effect="It worked before, and does not work after.",
    heals="It works again after SIGCONT.",
    targets=ON,
    inject=_inject,
    drills={f"pause {on}": {"on": on, "for_s": 2} for on in ("pipeline", "leader")},
)
