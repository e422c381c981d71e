"""What the command line does with what it called."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from harness import cli, scenario
from harness.errors import HarnessError, RunError, StackError
from harness.experiments import drill, selfcheck, single
from harness.experiments.selfcheck import Tally
from harness.experiments.simulate import simulate
from harness.host.cleanup import Swept
from harness.kafka import containers
from harness.rundir import history


def test_failing_random_run_is_shrunk(tmp_path, monkeypatch):
    """As a scenario file in its directory; every attempt here fails as the run did."""
    directory = tmp_path / "run"
    simulate(directory, scenario.load("kill", ["fault=[]", "load.eps=100", "load.duration_s=5", "load.stretch_s=0"]))
    rows = pq.read_table(directory / "outputs" / "page_views.parquet")
    pq.write_table(rows.slice(1), directory / "outputs" / "page_views.parquet")
    failed, tried = single.judge(directory), []
    monkeypatch.setattr(cli.single, "run", lambda one, *_: tried.append(one) or failed)
    plan = drill.Plan("loaded", failed.run.scenario, ())
    monkeypatch.setattr(cli.drill, "at_random", lambda seed, minutes: [plan])
    CliRunner().invoke(cli.app, ["drill", "random", "--reports", str(tmp_path / "drills")])

    smallest = scenario.load(str(directory / "shrunk.toml"))
    assert "lost_row" == failed.result.anomalies[0].kind
    assert smallest == tried[-1]
    assert smallest.load.events < failed.run.scenario.load.events


@pytest.fixture
def harness(monkeypatch, capsys):
    """The command line as it ends its process: exit code, standard output, standard error."""

    def called(*args):
        monkeypatch.setattr("sys.argv", ["harness", *map(str, args)])
        monkeypatch.setattr(cli, "people", cli.Console(stderr=True, width=80))
        monkeypatch.setattr(cli, "_upon_signals", lambda do: None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=said.out, err=said.err)

    return called


def test_interruption_is_named(harness, monkeypatch):
    """In the terminal too; nothing is known of the run."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(single, "run", interrupted)
    done = harness("run", "late")

    assert (3, "harness: interrupted: no verdict\n") == (done.code, done.err)


def test_clean_names_what_it_ended(harness, monkeypatch, tmp_path):
    """A line each: processes, folders, containers; no Docker daemon is no error."""
    monkeypatch.setattr(cli.cleanup, "sweep", lambda: Swept(("12 java",), (tmp_path / "[x]",)))
    monkeypatch.setattr(containers, "sweep", lambda: ["broker-1"])
    assert (0, f"12 java\n{tmp_path / '[x]'}\nbroker-1\n") == (harness("clean").code, harness("clean").out)

    def silent():
        raise StackError("no Docker daemon answers")

    monkeypatch.setattr(containers, "sweep", silent)
    assert f"12 java\n{tmp_path / '[x]'}\n" == harness("clean").out


def test_foreign_version_does_not_stop_check(harness, tmp_path):
    """It is unknown, and what is wrong with it is no bad usage."""
    for name in ("old", "run"):
        simulate(tmp_path / name, scenario.load("late", ["load.eps=60"]))
    with (tmp_path / "old" / "scenario.toml").open("a") as stream:
        stream.write("[old]\n")
    done = harness("check", tmp_path / "old", tmp_path / "run", "--json")

    assert 3 == done.code
    assert f"harness: {tmp_path / 'old' / 'scenario.toml'}: unknown field old" in done.err
    assert ["unknown", "pass"] == [json.loads(line)["verdict"] for line in done.out.splitlines()]


def test_bad_run_usage_exits_2(harness):
    """Whatever a run directory with the same field would be."""
    assert 2 == harness("run", "late", "--set", "old=1").code


@pytest.mark.parametrize("command", [[], ["drill"]])
def test_no_command_prints_help(harness, command):
    """No line without words."""
    done = harness(*command)

    assert (2, "") == (done.code, done.err)
    assert "Usage: " in done.out


@pytest.mark.parametrize("seed", [-1, 2**63])
@pytest.mark.parametrize(
    "command", [["run", "late"], ["drill", "crash-points"], ["drill", "matrix"], ["drill", "random"]]
)
def test_impossible_seed_is_bad_usage(harness, monkeypatch, command, seed):
    """Before anything is started."""
    monkeypatch.setattr(single, "run", lambda *_: pytest.fail("started"))
    done = harness(*command, "--seed", seed)

    assert 2 == done.code
    assert 1 == len(done.err.splitlines())
    assert "Invalid value for '--seed': " in done.err


def test_impossible_anomalies_are_not_proved(harness, monkeypatch):
    """And so is unknown."""
    monkeypatch.setattr(selfcheck, "prove", lambda *_: {"lost_row": Tally(1, 1), "late_dropped": Tally()})
    done = harness("selfcheck")

    assert (3, "this run has no place for late_dropped: not proved\n") == (done.code, done.err)


STRANGE = "[/tmp/x] in [a list] of [red]"


def test_brackets_are_printed_literally(harness, monkeypatch, tmp_path):
    """It is no markup: of what a drill says, and what its shrinking says."""
    failed = SimpleNamespace(result=SimpleNamespace(anomalies=[1]))
    said = iter([Path(STRANGE), HarnessError(STRANGE)])

    def shrunk(*_):
        if isinstance(one := next(said), Exception):
            raise one
        return one

    monkeypatch.setattr(cli, "_attempt", lambda *_: failed)
    monkeypatch.setattr(
        cli, "_drill", lambda name, plans, attempt, *_: [attempt(None), attempt(None)] and cli.Verdict.FAIL
    )
    monkeypatch.setattr(cli, "_shrink", shrunk)
    done = harness("drill", "random", "--reports", tmp_path)

    assert f"smaller: harness run {STRANGE}\n{STRANGE}\n" == done.err


def test_shrink_step_is_printed_literally(monkeypatch, tmp_path, capsys):
    """It names values of the scenario."""
    monkeypatch.setattr(cli, "people", cli.Console(stderr=True, width=80))
    monkeypatch.setattr(cli.shrink, "shrink", lambda one, result, attempt, tell: tell(STRANGE) or one)
    failed = SimpleNamespace(
        run=SimpleNamespace(scenario=scenario.load("late"), directory=tmp_path), result=SimpleNamespace()
    )
    cli._shrink(failed, tmp_path)

    assert f"{STRANGE}\n" == capsys.readouterr().err


def test_doctor_describes_the_machine(harness, monkeypatch):
    """Its paths may have brackets too."""
    check = SimpleNamespace(ok=False, name="disk", found="[/tmp/x]", needed="[a list]", hint="[b]")
    monkeypatch.setattr(cli.machine, "checks", lambda: [check])
    done = harness("doctor")

    assert 1 == done.code
    assert all(text in done.out for text in ("[/tmp/x]", "[a list]", "[b]"))


@pytest.mark.parametrize("command", ["run", "check"])
def test_unjudged_run_gives_unknown_json(harness, monkeypatch, tmp_path, command):
    """Of a run that broke off, and of a directory that cannot be read."""
    monkeypatch.setattr(single, "run", lambda *_: (_ for _ in ()).throw(StackError("no broker")))
    monkeypatch.setattr(single, "judge", lambda _: (_ for _ in ()).throw(RunError("no broker")))
    done = harness(command, "late", "--json")

    told = json.loads(done.out)
    assert (3, "unknown", "no broker") == (done.code, told["verdict"], told["why"])
    assert "harness: no broker\n" == done.err


@pytest.fixture
def run(tmp_path):
    """A right run."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=60"]))
    return tmp_path / "run"


def files(directory):
    """Path and bytes of every file below a directory."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def read_only(monkeypatch, run):
    """No file of the run can be written: root could in a directory without the permission."""
    opened = Path.open

    def refused(path, mode="r", *args, **kwargs):
        if run in path.parents and set(mode) & set("wxa+"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refused)


def test_read_only_run_is_judged(harness, run, read_only):
    """Nothing is written, and that is no error."""
    before = files(run)
    done = harness("check", run, "--json")

    assert (0, "pass") == (done.code, json.loads(done.out)["verdict"])
    assert f"{run} is read-only: no result and no report written" in done.err
    assert before == files(run)


def test_read_only_run_is_shrunk(harness, run, read_only, tmp_path, monkeypatch):
    """The scenario is written to a folder of its own, which is named, and no attempt is lost."""
    history.write_rows(run, "page_views", [])
    failed = single.judge(run)
    monkeypatch.setattr(cli.single, "run", lambda one, *_: failed)
    done = harness("shrink", run, "--reports", tmp_path / "reports")
    [smallest] = (tmp_path / "reports" / "shrunk").glob("*/shrunk.toml")

    assert (0, f"harness run {smallest}\n") == (done.code, done.out)
    assert "shrunk.toml: cannot be written: Read-only file system; it is written to a folder of its own" in done.err
    assert scenario.load(str(smallest)).load.events < failed.run.scenario.load.events


def test_read_only_crash_is_named(harness, run, read_only, monkeypatch):
    """The place stands in the line, since there is no file of the trace."""
    monkeypatch.setattr(single.verdict, "assess", lambda _: [][0])
    done = harness("check", run, "--json")

    assert 3 == done.code
    assert "IndexError: list index out of range; at " in json.loads(done.out)["why"]


@pytest.mark.parametrize("command", ["check", "explain", "shrink"])
def test_non_run_path_is_bad_usage(harness, tmp_path, command):
    """A missing one, a folder of something else, a file, and a name that is too long."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path, tmp_path / "file", tmp_path / ("x" * 300)):
        assert 2 == harness(command, path).code


@pytest.mark.parametrize("command", ["check", "explain"])
def test_unreadable_file_gives_no_verdict(harness, run, command):
    """It is a run, and nothing is known of it."""
    (run / "history.jsonl").unlink()
    (run / "history.jsonl").mkdir()

    assert 3 == harness(command, run).code


def test_an_unknown_row_is_bad_usage(harness, run):
    """The line names the flag."""
    done = harness("explain", run, "--row", "x|y")

    assert 2 == done.code
    assert done.err.startswith("harness: --row x|y: no such row")


def test_fail_outranks_usage_outranks_unknown(harness, run, tmp_path):
    """Of several directories that are checked at once."""
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / "sent.parquet").unlink()
    assert 3 == harness("check", run, tmp_path / "damaged").code
    assert 2 == harness("check", tmp_path / "none", run, tmp_path / "damaged").code

    history.write_rows(run, "page_views", [])
    assert 1 == harness("check", tmp_path / "none", run, tmp_path / "damaged").code


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--eps", "0"], "--eps 0.0: load.eps = 0.0: must lie between", id="a flag"),
        pytest.param(["--profile", "x"], "--profile x: pipeline.profile = 'x': must be one of", id="a choice"),
        pytest.param(["--set", "load.eps=x"], "--set load.eps=x: load.eps = 'x': Expected", id="a type"),
        pytest.param(["--set", "load=5"], "--set load=5: load must be a table", id="a table"),
        pytest.param(["--set", "load.eps.x=5"], "--set load.eps.x=5: eps is not a table", id="below a value"),
        pytest.param(["--set", "fault=[{att=5}]"], "--set fault=[{att=5}]: unknown field fault[0].att", id="nested"),
        pytest.param(["--set", "old=1"], "--set old=1: unknown field old", id="an unknown field"),
        pytest.param(["--set", "kafka.where=x", "--seed", "3"], "--set kafka.where=x: kafka.where = 'x'", id="where"),
        pytest.param(["--kafka", "x"], "--kafka x: kafka.where = 'x'", id="a contradiction"),
        pytest.param(["--set", "fault=[{at=9_000_000}]"], "--set fault=[{at=9_000_000}]: fault[0].at", id="too late"),
    ],
)
def test_flag_error_names_the_flag(harness, flags, message):
    """And not the scenario's file, which is right."""
    done = harness("run", "late", *flags)

    assert 2 == done.code
    assert done.err.startswith(f"harness: {message}")
    assert "late.toml" not in done.err


def test_file_error_names_the_file(harness, tmp_path):
    """Whatever flags stand beside it; one that puts it right is taken."""
    path = tmp_path / "mine.toml"
    path.write_text("[load]\neps = 0\n")

    assert harness("show", path, "--set", "load.seed=3").err.startswith(f"harness: {path}: load.eps = 0")
    assert 0 == harness("show", path, "--set", "load.eps=3").code


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("crash-points", "--points"),
        ("crash-points", "--queries"),
        ("crash-points", "--states"),
        ("matrix", "--faults"),
        ("matrix", "--phases"),
    ],
)
def test_unknown_drill_name_names_flag(harness, command, flag):
    """Before anything is started."""
    done = harness("drill", command, flag, "x")

    assert 2 == done.code
    assert done.err.startswith(f"harness: {flag}: no ")


def test_selfcheck_takes_scenarios_with_mutants_only(harness):
    """A name that would have no effect is refused as bad usage."""
    done = harness("selfcheck", "late")

    assert 2 == done.code
    assert "--mutants" in done.err


def test_metrics_of_a_declared_job_are_refused(harness):
    """A flag that would be ignored is an error, before anything is started."""
    done = harness("run", Path(__file__).parents[2] / "scenarios" / "orders" / "kill.toml", "--metrics-port", "9465")

    assert 2 == done.code
    assert "--metrics-port 9465: a run of a declared job has no metrics yet" in done.err
