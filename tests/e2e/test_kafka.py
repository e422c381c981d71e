"""What every kind of cluster promises, held by each of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import confluent_kafka
import psutil
import pytest

from harness import kafka
from harness.errors import StackError
from harness.host import cleanup, jars, processes
from harness.host.ownership import Owner
from harness.kafka import Cluster, topics

pytestmark = pytest.mark.e2e


@contextmanager
def external(nodes: int, folder: Path) -> Iterator[Cluster]:
    """Someone else's brokers: here embedded ones, seen by their address alone."""
    with (
        kafka.open_cluster("embedded", nodes, folder) as theirs,
        kafka.open_cluster(theirs.bootstrap.split(",")[0], nodes, folder) as ours,
    ):
        yield ours


def embedded(nodes: int, folder: Path):
    """Brokers of our own."""
    return kafka.open_cluster("embedded", nodes, folder)


def containers(nodes: int, folder: Path):
    """Brokers in containers, where a daemon answers and the image is there."""
    from harness.kafka.containers import why_not

    if why := why_not():
        pytest.skip(why)
    return kafka.open_cluster("containers", nodes, folder)


def eventually(condition: Callable[[], bool], deadline_s: float = 60) -> None:
    """Wait for a condition, and fail when it does not come."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def sent_and_read(cluster: Cluster, topic: str, values: list[bytes]) -> list[bytes | None]:
    """Produce with acks=all, and read the whole topic."""
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    for value in values:
        producer.produce(topic, value)
    assert 0 == producer.flush(60)
    return [message.value for message in topics.read(cluster.bootstrap, [topic])]


@pytest.mark.parametrize("opened", [embedded, external, containers])
def test_records_return_and_topics_are_removed(tmp_path, opened):
    """Topics can be made, written and read under the cluster's own prefix."""
    with opened(1, tmp_path) as cluster:
        name = f"{cluster.topic_prefix}things"
        topics.create(cluster.bootstrap, {name: {}}, 2, 1)

        assert [b"a", b"b"] == sorted(sent_and_read(cluster, name, [b"a", b"b"]))
        assert {0, 1} == set(topics.end_offsets(cluster.bootstrap, [name])[name])


def test_external_topics_go_and_brokers_stay(tmp_path):
    """An external cluster is left as it was found."""
    with kafka.open_cluster("embedded", 1, tmp_path) as theirs:
        with kafka.open_cluster(theirs.bootstrap, 1, tmp_path) as ours:
            name = f"{ours.topic_prefix}things"
            topics.create(ours.bootstrap, {name: {}}, 1, 1)
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": theirs.bootstrap})

        eventually(lambda: name not in admin.list_topics(timeout=5).topics)
        eventually(lambda: all(broker.is_up() for broker in theirs.brokers.values()))


@pytest.mark.parametrize("opened", [embedded, containers])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_broker_restarts_with_port_and_data(tmp_path, opened, end):
    """After an orderly stop and after a kill."""
    with opened(1, tmp_path) as cluster:
        topics.create(cluster.bootstrap, {"things": {}}, 1, 1)
        sent_and_read(cluster, "things", [b"before"])
        [broker] = cluster.brokers.values()
        bootstrap = cluster.bootstrap
        getattr(broker, end)()
        assert not broker.is_up()
        broker.start()

        assert bootstrap == cluster.bootstrap
        assert [b"before", b"after"] == sent_and_read(cluster, "things", [b"after"])


@pytest.mark.parametrize("opened", [embedded, containers])
def test_three_brokers_survive_losing_one(tmp_path, opened):
    """With acks=all and a replication of three; the log says that the broker started."""
    with opened(3, tmp_path) as cluster:
        topics.create(cluster.bootstrap, {"things": {}}, 3, 3)
        first, second, *_ = cluster.brokers.values()
        first.kill()
        assert [b"x"] == sent_and_read(cluster, "things", [b"x"])
        first.start()
        second.pause()
        assert not second.is_up()
        second.resume()

        eventually(lambda: all(broker.is_up() for broker in cluster.brokers.values()))
        assert sorted([b"x", b"y"]) == sorted(sent_and_read(cluster, "things", [b"y"]))
        assert "started" in first.log().lower()


def test_embedded_broker_unpacks_into_own_folder(tmp_path):
    """What its Java takes from its jars would stay in the machine's folder for temporary files: it is killed at the end."""
    with embedded(1, tmp_path) as cluster:
        topics.create(cluster.bootstrap, {"things": {"compression.type": "lz4"}}, 1, 1)
        assert [b"a"] == sent_and_read(cluster, "things", [b"a"])
        assert list(tmp_path.rglob("*lz4*"))


def test_embedded_broker_maps_its_class_archive(tmp_path):
    """With -Xshare:on it would not start where it could not."""
    archive = tmp_path / "classes.jsa"
    assert "" == kafka.embedded.archive(archive, tmp_path)
    mapped = ("-Xshare:on", f"-XX:SharedArchiveFile={archive}", "-cp", f"{jars.broker_jars()}/*")

    subprocess.run([jars.java(), *mapped, "-version"], check=True)


def test_sweep_removes_only_a_dead_harness(tmp_path):
    """SIGKILL leaves a broker running; the next start ends it, and not the one of a living owner."""
    program = (
        "import pathlib, sys, time\nfrom harness import kafka\n"
        "with kafka.open_cluster('embedded', 1, pathlib.Path(sys.argv[1])) as cluster:\n"
        "    print(cluster.pids()[0], flush=True)\n    time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    broker = psutil.Process(int(owner.stdout.readline()))
    with embedded(1, tmp_path / "b") as mine:
        assert broker.is_running()
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
        cleanup.sweep()

        eventually(lambda: processes._is_dead(broker))
        eventually(lambda: all(one.is_up() for one in mine.brokers.values()))


def test_dead_harness_containers_are_removed(tmp_path):
    """The next start removes them with their network, and not those of a living owner."""
    import docker

    from harness.kafka.containers import LABEL

    program = (
        "import pathlib, time\nfrom harness import kafka\n"
        "with kafka.open_cluster('containers', 1, pathlib.Path('.')):\n"
        "    print('up', flush=True)\n    time.sleep(600)\n"
    )
    with containers(1, tmp_path) as mine:
        owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        assert "up\n" == owner.stdout.readline()
        client = docker.from_env()

        def left() -> int:
            labels = (
                one.labels[LABEL] for one in client.containers.list(filters={"label": LABEL}, ignore_removed=True)
            )
            return sum(label.startswith(f"{owner.pid}-") for label in labels)

        # Once its owner is dead, whatever test starts next beside this one may remove it.
        assert 1 == left()
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
        with containers(1, tmp_path):
            assert 0 == left()
        eventually(lambda: all(broker.is_up() for broker in mine.brokers.values()))
        client.close()


def test_concurrent_sweeps_do_not_collide():
    """Each finds the same container of a dead owner; the daemon refuses to remove it twice at a time."""
    import docker
    from docker.errors import NotFound

    from harness.kafka import containers as module

    if why := module.why_not():
        pytest.skip(why)
    client = docker.from_env()
    dead = client.containers.create(
        module.found_image(),
        ["600"],
        entrypoint="sleep",
        labels={**module._labels("none"), module.LABEL: replace(Owner.me(), pid=2**22 - 7, born=1).mark},
    )
    with contextlib.suppress(NotFound):  # who sweeps beside this test may have found it already
        dead.start()
    together = threading.Barrier(4)

    def sweep() -> None:
        together.wait()
        module.sweep()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(sweep) for _ in range(4)]:
            done.result()
    assert dead.id not in {one.id for one in client.containers.list(all=True, ignore_removed=True)}
    client.close()


def test_missing_image_is_one_line(tmp_path, monkeypatch):
    """It names the image, and what to do."""
    monkeypatch.setenv("HARNESS_KAFKA_IMAGE", "streaming-harness/nowhere:1")
    from harness.kafka import containers as module

    if (why := module.why_not()) and "daemon" in why:
        pytest.skip(why)
    with (
        pytest.raises(StackError, match=r"image streaming-harness/nowhere:1 is neither here .*`make kafka-image`"),
        kafka.open_cluster("containers", 1, tmp_path),
    ):
        pass


def test_pipeline_makes_its_topics_once(cluster):
    """The second deployment finds them."""
    command = [sys.executable, "-m", "pipeline.topics", "--bootstrap", cluster.bootstrap, "--topic-prefix", "shop-"]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True, timeout=60) for _ in range(2))

    assert "made shop-clickstream, shop-transactions, shop-page-views" in first.stdout
    assert "every topic exists" == second.stdout.strip()
