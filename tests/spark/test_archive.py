"""The archive of Java's classes that a start of Spark maps."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess

import pytest

from harness.host import class_archive, jars

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def flags():
    """Of a quick start, when there is an archive."""
    lock = jars.cache() / "classes" / f"{class_archive._what_it_fits(jars.spark_home() / 'jars')}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # until another worker has made it
    flags = class_archive.of_pipeline(quick=True)
    assert "SharedArchiveFile" in flags
    return flags


def test_spark_maps_its_class_archive(flags, tmp_path):
    """Java passes over one that does not fit."""
    loaded = tmp_path / "loaded"
    environment = {**os.environ, "SPARK_SUBMIT_OPTS": f"{flags} -Xlog:class+load:file={loaded}"}
    subprocess.run([jars.spark_home() / "bin" / "spark-submit", "--version"], env=environment, check=True)

    submit = [line for line in loaded.read_text().splitlines() if " org.apache.spark.deploy.SparkSubmit " in line]
    assert "shared objects file (top)" in submit[0]


def test_unused_archive_leaves_stdout_clean(flags, tmp_path):
    """It would write its warning there, among the pipeline's lines of JSON."""
    command = [jars.java(), *shlex.split(flags), "-cp", tmp_path, "-version"]
    java = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "" == java.stdout
    assert "Unable to use shared archive" in java.stderr
