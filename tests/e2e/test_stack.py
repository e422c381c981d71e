"""The stack of docker-compose.yml from local images: it comes up by itself, and the image's pipeline is judged on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.kafka import topics
from harness.kafka.common import free_ports

ROOT = Path(__file__).parents[2]
KAFKA, PIPELINE = "streaming-harness/kafka:4.3.1", "streaming-harness/pipeline:0.1.0"
READY_S = 400
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def why_not() -> str:
    """Why the stack cannot be started here; empty where it can."""
    if not Path(sys.executable).with_name("docker-compose").exists():
        return "docker-compose is not installed"
    for image in (KAFKA, PIPELINE):
        found = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True, check=False)
        if found.returncode:
            return f"no image {image}: make kafka-image pipeline-image"
    return ""


@pytest.fixture(scope="module")
def stack() -> Iterator[tuple[str, str]]:
    """(project, address of a broker) of the running stack; all of it is removed at the end."""
    try:
        missing = why_not()
    except FileNotFoundError:
        missing = "docker is not installed"
    if missing:
        pytest.skip(missing)
    ports = {f"BROKER_{number}_PORT": str(port) for number, port in enumerate(free_ports(3), 1)}
    environment = os.environ | ports | {"KAFKA_IMAGE": KAFKA, "PIPELINE_IMAGE": PIPELINE, "GENERATOR_EPS": "50"}
    project = f"harness-stack-{os.getpid()}"

    def compose(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("docker-compose")), "--project-name", project, *args]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    try:
        up = compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(READY_S))
        assert 0 == up.returncode, "\n".join((up.stderr[-2000:], compose("logs", "--tail", "20").stdout[-8000:]))
        yield project, f"127.0.0.1:{ports['BROKER_1_PORT']}"
    finally:
        compose("down", "--volumes", "--timeout", "20")


def test_stack_comes_up_healthy(stack):
    """Topics are made, and every query of the pipeline has committed a batch: that is its health."""
    _, bootstrap = stack
    ends = topics.end_offsets(bootstrap, ["clickstream", "transactions"])

    assert {"clickstream": 4, "transactions": 4} == {topic: len(partitions) for topic, partitions in ends.items()}
    assert all(sum(partitions.values()) for partitions in ends.values())


def test_image_passes_a_load_run(stack, run_scenario):
    """The pipeline of the image against the stack's brokers: every row is judged."""
    project, bootstrap = stack
    mounts = ["--volume", "{checkpoint}:{checkpoint}", "--volume", "{output}:{output}"]
    places = {"checkpoint": "{checkpoint}", "output": "{output}", "topic-prefix": "{prefix}"}
    flags = [part for flag, place in places.items() for part in (f"--{flag}", place)]
    command = [
        *("docker", "run", "--rm", "--user", "0", "--network", f"{project}_default", *mounts, PIPELINE, "pipeline"),
        *("--bootstrap", "broker-1:9094,broker-2:9094,broker-3:9094", *flags),
    ]
    # The stack's own pipeline takes its share of the machine; one batch may read all of the load.
    result = run_scenario(
        "late",
        f"kafka.where={bootstrap!r}",
        "load.eps=500",
        "pipeline.quick_start=false",
        "pipeline.ready_s=300",
        'judged=["success"]',
        'proves=["out_of_order"]',
        f"pipeline.command={json.dumps(command)}",
    )

    assert "pass" == result.verdict.value, result.why
