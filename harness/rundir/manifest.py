"""What a run was made with: versions, machine, git, seed and command, as manifest.json of the run directory."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from harness.host import processes
from harness.job.clickstream import events
from harness.rundir.history import FORMAT
from harness.scenario import Scenario
from harness.scenario.own import OwnScenario

PACKAGES = ("pyspark", "confluent-kafka", "numpy", "pyarrow", "pandas", "streaming-harness")


def write(directory: Path, scenario: Scenario | OwnScenario, args: list[str], prefix: str) -> None:
    """Write it, whole or not at all; the topic prefix is known once there are brokers."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "events_format": events.FORMAT,
        "started_s": round(time.time(), 3),
        "command": args,
        "seed": scenario.load.seed,
        "topic_prefix": prefix,
        "cores": psutil.cpu_count() or 1,
        "usable_cores": processes.usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "machine": platform.platform(),
        "python": platform.python_version(),
        "git": _git(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    temporary = directory / "manifest.json.tmp"
    temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(temporary, directory / "manifest.json")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    done = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
