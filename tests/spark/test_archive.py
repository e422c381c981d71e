"""The archive of Java's classes that a quick start maps."""

from __future__ import annotations

import fcntl
import os
import subprocess

import pytest

from harness import classes, jars, standalone

pytestmark = pytest.mark.spark


def test_spark_maps_its_classes_from_the_archive(tmp_path):
    """Java passes over one that does not fit, without a word."""
    lock = jars.cache() / "classes" / f"{classes._what_it_fits()}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # until another worker has made it
    flags = classes.quick_start()
    assert "SharedArchiveFile" in flags

    loaded = tmp_path / "loaded"
    environment = {**os.environ, "SPARK_SUBMIT_OPTS": f"{flags} -Xlog:class+load:file={loaded}"}
    subprocess.run([standalone.spark_home() / "bin" / "spark-submit", "--version"], env=environment, check=True)

    submit = [line for line in loaded.read_text().splitlines() if " org.apache.spark.deploy.SparkSubmit " in line]
    assert "shared objects file (top)" in submit[0]
