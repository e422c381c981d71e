"""What can be said of Kafka without a broker."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import kafka
from harness.errors import ScenarioError, StackError
from harness.host.ownership import Owner
from harness.kafka import common, embedded, external
from harness.kafka.embedded import EmbeddedBroker, Node


def nodes(count):
    """So many nodes, as if laid out."""
    return [Node(i, 20_000 + i, 21_000 + i, Path(f"/nowhere/broker-{i}")) for i in range(1, count + 1)]


@pytest.mark.parametrize(
    ("count", "copies", "in_sync"),
    [pytest.param(1, 1, 1, id="one"), pytest.param(2, 2, 1, id="two"), pytest.param(5, 3, 2, id="five")],
)
def test_internal_topics_replicate_to_brokers(count, copies, in_sync):
    """Offsets, transactions and share groups live as safely as the cluster allows."""
    found = embedded.settings(nodes(count)[0], nodes(count))

    assert {copies} == {value for key, value in found.items() if key.endswith("replication.factor")}
    assert {in_sync} == {value for key, value in found.items() if key.endswith("min.isr")}
    assert count == len(str(found["controller.quorum.voters"]).split(","))


def test_everything_listens_on_loopback_only():
    """No setting names another address."""
    found = embedded.settings(nodes(3)[1], nodes(3))

    assert "PLAINTEXT://127.0.0.1:20002,CONTROLLER://127.0.0.1:21002" == found["listeners"]
    assert "0.0.0.0" not in str(found)


def test_properties_are_ascii(tmp_path):
    """Java reads them as Latin-1, and takes a backslash for an escape."""
    embedded._write_properties(tmp_path / "p", {"log.dirs": "/a b/ü/\\/🙂"})

    assert b"log.dirs=/a b/\\u00fc/\\u005c/\\ud83d\\ude42\n" == (tmp_path / "p").read_bytes()


def test_ids_are_in_kafkas_notation():
    """22 characters of base64, and no dash first."""
    ids = {common.kafka_id() for _ in range(500)}

    assert 500 == len(ids)
    assert {22} == {len(made) for made in ids}
    assert not [made for made in ids if made.startswith("-")]


def test_used_port_is_not_free():
    """What someone listens on is not handed out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not common.can_bind(server.getsockname()[1])


@pytest.mark.parametrize("where", ["docker", "kafka", "host:", ""])
def test_an_unknown_kafka_is_bad_usage(where, tmp_path):
    """The message says what there is."""
    with pytest.raises(ScenarioError, match=r"is neither embedded.* nor HOST:PORT"):
        kafka.open_cluster(where, 1, tmp_path)


@pytest.mark.parametrize("count", [0, 6])
def test_one_to_five_brokers(count, tmp_path):
    """More would not fit on a machine."""
    with pytest.raises(ScenarioError, match="only 1 to 5"), embedded.open_cluster(count, tmp_path):
        pass


@pytest.mark.parametrize(
    ("log", "last"),
    [
        pytest.param("a\nb\n\n", "b", id="the last line"),
        pytest.param("a INFO\nx ERROR no disk\nbye\n", "x ERROR no disk", id="the last error"),
        pytest.param("", "it logged nothing", id="nothing"),
    ],
)
def test_failed_broker_gives_its_reason(tmp_path, log, last):
    """The line that a person wants to read first."""
    (tmp_path / "broker.log").write_text(log)

    assert last == EmbeddedBroker(Node(1, 1, 2, tmp_path)).last_line()


def test_only_dead_owners_topics_are_abandoned(monkeypatch):
    """Not those of the living, of other machines or containers, or of other people."""
    monkeypatch.setattr(socket, "gethostname", lambda: "box-1")
    dead, living = replace(Owner.me(), pid=2**22 - 7, born=1), Owner.me()
    ours = external.topic_prefix(dead) + "clicks"
    others = {
        external.topic_prefix(living) + "clicks",
        f"harness-box_1-{dead.mark}-clicks",
        f"{ours.partition('.')[0]}.00000000-{dead.mark}-clicks",
        f"{ours.partition('.')[0]}.00000000-x-{dead.mark}-clicks",
        external.topic_prefix(replace(dead, among=dead.among + 1)) + "clicks",
        "clicks",
        "harness-notes",
    }

    assert [ours] == external.abandoned({ours} | others)


@pytest.mark.skipif(sys.platform != "linux", reason="it takes a name that Linux alone has")
def test_port_has_a_single_owner():
    """Though nobody listens on it yet, or its broker is dead for the moment."""
    [port] = common.free_ports(1)
    program = "import sys; from harness.kafka import common; print(common._lease(int(sys.argv[1])))"
    command = [sys.executable, "-c", program]
    given = [subprocess.check_output([*command, str(number)], text=True) for number in (port, port, port + 10_000)]

    assert ["False\n", "False\n", "True\n"] == given


@pytest.mark.parametrize("verb", ["start", "stop", "kill", "pause", "resume"])
def test_external_broker_takes_no_faults(verb):
    """The message names the broker and what to do instead."""
    broker = external.ExternalBroker(1, "host:9092")

    with pytest.raises(StackError, match=rf"^broker 1 of host:9092 is external and not ours to {verb}: .*embedded"):
        getattr(broker, verb)()


def test_container_advertises_port_and_name():
    """And its quorum is that of all nodes."""
    from harness.kafka import containers

    told = containers.settings(2, 23456, 3)

    assert "CLIENT://127.0.0.1:23456,PLAINTEXT://broker-2:9094" == told["advertised.listeners"]
    assert "1@broker-1:9093,2@broker-2:9093,3@broker-3:9093" == told["controller.quorum.voters"]
    assert (3, 2) == (told["offsets.topic.replication.factor"], told["transaction.state.log.min.isr"])


def test_failed_broker_leaves_no_archive(tmp_path, monkeypatch):
    """Where it is told, it is told once: whoever asks for the archive goes on without."""
    monkeypatch.setattr(embedded, "_lay_out", lambda count, folder, advertised: [Node(1, 1, 2, folder)])

    def ends(broker, wait_s=0):
        raise StackError("broker 1 ended with 1 while it started")

    monkeypatch.setattr(EmbeddedBroker, "start", ends)

    assert "broker 1 ended with 1 while it started" == embedded.archive(tmp_path / "classes.jsa", tmp_path)
