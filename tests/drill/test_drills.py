"""The long matrices, `pytest -m drill`: every cell right, and the same rows with faults as without."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from harness import scenario
from harness.model import Verdict

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3 * 3600)]


@pytest.mark.parametrize(
    "drill", [["crash-points"], ["matrix"], ["random", "--minutes", "60", "--no-shrink"]], ids=lambda args: args[0]
)
def test_every_cell_is_right(tmp_path, drill):
    """Exit code 0, and no cell but `pass`."""
    run = subprocess.run(
        [sys.executable, "-m", "harness", "drill", *drill, "--reports", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == run.returncode, run.stderr[-5000:]
    [cells] = tmp_path.glob("drill-*/*/cells.json")
    assert {"pass"} == {cell["verdict"] for cell in json.loads(cells.read_text())}


def test_faults_do_not_change_the_rows(run_scenario, tmp_path):
    """With data inside the delay, the distinct rows of a run with kills are those of the run without, from the same seed."""
    rows = []
    kills = ", ".join(f'{{kind = "kill", on = "pipeline", at = {at}, for_s = 1}}' for at in (7_200, 20_400))
    same = ("load.duration_s=45", "load.stretch_s=0", "workload.late=0.05", "workload.too_late=0")
    for faults in ([f"fault=[{kills}]"], ["fault=[]", "proves=[]"]):
        result = run_scenario("kill", *same, *faults)
        assert Verdict.PASS is result.verdict, result.why
        latest = (tmp_path / "reports" / "kill" / "latest").resolve()
        rows.append(
            {
                (path.stem, row["key"], row["values"])
                for path in (latest / "outputs").glob("*.parquet")
                for row in pq.read_table(path, columns=["key", "values"]).to_pylist()
                if path.stem != "dead_letter"  # its keys are offsets, which a retry may move
            }
        )

    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", [name for name in scenario.names() if name not in ("load", "late", "edges")])
def test_the_join_passes_every_scenario(run_scenario, name):
    """Two of them are end-to-end tests; here are the rest."""
    result = run_scenario(name, "pipeline.conversions=join")

    assert Verdict.PASS is result.verdict, result.why
