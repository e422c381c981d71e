"""The archive of a deployment, on a cluster, from a folder that has nothing else in it."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pytest

from harness.host import jars

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.e2e


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The archive, in a folder into which it has been unpacked."""
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    import package

    archive = package.build(tmp_path / "deployed", jars.spark_jars())
    with zipfile.ZipFile(archive) as files:
        files.extractall(archive.parent)
    return archive


def test_package_lists_the_sum_of_each_file(package):
    """And nothing in it is without a sum."""
    sums = dict(reversed(line.split("  ")) for line in (package.parent / "SHA256SUMS").read_text().splitlines())
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist()) - {"SHA256SUMS"}
        assert sums == {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def test_packaged_pipeline_is_right_on_a_cluster(package, run_scenario):
    """spark-submit on two workers, with what docs/how-to/deploy.md gives it; every row is judged."""
    tools = Path(sys.executable).parent  # of a virtual environment, as if it were activated
    connector = ",".join(f"jars/{path.name}" for path in sorted((package.parent / "jars").glob("*.jar")))
    spark = f"--master {{master}} --conf spark.cores.max=2 --jars {connector} --py-files {package.name}"
    script = f'cd {package.parent} && unset PYTHONPATH && PATH={tools}:$PATH exec spark-submit {spark} submit.py "$@"'
    places = {"bootstrap": "bootstrap", "topic-prefix": "prefix", "checkpoint": "checkpoint", "output": "output"}
    flags = [part for flag, place in places.items() for part in (f"--{flag}", f"{{{place}}}")]
    result = run_scenario(
        "late",
        "pipeline.workers=2",
        "pipeline.quick_start=false",
        # Java starts cold on both workers: one batch may read all of the load, and then nothing is too late.
        'proves=["out_of_order"]',
        f"pipeline.command={json.dumps(['sh', '-c', script, 'submit', *flags])}",
    )

    assert "pass" == result.verdict.value, result.why
