"""The pipeline upgraded in between: another version of it goes on from the checkpoint of the one before."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from harness.model import Verdict

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
WHERE = ["--bootstrap", "{bootstrap}", "--checkpoint", "{checkpoint}", "--output", "{output}", "--jars", "{jars}"]


def upgraded(target: Path) -> Path:
    """A copy of the pipeline whose plans have a further step, as the file that starts it."""
    shutil.copytree(ROOT / "pipeline", target / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    source = target / "pipeline" / "queries.py"
    text = source.read_text()
    assert "    return reader.load()\n" in text
    source.write_text(
        text.replace("    return reader.load()\n", '    return reader.load().where("offset + partition >= 0")\n')
    )
    return target / "pipeline" / "job.py"


def test_upgraded_pipeline_resumes_the_old_checkpoint(run_scenario, tmp_path):
    """Nothing lost, nothing twice, nothing wrong, and it is the new one that ran at the end."""
    new = [sys.executable, str(upgraded(tmp_path / "new")), *WHERE, "--topic-prefix", "{prefix}"]
    fault = f'[{{kind = "change", at = 9_000, command = {json.dumps(new)}}}]'
    result = run_scenario("kill", "load.duration_s=15", f"fault={fault}")

    assert Verdict.PASS is result.verdict, result.why
    assert [True] == [one["proved"] for one in result.faults]
    [run] = [path for path in (tmp_path / "reports" / "kill").glob("2*") if not path.is_symlink()]
    started = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines() if '"start"' in line]
    assert str(tmp_path / "new") in started[-1]["command"][1]
