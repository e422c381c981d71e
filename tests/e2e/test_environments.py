"""Environments that break other programs: the run passes in each, many peculiarities at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.host import environment, jars
from pipeline import settings

pytestmark = pytest.mark.e2e

SHORT = ("--eps", "500", "--warm-up", "1", "--duration", "8", "--set", "proves=[]")
"""Right or wrong is the question; a slow machine reads so few events in one batch, and none of them is late then."""
DEFAULTS = """
spark.sql.streaming.multipleWatermarkPolicy max
spark.sql.session.timeZone America/New_York
spark.sql.ansi.enabled false
spark.driver.extraJavaOptions -XX:+UseSerialGC
"""
CORE_SITE = """
<configuration><property><name>fs.defaultFS</name><value>hdfs://nowhere.invalid:8020</value></property></configuration>
"""
APART = """
hostname nowhere-that-resolves
ip link set lo up
sysctl -q -w net.ipv6.conf.all.disable_ipv6=1
ulimit -Sn 256
ulimit -Hn 1024
exec "$@"
"""
"""A machine whose name does not resolve, without IPv6, and with few open files."""
UNSHARE = ("unshare", "--uts", "--net", "--", "sh", "-e", "-c", APART, "sh")


def other_programs(folder: Path) -> dict[str, str]:
    """Variables of another Spark, another Java and another Hadoop, a Turkish locale, and modules of the same names nearby."""
    shadow(folder)
    shadow(folder / "modules")
    (folder / "modules" / "queue.py").unlink()  # the harness itself is started with it
    for name, text in (("spark-defaults.conf", DEFAULTS), ("core-site.xml", CORE_SITE)):
        (folder / name).write_text(text)
    return {
        "LANG": "tr_TR.UTF-8",
        "PYTHONPATH": os.pathsep.join((str(environment.ROOT), str(folder / "modules"))),
        "SPARK_HOME": "/nowhere",
        "SPARK_CONF_DIR": str(folder),
        "SPARK_REMOTE": "sc://nowhere.invalid",
        "HADOOP_CONF_DIR": str(folder),
        "PYSPARK_SUBMIT_ARGS": "--master nowhere pyspark-shell",
        "PYSPARK_GATEWAY_PORT": "1",
        "JAVA_TOOL_OPTIONS": "-XX:+UseSerialGC",
        "JDK_JAVA_OPTIONS": "-Duser.language=tr -Duser.region=TR",
        "CLASSPATH": "/nowhere",
    }


def other_folders(folder: Path) -> dict[str, str]:
    """TMPDIR and HARNESS_CACHE with a space and an umlaut in their names, and a locale that has neither."""
    temporary, cache = folder / "für kurze Zeit", folder / "für lange Zeit"
    temporary.mkdir()
    (cache / "classes").mkdir(parents=True)
    (cache / "jars").symlink_to(jars.cache() / "jars")
    for archive in (jars.cache() / "classes").glob("*.jsa"):
        (cache / "classes" / archive.name).symlink_to(archive)
    return {"LC_ALL": "C", "TMPDIR": str(temporary), "HARNESS_CACHE": str(cache)}


def other_host(folder: Path) -> dict[str, str]:
    """Nothing but what `APART` does."""
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces of names and networks are made by root on Linux alone")
    return {}


@pytest.mark.parametrize(
    ("variables", "before"),
    [(other_programs, ()), (other_folders, ()), (other_host, UNSHARE)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_right_run_passes(tmp_path, variables, before):
    """Every row right; the pipeline that ran is ours."""
    env = {**environment.own(), **variables(tmp_path)}
    command = [*before, sys.executable, "-P", "-m", "harness", "run", "late", *SHORT, "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300)

    assert 0 == done.returncode, done.stderr
    assert "pass" == json.loads(done.stdout)["verdict"]


PRINTS = """
import sys
from pipeline import job, settings
spark = job.session(settings.parse(sys.argv[1:]))
print({name: spark.conf.get(name) for name in settings.PINNED if not name.startswith("spark.hadoop.")})
print(spark._jsc.hadoopConfiguration().get("fs.defaultFS"))
spark.stop()
"""


def test_the_pipeline_pins_its_settings(tmp_path):
    """Started by hand, with the files of another Spark and another Hadoop: none of them changes what a row is, or where it goes."""
    for name, text in (("spark-defaults.conf", DEFAULTS), ("core-site.xml", CORE_SITE)):
        (tmp_path / name).write_text(text)
    env = {**environment.own(), "SPARK_CONF_DIR": str(tmp_path), "HADOOP_CONF_DIR": str(tmp_path)}
    where = ["--bootstrap", "b:1", "--checkpoint", "c", "--output", "o", "--jars", str(jars.spark_jars())]
    command = [sys.executable, "-c", PRINTS, *where, "--profile", "specification"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)

    assert 0 == done.returncode, done.stderr
    pinned = {name: value for name, (value, _) in settings.PINNED.items() if not name.startswith("spark.hadoop.")}
    assert [str(pinned), "file:///"] == done.stdout.strip().splitlines()[-2:]


def shadow(folder: Path) -> None:
    """Modules of the user's own that end whoever imports them."""
    folder.mkdir(exist_ok=True)
    for name in ("pipeline", "harness"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (folder / "queue.py").write_text("raise SystemExit('the wrong one')")
