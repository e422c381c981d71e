"""Brokers as plain Java processes on 127.0.0.1, from the broker's jars: no Docker, no network.

Each node is a KRaft broker and controller in one. A node keeps its ports and its data for as long as the
cluster is open, however often it is killed and started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ScenarioError, StackError
from harness.host import cause, class_archive, environment, jars
from harness.host.service import Service
from harness.kafka import common, topics
from harness.kafka.cluster import Broker, await_true

LOG_TAIL_BYTES = 65_536
NODES_MAX = 5
START_S = 60.0
JVM = (
    *("-Xms128m", "-Xmx448m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    # C1 alone: for the minutes that a broker lives here, what C2 makes does not pay for its making.
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
)
FORMAT_JVM = ("-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@dataclass(frozen=True, slots=True)
class Node:
    """Where one broker listens, and the folder that it lives in."""

    id: int
    port: int
    controller_port: int
    folder: Path
    # Where clients are let in that come by the advertised port; 0 where they use `port` like everyone.
    client_port: int = 0
    # The port that clients connect to; 0 for `port`.
    advertised_port: int = 0

    @property
    def address(self) -> str:
        """Where brokers reach it, and the harness that wants nothing in between."""
        return f"127.0.0.1:{self.port}"

    @property
    def client_address(self) -> str:
        """Where it listens for what comes by its advertised port."""
        return f"127.0.0.1:{self.client_port or self.port}"

    @property
    def advertised_address(self) -> str:
        """Where clients reach it."""
        return f"127.0.0.1:{self.advertised_port or self.port}"

    @property
    def data(self) -> Path:
        """Its log directory."""
        return self.folder / "data"

    @property
    def temporary(self) -> Path:
        """Where its Java puts what it unpacks: one that is killed takes nothing back."""
        return self.folder / "tmp"

    @property
    def settings(self) -> Path:
        """Its server.properties."""
        return self.folder / "server.properties"


class EmbeddedBroker:
    """One broker process of ours."""

    def __init__(self, node: Node, java: Sequence[str] = ()) -> None:
        """`java` are further flags for Java."""
        self.node = node
        self._java = java
        self._service = Service(
            f"broker {node.id}",
            self._command,
            node.folder / "broker.log",
            works=self._answers,
            grace_s=common.STOP_S,
            start_s=START_S,
            reason=last_error,
            cwd=node.folder,
        )

    @property
    def id(self) -> int:
        """Its ``node.id``."""
        return self.node.id

    @property
    def pid(self) -> int | None:
        """The id of its process while it runs."""
        return self._service.pid

    @property
    def address(self) -> str:
        """Where it is reached with nothing in between."""
        return self.node.address

    @property
    def client_address(self) -> str:
        """Where it listens for what comes by its advertised port."""
        return self.node.client_address

    def start(self, wait_s: float = START_S) -> None:
        """Start it where it is not running; StackError ends with the line of its log that has the reason."""
        self._service.start(wait_s)

    def await_up(self, wait_s: float) -> None:
        """Wait until it answers; StackError where it ends or the time is over."""
        self._service.await_up(wait_s)

    def stop(self) -> bool:
        """Shut it down in an orderly way; false where it had to be killed."""
        return self._service.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._service.kill()

    def pause(self) -> None:
        """SIGSTOP; StackError where it does not run."""
        self._service.pause()

    def resume(self) -> None:
        """SIGCONT; StackError where it does not run."""
        self._service.resume()

    def is_up(self) -> bool:
        """Whether it runs, is not frozen, answers and is in its own metadata."""
        return self._service.is_up()

    def log(self) -> str:
        """The end of its log."""
        return cause.tail(self._service.log, LOG_TAIL_BYTES)

    def last_line(self) -> str:
        """The line of its log that has the reason of its end."""
        return self._service.last_line()

    def _command(self) -> list[str | Path]:
        self.node.temporary.mkdir(exist_ok=True)
        flags = (*JVM, f"-Djava.io.tmpdir={self.node.temporary}", *self._java)
        return [jars.java(), *flags, "-cp", _classpath(), "kafka.Kafka", self.node.settings]

    def _answers(self) -> bool:
        return _listens(self.node.port) and topics.is_member(self.node.address, self.id)


def last_error(log: str) -> str:
    """The last line of a broker's log with an error, or the last line of all."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if " ERROR " in line or "Exception" in line or "Error:" in line]
    return (errors or lines or ["it logged nothing"])[-1]


@dataclass(frozen=True, slots=True)
class EmbeddedCluster:
    """Brokers of ours that form one Kafka."""

    nodes: Mapping[int, EmbeddedBroker]
    topic_prefix: str = ""

    @property
    def bootstrap(self) -> str:
        """All addresses, as clients know them."""
        return ",".join(broker.node.advertised_address for broker in self.nodes.values())

    @property
    def brokers(self) -> Mapping[int, Broker]:
        """Every broker by its id."""
        return self.nodes

    def pids(self) -> Sequence[int]:
        """The broker processes that run."""
        return [pid for broker in self.nodes.values() if (pid := broker.pid) is not None]


@contextlib.contextmanager
def open_cluster(nodes: int, directory: Path, advertised: Mapping[int, int] | None = None) -> Iterator[EmbeddedCluster]:
    """Start `nodes` brokers that keep their data in `directory`, and kill them at the end.

    Killing loses nothing that anyone will ask for: the data go with the run. `advertised` is the port by
    which clients find each broker, where something stands in between: it must lead to the node's
    `client_address`. Brokers and controllers talk past it.
    """
    if not 1 <= nodes <= NODES_MAX:
        raise ScenarioError(f"kafka: {nodes} brokers, and only 1 to {NODES_MAX} can be started")
    java = class_archive.archived("Kafka", jars.broker_jars(), archive)
    brokers = {node.id: EmbeddedBroker(node, java) for node in _lay_out(nodes, directory, advertised or {})}
    cluster = EmbeddedCluster(brokers)
    try:
        _start(cluster)
        yield cluster
    finally:
        for broker in brokers.values():
            broker.kill()


def archive(file: Path, folder: Path) -> str:
    """Run a broker until it is up, and have Java write an archive of its classes; why that failed, or nothing."""
    [node] = _lay_out(1, folder, {})
    broker = EmbeddedBroker(node, (f"-XX:ArchiveClassesAtExit={file}",))
    try:
        broker.start()
        broker.stop()
        return "" if file.exists() else broker.last_line()
    except StackError as error:
        return str(error)
    finally:
        broker.kill()


def settings(node: Node, nodes: Sequence[Node]) -> dict[str, str | int]:
    """The server.properties of a node among its peers."""
    apart = bool(node.advertised_port)
    client, advertised = f",CLIENT://{node.client_address}", f",CLIENT://{node.advertised_address}"
    return {
        "process.roles": "broker,controller",
        "node.id": node.id,
        "listeners": f"PLAINTEXT://{node.address},CONTROLLER://127.0.0.1:{node.controller_port}" + client * apart,
        "advertised.listeners": f"PLAINTEXT://{node.address}" + advertised * apart,
        "controller.quorum.voters": ",".join(f"{n.id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT" + ",CLIENT:PLAINTEXT" * apart,
        "log.dirs": str(node.data),
        **common.settings(len(nodes)),
    }


def _start(cluster: EmbeddedCluster) -> None:
    """Start all at once, and wait until every one is in the metadata."""
    for broker in cluster.nodes.values():
        broker.start(wait_s=0)
    for broker in cluster.nodes.values():
        broker.await_up(START_S)
    addresses = {number: broker.node.address for number, broker in cluster.nodes.items()}
    if not await_true(lambda: not topics.apart(addresses), START_S) and (why := topics.apart(addresses)):
        raise StackError(f"the {len(addresses)} brokers do not see each other after {START_S:.0f} s: {why}")


def _lay_out(count: int, directory: Path, advertised: Mapping[int, int]) -> list[Node]:
    """Choose ports, and write what each node needs before it can start."""
    ports = iter(common.free_ports(3 * count))
    directory = directory.absolute()
    nodes = [
        Node(id, next(ports), next(ports), directory / f"broker-{id}", next(ports), advertised.get(id, 0))
        for id in range(1, count + 1)
    ]
    checkpoint = _bootstrap_checkpoint()
    cluster_id = common.kafka_id()
    for node in nodes:
        _format(node, nodes, cluster_id, checkpoint)
    return nodes


def _format(node: Node, nodes: Sequence[Node], cluster_id: str, checkpoint: Path) -> None:
    """Do what ``StorageTool format`` does, without half a second of JVM for each node."""
    data = node.data
    data.mkdir(parents=True, exist_ok=True)  # it may be a disk of its own
    identity: dict[str, str | int] = {"version": 1}
    identity |= {"cluster.id": cluster_id, "node.id": node.id, "directory.id": common.kafka_id()}
    _write_properties(data / "meta.properties", identity)
    _write_properties(node.settings, settings(node, nodes))
    shutil.copyfile(checkpoint, data / checkpoint.name)


def _bootstrap_checkpoint() -> Path:
    """The feature levels that a new cluster starts from: the same for all nodes, so made once and kept."""
    kept = jars.cache() / "format" / jars.broker_jars().name / "bootstrap.checkpoint"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            port, controller_port = common.free_ports(2)
            node = Node(1, port, controller_port, Path(work))
            _write_properties(node.settings, settings(node, [node]))
            _run_storage_tool(node)
            os.replace(node.data / kept.name, kept)
    return kept


def _run_storage_tool(node: Node) -> None:
    command = [str(jars.java()), *FORMAT_JVM, "-cp", _classpath(), "kafka.tools.StorageTool"]
    command += ["format", "-t", common.kafka_id(), "-c", str(node.settings)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, env=environment.own())
    except subprocess.TimeoutExpired as error:
        raise StackError(f"the storage of a broker was not formatted within {START_S:.0f} s") from error
    if done.returncode:
        last = (done.stderr + done.stdout).strip().splitlines()[-1:]
        raise StackError(f"the storage of a broker cannot be formatted: {''.join(last)}")


def _write_properties(path: Path, values: Mapping[str, str | int]) -> None:
    path.write_text("".join(f"{key}={_escaped(str(value))}\n" for key, value in values.items()), encoding="ascii")


def _escaped(value: str) -> str:
    """A value as Java's properties have it: ASCII, all other UTF-16 units and backslashes escaped."""
    units = value.encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
    return "".join(chr(code) if 32 <= code < 127 and code != 92 else f"\\u{code:04x}" for code in codes)


def _classpath() -> str:
    return f"{jars.broker_jars()}/*"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True
