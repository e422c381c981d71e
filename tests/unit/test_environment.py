"""The environment of each child: what is meant to reach it, and nothing that starts another program than ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.engines.process import System
from harness.host import environment, processes
from harness.host.waiting import await_true
from harness.rundir.history import recording

PRINTS = "import json, os, sys; print(json.dumps({'event': 'x', 'path': sys.path, 'environ': dict(os.environ)}))"


@pytest.mark.parametrize("name", environment.STARTERS)
def test_starters_reach_no_child(monkeypatch, name):
    """Each would have Java, Spark or Python start something else; each is named by doctor."""
    monkeypatch.setenv(name, "/somewhere/else")

    assert "/somewhere/else" != seen()["environ"].get(name)
    assert name in environment.withheld()


@pytest.mark.parametrize(
    ("user", "child"),
    [
        pytest.param({"LANG": "tr_TR.UTF-8"}, {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}, id="Turkish"),
        pytest.param({"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}, id="ASCII"),
        pytest.param({"LC_NUMERIC": "de_DE.UTF-8"}, {"LC_ALL": "C.UTF-8"}, id="comma for a point"),
        pytest.param({"HARNESS_CACHE": "/c", "PATH": "/p"}, {"HARNESS_CACHE": "/c", "PATH": "/p"}, id="kept"),
        pytest.param({}, {"SPARK_LOCAL_IP": "127.0.0.1", "PYTHONSAFEPATH": "1"}, id="pinned"),
    ],
)
def test_own_environment_pins_the_locale(user, child):
    """Whatever the user's is."""
    assert child.items() <= environment.own(user).items()


def test_unknown_variables_are_withheld():
    """What is not known to be meant for a child does not reach it."""
    assert "SOMETHING_OF_THE_USERS" not in environment.own({"SOMETHING_OF_THE_USERS": "1"})


def test_children_ignore_modules_nearby(monkeypatch, tmp_path):
    """A working folder and a PYTHONPATH with the user's own `pipeline`, `harness` and `queue`."""
    for name in ("pipeline", "harness"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = "import harness, pipeline, queue; print(harness.__file__, pipeline.__file__)"
    process = processes.spawn([sys.executable, "-c", program], stdout=subprocess.PIPE)
    said = process.communicate(timeout=60)[0].decode().split()

    assert [str(environment.ROOT / name / "__init__.py") for name in ("harness", "pipeline")] == said


def test_other_pipelines_inherit(monkeypatch, tmp_path):
    """A program of the user's own gets the user's environment; ours does not."""
    monkeypatch.setenv("SPARK_HOME", "/opt/theirs")

    assert "/opt/theirs" == pipeline_sees(tmp_path / "theirs", inherit=True).get("SPARK_HOME")
    assert "SPARK_HOME" not in pipeline_sees(tmp_path / "ours", inherit=False)


def pipeline_sees(folder: Path, inherit: bool) -> dict[str, str]:
    """The environment of a pipeline's process."""
    folder.mkdir()
    program = f"import json, os; json.dump(dict(os.environ), open({str(folder / 'environ')!r}, 'w'))"
    with recording(folder) as history:
        system = System([sys.executable, "-c", program], folder / "log", folder, history, inherit=inherit)
        system.start(may_end=True)
        assert await_true(system.has_ended, 60)
        system.close()
    return json.loads((folder / "environ").read_text())


def seen() -> dict:
    """What a spawned Python sees."""
    process = processes.spawn([sys.executable, "-S", "-c", PRINTS], stdout=subprocess.PIPE)
    return json.loads(process.communicate(timeout=60)[0])
