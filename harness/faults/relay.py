"""The relay: a process between clients and brokers that can behave like a bad network.

One thread, one selector, nothing but the standard library: while no effect is set, a chunk costs one
receive and one send. Commands come as JSON lines on standard input, an answer to each goes out as a JSON
line on standard output, and the end of the input ends the process, so that it cannot outlive its owner.

It refuses to lose bytes inside a connection. A network that drops packets delays a stream or breaks it,
but never takes a piece out of it: what an effect holds back passes, in order, once the effect is lifted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

CHUNK_BYTES = 262_144
ROOM_BYTES = 4_194_304
"""What waits in one direction of a connection at most; then its sender feels it."""
LIMITED_ROOM_BYTES = 65_536
"""The same where bandwidth is limited: a deeper queue would hide the limit from the sender."""
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
LINGER_NONE = struct.pack("ii", 1, 0)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Effect:
    """What the network does to one listener's connections; the default is nothing."""

    latency_ms: float = 0.0
    """Added in each direction."""
    jitter_ms: float = 0.0
    """At most this much more, evenly spread; order is kept."""
    bytes_per_s: float = 0.0
    """Shared by all connections, in each direction; 0 sets no limit."""
    hold_up: bool = False
    """Nothing passes from client to broker."""
    hold_down: bool = False
    """Nothing passes from broker to client."""
    reset: bool = False
    """Live connections are reset, new ones as soon as they are accepted."""
    refuse: bool = False
    """Live connections are reset, new ones refused."""


NONE = Effect()


@dataclass(slots=True)
class Counters:
    """What a listener has done since it began; bytes of both directions where none is named."""

    accepted: int = 0
    reset: int = 0
    unreachable: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    delayed_bytes: int = 0
    delay_ms_max: float = 0.0
    held_up_bytes: int = 0
    held_down_bytes: int = 0
    dropped_bytes: int = 0


class Link:
    """One direction of a listener: when a chunk may pass, and the count of what did."""

    def __init__(self, name: str, counters: Counters, rng: Random) -> None:
        self.name = name
        self.effect = NONE
        self._counters = counters
        self._rng = rng
        self._free_at = 0.0

    @property
    def held(self) -> bool:
        """Whether nothing passes."""
        return self.effect.hold_up if self.name == "up" else self.effect.hold_down

    @property
    def chunk_bytes(self) -> int:
        """How much to receive at once: 50 ms of a limited bandwidth."""
        limit = self.effect.bytes_per_s
        return max(1024, min(CHUNK_BYTES, int(limit / 20))) if limit else CHUNK_BYTES

    @property
    def room_bytes(self) -> int:
        """How much may wait."""
        return LIMITED_ROOM_BYTES if self.effect.bytes_per_s else ROOM_BYTES

    def set(self, effect: Effect) -> None:
        """Have an effect from now on."""
        self.effect = effect
        self._free_at = 0.0

    def due(self, now: float, size: int) -> float:
        """When a chunk that came now may pass."""
        effect, due = self.effect, now
        if effect.bytes_per_s:
            self._free_at = due = max(now, self._free_at) + size / effect.bytes_per_s
        # Only random(): its sequence for a seed is the same in every version of Python.
        due += (effect.latency_ms + effect.jitter_ms * self._rng.random()) / 1e3 if self._delays() else 0.0
        self._count(due - now, size)
        return due

    def passed(self, size: int) -> None:
        """Count what has passed."""
        name = f"{self.name}_bytes"
        setattr(self._counters, name, getattr(self._counters, name) + size)

    def _delays(self) -> bool:
        return self.effect.latency_ms > 0 or self.effect.jitter_ms > 0

    def _count(self, delay_s: float, size: int) -> None:
        if delay_s > 0:
            self._counters.delayed_bytes += size
            self._counters.delay_ms_max = max(self._counters.delay_ms_max, delay_s * 1e3)
        if self.held:
            name = f"held_{self.name}_bytes"
            setattr(self._counters, name, getattr(self._counters, name) + size)


class Pipe:
    """One direction of one connection: chunks that wait, in order, each with the time at which it is due."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.chunks: deque[tuple[float, memoryview]] = deque()
        self.waiting_bytes = 0
        self.ended = False
        self.closed = False
        self.blocked = False

    def wants(self) -> bool:
        """Whether there is room for more, and more may come."""
        return not self.ended and self.waiting_bytes < self.link.room_bytes

    def take(self, source: socket.socket, now: float) -> None:
        """Receive a chunk."""
        data = source.recv(self.link.chunk_bytes)
        if not data:
            self.ended = True
            return
        due = self.link.due(now, len(data))
        last = self.chunks[-1][0] if self.chunks else 0.0
        self.chunks.append((max(due, last), memoryview(data)))
        self.waiting_bytes += len(data)

    def give(self, sink: socket.socket, now: float) -> None:
        """Send what is due; the end too, once everything before it has passed."""
        self.blocked = False
        while self.chunks and not self.link.held and self.chunks[0][0] <= now and not self.blocked:
            self._send(sink)
        if self.ended and not self.chunks and not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def next_due(self) -> float | None:
        """When to look again, or None where only another event can help."""
        return None if not self.chunks or self.blocked or self.link.held else self.chunks[0][0]

    def hurry(self, now: float) -> None:
        """An effect has changed: what waited for the old one is due now."""
        self.chunks = deque((min(due, now), chunk) for due, chunk in self.chunks)

    def _send(self, sink: socket.socket) -> None:
        due, chunk = self.chunks[0]
        try:
            sent = sink.send(chunk)
        except BlockingIOError:
            sent = 0
        self.blocked = sent < len(chunk)
        self.link.passed(sent)
        self.waiting_bytes -= sent
        if self.blocked:
            self.chunks[0] = (due, chunk[sent:])
        else:
            self.chunks.popleft()


class Watch:
    """A selector that changes what a socket waits for only where that differs."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def on(self, file: Any, events: int, call: Callable[[int], None]) -> None:
        """Wake for these events of a file; for none, forget it."""
        key = self._selector.get_map().get(file)
        if key is None and events:
            self._selector.register(file, events, call)
        elif key is not None and not events:
            self._selector.unregister(file)
        elif key is not None and key.events != events:
            self._selector.modify(file, events, call)

    def wait(self, timeout_s: float | None) -> None:
        """Wait for events and make the calls that belong to them."""
        for key, events in self._selector.select(timeout_s):
            # A call may have closed a socket whose event stands later in the same list: it is no file any more,
            # and can be asked for by its old number alone.
            if self._selector.get_map().get(key.fd) is key:
                key.data(events)


class Connection:
    """A client and the way to its broker."""

    def __init__(self, listener: Listener, client: socket.socket) -> None:
        self._listener = listener
        self._watch = listener.watch
        self._client = client
        self._broker: socket.socket | None = None
        self._connected = False
        self.up, self.down = Pipe(listener.up), Pipe(listener.down)

    def pump(self, now: float | None = None) -> None:
        """Send what is due, then wait for what may come next."""
        now = time.monotonic() if now is None else now
        try:
            if self._broker is None and not (self.up.link.held and self.down.link.held):
                self._connect()
            if self._broker is not None and self._connected:
                self.up.give(self._broker, now)
                self.down.give(self._client, now)
        except OSError:
            self.abort()
        if self.up.closed and self.down.closed:
            self._close()
        if self in self._listener.connections:
            self._listen_on()

    def hurry(self, now: float) -> None:
        """An effect has changed."""
        self.up.hurry(now)
        self.down.hurry(now)
        self.pump(now)

    def next_due(self) -> float | None:
        """When to pump again, or None where only another event can help."""
        dues = [due for due in (self.up.next_due(), self.down.next_due()) if due is not None]
        return min(dues, default=None) if self._connected else None

    def abort(self) -> None:
        """End both sides with RST; what waited is dropped."""
        for side in (self._client, self._broker):
            if side is not None:
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self._listener.counters.dropped_bytes += self.up.waiting_bytes + self.down.waiting_bytes
        self._close()

    def _connect(self) -> None:
        self._broker = socket.socket()
        self._broker.setblocking(False)
        self._broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self._broker.connect_ex(self._listener.upstream)
        if code not in (0, errno.EINPROGRESS):
            self._unreachable()

    def _unreachable(self) -> None:
        self._listener.counters.unreachable += 1
        self.abort()

    def _on_client(self, events: int) -> None:
        self._moved(events, self.up, self._client)

    def _on_broker(self, events: int) -> None:
        assert self._broker is not None
        if self._connected:
            self._moved(events, self.down, self._broker)
        elif self._broker.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._unreachable()
        else:
            self._connected = True
            self.pump()

    def _moved(self, events: int, pipe: Pipe, source: socket.socket) -> None:
        now = time.monotonic()
        try:
            if events & READ and pipe.wants():
                pipe.take(source, now)
        except BlockingIOError:
            pass
        except OSError:
            self.abort()
            return
        self.pump(now)

    def _listen_on(self) -> None:
        """Set the events that wake the socket."""
        client = (READ if self.up.wants() else 0) | (WRITE if self.down.blocked else 0)
        self._watch.on(self._client, client, self._on_client)
        if self._broker is not None:
            broker = (READ if self.down.wants() else 0) | (WRITE if self.up.blocked else 0)
            self._watch.on(self._broker, broker if self._connected else WRITE, self._on_broker)
        self._listener.waits(self)

    def _close(self) -> None:
        for side in (self._client, self._broker):
            if side is not None and side.fileno() >= 0:
                self._watch.on(side, 0, self._on_client)
                side.close()
        self._listener.forget(self)


class Listener:
    """A port that clients know, the broker behind it, and the effect that lies between them."""

    def __init__(self, watch: Watch, rng: Random) -> None:
        self.watch = watch
        self.upstream = (LOOPBACK, 0)
        self.counters = Counters()
        self.up, self.down = Link("up", self.counters, rng), Link("down", self.counters, rng)
        self.connections: set[Connection] = set()
        self.waiting: set[Connection] = set()
        self._socket = _bound(0)
        self.port: int = self._socket.getsockname()[1]
        self._open()

    def set(self, effect: Effect) -> None:
        """Lay an effect on live and new connections; it takes the place of the one before."""
        refused = self.up.effect.refuse
        self.up.set(effect)
        self.down.set(effect)
        if effect.refuse != refused:
            (self._refuse if effect.refuse else self._open)()
        for connection in list(self.connections):
            if effect.refuse or effect.reset:
                self.counters.reset += 1
                connection.abort()
            else:
                connection.hurry(time.monotonic())

    def state(self) -> dict[str, Any]:
        """The effect, the connections that are open, the bytes that wait, and the counters."""
        waiting = {
            "waiting_up_bytes": sum(connection.up.waiting_bytes for connection in self.connections),
            "waiting_down_bytes": sum(connection.down.waiting_bytes for connection in self.connections),
        }
        about: dict[str, Any] = {"effect": dataclasses.asdict(self.up.effect), "open": len(self.connections)}
        return about | waiting | dataclasses.asdict(self.counters)

    def waits(self, connection: Connection) -> None:
        """Note whether a connection has something that comes due by itself."""
        if connection.next_due() is None:
            self.waiting.discard(connection)
        else:
            self.waiting.add(connection)

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        self.waiting.discard(connection)

    def _open(self) -> None:
        self._socket.listen(128)
        self.watch.on(self._socket, READ, self._accept)

    def _refuse(self) -> None:
        """Keep the port, but do not listen on it: connections are refused, and no other process can take the port."""
        self.watch.on(self._socket, 0, self._accept)
        self._socket.close()
        self._socket = _bound(self.port)

    def _accept(self, _: int) -> None:
        try:
            client, _address = self._socket.accept()
        except OSError:
            return
        self.counters.accepted += 1
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.up.effect.reset:
            self.counters.reset += 1
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            client.close()
        else:
            connection = Connection(self, client)
            self.connections.add(connection)
            connection.pump()


class Relay:
    """Listeners in a loop, and the commands that change them."""

    def __init__(self, count: int, seed: int) -> None:
        self.watch = Watch()
        self.listeners = [Listener(self.watch, Random(seed * 1_000 + number)) for number in range(count)]
        self._text = b""
        self._ended = False

    def run(self, commands: int, answer: Callable[[dict[str, Any]], None]) -> None:
        """Serve until the file of commands ends."""
        os.set_blocking(commands, False)
        self.watch.on(commands, READ, lambda _: self._read(commands, answer))
        while not self._ended:
            self.watch.wait(self._timeout_s())
            now = time.monotonic()
            for connection in self._waiting():
                connection.pump(now)

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do one command: any of ``upstream`` and ``effect``, for one ``listener``; the answer is its state."""
        listener: Listener = self.listeners[command["listener"]]
        if "upstream" in command:
            listener.upstream = tuple(command["upstream"])
        if "effect" in command:
            listener.set(Effect(**command["effect"]))
        return listener.state()

    def _read(self, commands: int, answer: Callable[[dict[str, Any]], None]) -> None:
        read = os.read(commands, 65_536)
        self._ended = not read
        *lines, self._text = (self._text + read).split(b"\n")
        for line in lines:
            answer(self.obey(json.loads(line)))

    def _waiting(self) -> Iterable[Connection]:
        return [connection for listener in self.listeners for connection in listener.waiting]

    def _timeout_s(self) -> float | None:
        dues = [due for connection in self._waiting() if (due := connection.next_due()) is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    made.bind((LOOPBACK, port))
    return made


def main(args: Sequence[str]) -> None:
    """Serve as many listeners as the first argument; the second is the seed of the jitter."""
    relay = Relay(int(args[0]), int(args[1]))

    def answer(what: dict[str, Any]) -> None:
        print(json.dumps(what), flush=True)

    answer({"ports": [listener.port for listener in relay.listeners]})
    relay.run(sys.stdin.fileno(), answer)


if __name__ == "__main__":
    main(sys.argv[1:])
