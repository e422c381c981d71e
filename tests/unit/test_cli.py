"""What the command line does with what it called."""

from __future__ import annotations

import json
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


def test_a_random_run_that_fails_is_made_smaller(tmp_path, monkeypatch):
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


def test_a_run_of_another_version_keeps_no_other_from_being_judged(harness, tmp_path):
    """It is unknown, and what is wrong with it is no bad usage."""
    for name in ("old", "run"):
        simulate(tmp_path / name, scenario.load("late", ["load.eps=60"]))
    with (tmp_path / "old" / "scenario.toml").open("a") as stream:
        stream.write("[old]\n")
    done = harness("check", tmp_path / "old", tmp_path / "run", "--json")

    assert 3 == done.code
    assert f"harness: {tmp_path / 'old' / 'scenario.toml'}: unknown field old" in done.err
    assert ["unknown", "pass"] == [json.loads(line)["verdict"] for line in done.out.splitlines()]


def test_bad_usage_of_a_run_is_exit_code_2(harness):
    """Whatever a run directory with the same field would be."""
    assert 2 == harness("run", "late", "--set", "old=1").code


@pytest.mark.parametrize("command", [[], ["drill"]])
def test_without_a_command_there_is_help_and_nothing_else(harness, command):
    """No line without words."""
    done = harness(*command)

    assert (2, "") == (done.code, done.err)
    assert "Usage: " in done.out


@pytest.mark.parametrize("seed", [-1, 2**63])
@pytest.mark.parametrize(
    "command", [["run", "late"], ["drill", "crash-points"], ["drill", "matrix"], ["drill", "random"]]
)
def test_a_seed_that_events_cannot_be_drawn_from_is_bad_usage(harness, monkeypatch, command, seed):
    """Before anything is started."""
    monkeypatch.setattr(single, "run", lambda *_: pytest.fail("started"))
    done = harness(*command, "--seed", seed)

    assert 2 == done.code
    assert 1 == len(done.err.splitlines())
    assert "Invalid value for '--seed': " in done.err


def test_what_a_run_has_no_place_for_is_not_proved(harness, monkeypatch):
    """And so is unknown."""
    monkeypatch.setattr(selfcheck, "prove", lambda *_: {"lost_row": Tally(1, 1), "late_dropped": Tally()})
    done = harness("selfcheck")

    assert (3, "this run has no place for late_dropped: not proved\n") == (done.code, done.err)


STRANGE = "[/tmp/x] in [a list] of [red]"


def test_a_text_with_brackets_is_printed_as_it_is(harness, monkeypatch, tmp_path):
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


def test_a_step_of_shrinking_is_printed_as_it_is(monkeypatch, tmp_path, capsys):
    """It names values of the scenario."""
    monkeypatch.setattr(cli, "people", cli.Console(stderr=True, width=80))
    monkeypatch.setattr(cli.shrink, "shrink", lambda one, result, attempt, tell: tell(STRANGE) or one)
    failed = SimpleNamespace(
        run=SimpleNamespace(scenario=scenario.load("late"), directory=tmp_path), result=SimpleNamespace()
    )
    cli._shrink(failed, tmp_path)

    assert f"{STRANGE}\n" == capsys.readouterr().err


def test_a_machine_is_described_as_it_is(harness, monkeypatch):
    """Its paths may have brackets too."""
    check = SimpleNamespace(ok=False, name="disk", found="[/tmp/x]", needed="[a list]", hint="[b]")
    monkeypatch.setattr(cli.machine, "checks", lambda: [check])
    done = harness("doctor")

    assert 1 == done.code
    assert all(text in done.out for text in ("[/tmp/x]", "[a list]", "[b]"))


@pytest.mark.parametrize("command", ["run", "check"])
def test_json_of_what_cannot_be_judged_is_an_unknown_result(harness, monkeypatch, tmp_path, command):
    """Of a run that broke off, and of a directory that cannot be read."""
    monkeypatch.setattr(single, "run", lambda *_: (_ for _ in ()).throw(StackError("no broker")))
    monkeypatch.setattr(single, "judge", lambda _: (_ for _ in ()).throw(RunError("no broker")))
    done = harness(command, "late", "--json")

    told = json.loads(done.out)
    assert (3, "unknown", "no broker") == (done.code, told["verdict"], told["why"])
    assert "harness: no broker\n" == done.err
