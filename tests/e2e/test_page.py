"""The report in a real browser: every chart is drawn, and nothing complains."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness import scenario
from harness.experiments import single
from harness.experiments.simulate import simulate

pytestmark = pytest.mark.e2e

BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn(tmp_path: Path, scheme: str):
    """Each chart has its canvas and its table, in light and in dark."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=100"]))
    single.judge(tmp_path / "run")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    page = (tmp_path / "run" / "report.html").as_uri()
    args = [str(BROWSER), *flags, *dark, "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", page]
    shown = subprocess.run(args, capture_output=True, text=True, check=False, timeout=60)

    charts = shown.stdout.count("<figcaption")
    assert charts >= 4
    assert charts == shown.stdout.count("<canvas")
    assert [] == [line for line in shown.stderr.splitlines() if "CONSOLE" in line and "rror" in line]
