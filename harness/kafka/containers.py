"""Brokers as containers, through testcontainers: 1 to 5 nodes of one image, on fixed ports of 127.0.0.1.

A container keeps its data and its port for as long as the cluster is open, however often it is killed
and started. Each bears its owner's mark as a label: what a dead harness left is removed at the next
start, so the reaper container of testcontainers, with an image of its own, is not needed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from harness.errors import ScenarioError, StackError
from harness.host.ownership import Owner, machine
from harness.kafka import common, topics
from harness.kafka.cluster import Broker, await_true

IMAGE = "apache/kafka:4.3.1"
# What `make kafka-image` makes where no registry can be reached.
STAND_IN = "streaming-harness/kafka:4.3.1"
NODES_MAX = 5
START_S = 60.0
LOG_LINES = 500
# Exit code of a container that SIGKILL ended.
KILLED = 137
INSIDE, BETWEEN, CONTROLLER = 9092, 9094, 9093
LABEL = "streaming-harness.owner"
HOST = LABEL + ".host"
CLUSTER = LABEL + ".cluster"


class ContainerBroker:
    """One broker in a container of ours."""

    def __init__(self, id: int, port: int, container: DockerContainer) -> None:
        self.id = id
        self.port = port
        self._container = container

    @property
    def pid(self) -> int | None:
        """The id of its process as this machine sees it, while it runs; None where the daemon is elsewhere."""
        state = self._state()
        pid = int(state["Pid"]) if state["Running"] else 0
        return pid if pid and self._is_here(pid) else None

    @property
    def address(self) -> str:
        """Where it is reached."""
        return f"127.0.0.1:{self.port}"

    @property
    def client_address(self) -> str:
        """The same."""
        return self.address

    def start(self, wait_s: float = START_S) -> None:
        """Start it where it is not running; StackError ends with the last line of its log."""
        with _one_line(f"broker {self.id} cannot be started"):
            if not self._state()["Running"]:
                self._container.get_wrapped_container().start()
        if wait_s > 0:
            self.await_up(wait_s)

    def await_up(self, wait_s: float) -> None:
        """Wait until it answers; StackError where it ends or the time is over."""
        if await_true(lambda: not self._state()["Running"] or self.is_up(), wait_s) and self._state()["Running"]:
            return
        last = (self.log().strip().splitlines() or ["it logged nothing"])[-1]
        raise StackError(f"broker {self.id} does not answer after {wait_s:.0f} s: {last}")

    def stop(self) -> bool:
        """Shut it down in an orderly way; false where it had to be killed."""
        with _one_line(f"broker {self.id} cannot be stopped"):
            self._container.get_wrapped_container().stop(timeout=round(common.STOP_S))
            return bool(self._state()["ExitCode"] != KILLED)

    def kill(self) -> None:
        """SIGKILL."""
        with _one_line(f"broker {self.id} cannot be killed"):
            if self._state()["Running"]:
                self._container.get_wrapped_container().kill()
                self._container.get_wrapped_container().wait()

    def pause(self) -> None:
        """Freeze it; StackError where it does not run."""
        with _one_line(f"broker {self.id} does not run"):
            self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Let it go on; StackError where it does not run."""
        with _one_line(f"broker {self.id} does not run"):
            self._container.get_wrapped_container().unpause()

    def is_up(self) -> bool:
        """Whether it answers and stands in its own metadata."""
        state = self._state()
        return state["Running"] and not state["Paused"] and topics.is_member(self.address, self.id)

    def log(self) -> str:
        """The end of its log."""
        with _one_line(f"broker {self.id} has no log"):
            tail: bytes = self._container.get_wrapped_container().logs(tail=LOG_LINES)
            return tail.decode(errors="replace")

    def remove(self) -> None:
        """End it and remove it with its data."""
        with contextlib.suppress(DockerException, RequestException):
            self._container.stop()

    def _is_here(self, pid: int) -> bool:
        """Whether that process of this machine is in this container: a daemon elsewhere counts its own."""
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
        except OSError:
            return False
        return str(self._container.get_wrapped_container().id) in groups

    def _state(self) -> Mapping[str, Any]:
        with _one_line(f"broker {self.id} cannot be looked at"):
            container = self._container.get_wrapped_container()
            container.reload()
            state: Mapping[str, Any] = container.attrs["State"]
            return state


@dataclass(frozen=True, slots=True)
class ContainerCluster:
    """Brokers in containers that form one Kafka."""

    nodes: Mapping[int, ContainerBroker]
    topic_prefix: str = ""

    @property
    def bootstrap(self) -> str:
        """All addresses."""
        return ",".join(broker.address for broker in self.nodes.values())

    @property
    def brokers(self) -> Mapping[int, Broker]:
        """Every broker by its id."""
        return self.nodes

    def pids(self) -> Sequence[int]:
        """The broker processes that run on this machine."""
        return [pid for broker in self.nodes.values() if (pid := broker.pid) is not None]


@contextlib.contextmanager
def open_cluster(nodes: int) -> Iterator[ContainerCluster]:
    """Start `nodes` brokers in containers, and remove everything at the end.

    Raises ScenarioError for a number that cannot be, StackError where no daemon answers or the image is not there.
    """
    if not 1 <= nodes <= NODES_MAX:
        raise ScenarioError(f"kafka: {nodes} brokers, and only 1 to {NODES_MAX} can be started")
    image = found_image()
    with _one_line("what a dead run left in Docker cannot be removed"):
        sweep()
    testcontainers_config.ryuk_disabled = True
    cluster_id = common.kafka_id()
    network = Network(docker_network_kw={"labels": _labels(cluster_id)})
    brokers: dict[int, ContainerBroker] = {}
    with contextlib.ExitStack() as stack:
        # By its label: what was broken off while it was made is known by nothing else.
        stack.callback(_clear, cluster_id)
        with _one_line("no network for the brokers"):
            network.create()
        ports = common.free_ports(nodes)
        for id, port in enumerate(ports, start=1):
            container = _container(image, id, port, nodes, cluster_id, network)
            brokers[id] = ContainerBroker(id, port, container)
            # Each removal stands for itself: one that is broken off keeps none of the others from being done.
            stack.callback(brokers[id].remove)
            with _one_line(f"broker {id} cannot be started"):
                container.start()
        for broker in brokers.values():
            broker.await_up(START_S)
        addresses = {id: broker.address for id, broker in brokers.items()}
        if not await_true(lambda: not topics.apart(addresses), START_S) and (why := topics.apart(addresses)):
            raise StackError(f"the {nodes} brokers do not see each other after {START_S:.0f} s: {why}")
        yield ContainerCluster(brokers)


def _clear(cluster_id: str) -> None:
    """Remove what is left of a cluster; a failure is printed, not raised, since the run's results do not depend on it."""
    try:
        with _one_line("brokers of ours are left in Docker"):
            _remove_all(f"{CLUSTER}={cluster_id}", lambda labels: True)
    except StackError as error:
        print(f"kafka: {error}", file=sys.stderr)


def found_image() -> str:
    """The image that brokers can be started from: the one of ``HARNESS_KAFKA_IMAGE``, else Kafka's own, else our stand-in.

    Raises StackError where no daemon answers, or no image is there or can be pulled.
    """
    client = _client()
    named = os.environ.get("HARNESS_KAFKA_IMAGE")
    try:
        for name in (named,) if named else (IMAGE, STAND_IN):
            if _is_there(client, name):
                return name
        wanted = named or IMAGE
        client.images.pull(wanted)
    except (DockerException, RequestException) as error:
        raise StackError(
            f"image {named or IMAGE} is neither here nor can it be pulled: name another in HARNESS_KAFKA_IMAGE, "
            "or make a local one with `make kafka-image`"
        ) from error
    finally:
        client.close()
    return wanted


def reach() -> None:
    """Reach the Docker daemon; StackError where none answers."""
    _client().close()


def why_not() -> str | None:
    """Why brokers cannot be started in containers without pulling anything; None where they can."""
    try:
        client = _client()
    except StackError as error:
        return str(error)
    named = os.environ.get("HARNESS_KAFKA_IMAGE")
    names = (named,) if named else (IMAGE, STAND_IN)
    try:
        return None if any(_is_there(client, name) for name in names) else f"no image {' or '.join(names)} here"
    finally:
        client.close()


def sweep() -> list[str]:
    """Remove containers and networks whose owner is dead, and nothing else; their names."""
    return _remove_all(LABEL, _is_left)


def _remove_all(label: str, wanted: Callable[[Mapping[str, str]], bool]) -> list[str]:
    """Remove the containers and networks with a label whose labels are wanted; their names."""
    client = _client()
    try:
        named = {"label": label}
        there = client.containers.list(all=True, filters=named, ignore_removed=True)
        containers = [container for container in there if wanted(container.labels)]
        for container in containers:
            _remove(container)
        networks = [network for network in client.networks.list(filters=named) if wanted(network.attrs["Labels"])]
        for network in networks:
            with contextlib.suppress(NotFound):
                network.remove()
        return [resource.name for resource in (*containers, *networks)]
    finally:
        client.close()


def _remove(container: Container) -> None:
    """Remove a container, or wait until another harness that swept at the same moment has."""
    with contextlib.suppress(NotFound):
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            if error.status_code != HTTPStatus.CONFLICT:
                raise
            container.wait(condition="removed")


def _container(image: str, id: int, port: int, nodes: int, cluster_id: str, network: Network) -> DockerContainer:
    container = DockerContainer(image).with_network(network).with_network_aliases(f"broker-{id}")
    container.ports[f"{INSIDE}/tcp"] = ("127.0.0.1", port)  # type: ignore[assignment]  # with_bind_ports opens it to all
    environment = {
        "KAFKA_" + key.upper().replace(".", "_"): str(value) for key, value in settings(id, port, nodes).items()
    }
    # C1 alone, as embedded brokers have it; the java command itself reads this.
    java = {"CLUSTER_ID": cluster_id, "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1"}
    for name, value in (environment | java).items():
        container.with_env(name, value)
    return container.with_kwargs(labels=_labels(cluster_id), hostname=f"broker-{id}")


def settings(id: int, port: int, nodes: int) -> dict[str, str | int]:
    """The server.properties of a node: one listener for clients by its port here, one for its peers, one for control."""
    return {
        "process.roles": "broker,controller",
        "node.id": id,
        "listeners": f"CLIENT://0.0.0.0:{INSIDE},PLAINTEXT://broker-{id}:{BETWEEN},CONTROLLER://broker-{id}:{CONTROLLER}",
        "advertised.listeners": f"CLIENT://127.0.0.1:{port},PLAINTEXT://broker-{id}:{BETWEEN}",
        "controller.quorum.voters": ",".join(f"{node}@broker-{node}:{CONTROLLER}" for node in range(1, nodes + 1)),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CLIENT:PLAINTEXT",
        "log.dirs": "/var/lib/kafka/data",
        **common.settings(nodes),
    }


def _client() -> docker.DockerClient:
    silent = "no Docker daemon answers: start it, or use --kafka embedded"
    scheme, _, path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    # Without a listener the client leaves its socket open, and a later test would fail on that warning.
    if scheme == "unix" and not _listens(path):
        raise StackError(silent)
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except DockerException as error:
        raise StackError(silent) from error
    return client


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _is_there(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _is_left(labels: Mapping[str, str]) -> bool:
    """Whether its owner is dead; False for an owner in another process namespace, which cannot be looked up."""
    owner = Owner.parse(labels.get(LABEL, ""))
    return owner is not None and labels.get(HOST) == machine() and owner.is_dead()


def _labels(cluster_id: str) -> dict[str, str]:
    return {LABEL: Owner.me().mark, HOST: machine(), CLUSTER: cluster_id}


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, RequestException) as error:
        reason = getattr(error, "explanation", None) or str(error)
        raise StackError(f"{what}: {reason}") from error


__all__ = ["ContainerBroker", "ContainerCluster", "found_image", "open_cluster", "reach", "sweep", "why_not"]
