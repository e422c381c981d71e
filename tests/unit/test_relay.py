"""Each effect of the relay on a live connection: felt, counted, and lifted without a byte lost."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from harness.errors import StackError
from harness.faults.network import EFFECTS, Relay, Wire, open_relay
from harness.faults.relay import READ, Watch


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that gives back what it gets; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65_536):
                    client.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


@pytest.fixture
def relay(echo: int) -> Iterator[Relay]:
    """A relay before the server."""
    with open_relay(1, seed=7) as running:
        running.lead(0, "127.0.0.1", echo)
        yield running


@pytest.fixture
def client(relay: Relay) -> Iterator[socket.socket]:
    """A connection through the relay, seen to work."""
    with socket.create_connection(("127.0.0.1", relay.ports[0]), timeout=10) as connected:
        assert b"hello" == asked(connected, b"hello")
        yield connected


def asked(client: socket.socket, text: bytes) -> bytes:
    """What comes back."""
    client.sendall(text)
    back = b""
    while len(back) < len(text):
        back += client.recv(65_536)
    return back


def test_ended_relay_is_reported(relay):
    """What no longer gets through is not the pipeline's doing."""
    relay.check()
    relay._service.kill()

    with pytest.raises(StackError, match="the relay between clients and brokers ended with -9"):
        relay.check()


def test_latency_delays_both_ways(relay, client):
    """Twice 200 ms at least, and counted."""
    relay.have(0, EFFECTS["latency"])
    before = time.monotonic()

    assert b"x" == asked(client, b"x")
    assert time.monotonic() - before >= 0.4
    assert relay.state(0)["delayed_bytes"] >= 2


@pytest.mark.parametrize("kind", ["blackhole", "half_open"])
def test_held_bytes_pass_after_healing(relay, client, kind):
    """Nothing is lost inside a connection."""
    wire = Wire(relay, 0)
    client.sendall(b"wait")
    assert b"wait" == client.recv(10)
    relay.have(0, EFFECTS[kind])
    client.sendall(b"held")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(10)
    client.settimeout(10)
    wire.relay.have(0, EFFECTS[kind].__class__())

    assert b"held" == client.recv(10)


@pytest.mark.parametrize(("kind", "again"), [("reset", ConnectionResetError), ("partition", ConnectionRefusedError)])
def test_cut_refuses_new_connections(relay, client, kind, again):
    """And works again once it is lifted."""
    relay.have(0, EFFECTS[kind])
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    with pytest.raises(again), socket.create_connection(("127.0.0.1", relay.ports[0]), timeout=10) as other:
        asked(other, b"x")
    relay.have(0, EFFECTS["latency"].__class__())

    with socket.create_connection(("127.0.0.1", relay.ports[0]), timeout=10) as other:
        assert b"x" == asked(other, b"x")


def test_a_limited_bandwidth_takes_its_time(relay, client):
    """50 kB at 100 kB/s each way: half a second at least."""
    relay.have(0, EFFECTS["bandwidth"])
    before = time.monotonic()

    assert 50_000 == len(asked(client, b"x" * 50_000))
    assert time.monotonic() - before >= 0.4


def test_closed_socket_is_skipped():
    """Two are ready at once, and the first to be called closes both: as a reset does to the two sides of a connection."""
    watch, called = Watch(), []
    pairs = [socket.socketpair() for _ in range(2)]

    def close(_: int) -> None:
        called.append("called")
        for near, _far in pairs:
            watch.on(near, 0, close)
            near.close()

    for near, far in pairs:
        watch.on(near, READ, close)
        far.send(b"x")
    watch.wait(1)

    assert ["called"] == called
    for _, far in pairs:
        far.close()
