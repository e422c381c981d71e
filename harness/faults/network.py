"""The network between clients and brokers: a relay on loopback that can behave like a bad network.

Brokers and controllers talk past it; the pipeline, the generator and the harness's own clients go through it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import StackError
from harness.faults import parts
from harness.faults.kind import Fault, FaultKind
from harness.faults.needs import Need
from harness.faults.relay import NONE, Effect
from harness.faults.target import TAKES_S, Outcome, Patience
from harness.faults.testbed import Testbed
from harness.host.service import Service
from harness.host.waiting import await_true

# Kind of fault → what it does to the connections of a broker's clients.
EFFECTS: Mapping[str, Effect] = {
    "latency": Effect(latency_ms=200, jitter_ms=100),
    "bandwidth": Effect(bytes_per_s=100_000),
    "blackhole": Effect(hold_up=True, hold_down=True),
    "half_open": Effect(hold_down=True),
    "reset": Effect(reset=True),
    "partition": Effect(refuse=True),
}
# Kind of fault → the counters that must have grown for it to have taken effect.
COUNTED: Mapping[str, tuple[str, ...]] = {
    "latency": ("delayed_bytes",),
    "bandwidth": ("delayed_bytes",),
    "blackhole": ("held_up_bytes",),
    "half_open": ("held_down_bytes",),
    "reset": ("reset",),
    "partition": ("reset",),
}
# How long it takes at most to end after its output has.
ENDS_S = 10.0
ENDED = "the relay between clients and brokers ended with {}"


class Relay:
    """The relay's process: a port for each broker, commands to it, and its counters."""

    def __init__(self, service: Service) -> None:
        """`service` has been started, with pipes."""
        self._service = service
        self.ports: list[int] = self._answer()["ports"]

    def check(self) -> None:
        """Raise StackError if the relay has ended: lost traffic is then the harness's fault."""
        if (code := self._service.code()) is not None:
            raise StackError(ENDED.format(code))

    def lead(self, listener: int, host: str, port: int) -> None:
        """Connect a listener to the broker behind it."""
        self._ask(listener=listener, upstream=[host, port])

    def have(self, listener: int, effect: Effect) -> dict[str, Any]:
        """Lay an effect on a listener's connections, in the place of the one before; returns its counters."""
        return self._ask(listener=listener, effect=asdict(effect))

    def state(self, listener: int) -> dict[str, Any]:
        """Its effect, its open connections and its counters."""
        return self._ask(listener=listener)

    def _ask(self, **command: Any) -> dict[str, Any]:
        self._service.stdin.write(json.dumps(command).encode() + b"\n")
        self._service.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._service.stdout.readline()
        if not line:
            await_true(lambda: self._service.code() is not None, ENDS_S)
            raise StackError(ENDED.format(self._service.code()))
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def open_relay(brokers: int, seed: int, log: Path = Path(os.devnull)) -> Iterator[Relay]:
    """A relay with a port for each broker; it ends with the context, or with its owner. Its errors go to `log`."""
    args = [sys.executable, "-m", "harness.faults.relay", str(brokers), str(seed)]
    service = Service("the relay", args, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    service.start(wait_s=0)
    try:
        yield Relay(service)
    finally:
        service.close()


@dataclass(frozen=True, slots=True)
class Wire:
    """The connections of one broker's clients."""

    relay: Relay
    listener: int

    def spoil(self, kind: str, patience: Patience) -> dict[str, Any]:
        """Inject the effect and wait until it is observed; returns the counts, and `taken` for whether it was observed."""
        before = self.relay.state(self.listener)
        self.relay.have(self.listener, EFFECTS[kind])
        return self._grown(COUNTED[kind], before, replace(patience, for_s=TAKES_S))

    def mend(self, patience: Patience) -> dict[str, Any]:
        """Remove the effect and wait until bytes pass in both directions; returns `taken` for whether they do."""
        before = self.relay.have(self.listener, NONE)
        return self._grown(("up_bytes", "down_bytes"), before, patience)

    def _grown(self, counters: tuple[str, ...], before: Mapping[str, Any], patience: Patience) -> dict[str, Any]:
        grown: dict[str, Any] = {}

        def all_have() -> bool:
            now = self.relay.state(self.listener)
            grown.update({name: now[name] - before[name] for name in counters})
            return all(value > 0 for value in grown.values())

        return {"taken": patience.until(all_have), **grown}


def spoil(fault: Fault, wires: Mapping[str, Wire], patience: Patience) -> Outcome:
    """A fault of the network: laid on, felt, lifted, and seen to be lifted."""
    at_s = patience.clock()
    felt = {name: wire.spoil(fault.kind, patience) for name, wire in wires.items()}
    patience.wait_out(fault, at_s)
    mended = {name: wire.mend(patience) for name, wire in wires.items()}
    taken = {name: not counts["taken"] for name, counts in felt.items()}
    proof = {"up_before": True, "up_after": taken, "counted": felt, "mended": mended, "struck_s": round(at_s, 3)}
    healed = all(counts["taken"] for counts in mended.values())
    return Outcome(fault, at_s, proof, round(patience.clock(), 3) if healed else None)


def _inject(bed: Testbed, fault: Fault) -> Outcome:
    return spoil(fault, bed.wires(fault.on), bed.patience)


def _kind(name: str, about: str, reads_through: bool = False) -> FaultKind:
    """A fault of the network between the clients and one, two or all brokers."""
    return FaultKind(
        name=name,
        about=about,
        effect=f"The relay's counters grow: {', '.join(COUNTED[name])}.",
        heals="Bytes pass in both directions again.",
        targets=parts.BROKERS,
        inject=_inject,
        needs=(Need.EMBEDDED, Need.RELAY),
        reads_through=reads_through,
        drills={f"{name} leader": {"on": "leader", "for_s": 3}},
    )


LATENCY = _kind("latency", "Bytes arrive 200 to 300 ms later, in each direction.", reads_through=True)
BANDWIDTH = _kind("bandwidth", "All connections of a broker's clients share 100,000 bytes a second, in each direction.")
BLACKHOLE = _kind("blackhole", "Connections stay open, and nothing passes in either direction.")
HALF_OPEN = _kind("half_open", "Connections stay open, and no answer of the broker passes.")
RESET = _kind("reset", "Every connection is reset, and new ones as soon as they are accepted.")
PARTITION = _kind("partition", "Every connection is reset, and new ones are refused.")
