"""How Spark writes the files of checkpoints and sinks on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.host import jars

pytestmark = pytest.mark.spark

ONE_FILE = """
import sys
from pipeline import job, settings

connector, folder, profile = sys.argv[1:]
places = ["--bootstrap", "none", "--checkpoint", folder, "--output", folder, "--jars", connector]
spark = job.session(settings.parse([*places, "--profile", profile]))
file = spark._jvm.org.apache.hadoop.fs.Path(f"file://{folder}/file")
file.getFileSystem(spark._jsc.hadoopConfiguration()).create(file).close()
"""


@pytest.fixture
def calls(tmp_path):
    """The chmods of a process whose PATH begins with this file's folder, a line each."""
    calls = tmp_path / "bin" / "calls"
    calls.parent.mkdir()
    calls.touch()
    chmod = calls.with_name("chmod")
    chmod.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    chmod.chmod(0o755)
    return calls


@pytest.mark.parametrize(("profile", "started"), [("default", 0), ("specification", 2)])
def test_default_profile_starts_no_process(profile, started, calls, tmp_path):
    """Hadoop's own way is to start chmod, for the file and for its sum."""
    environment = {**os.environ, "PATH": f"{calls.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", ONE_FILE, jars.spark_jars(), tmp_path, profile]
    subprocess.run(command, env=environment, check=True)

    assert started == sum(line.endswith("file") or line.endswith(".crc") for line in calls.read_text().splitlines())
    assert (tmp_path / ".file.crc").exists()
