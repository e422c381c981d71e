"""The command line: parse, one call, exit code. 0 pass, 1 fail, 2 bad usage, 3 unknown."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from harness import doctor as machine
from harness import history, jars, runner, scenario, verdict
from harness.errors import HarnessError, ScenarioError
from harness.model import Result, Verdict
from harness.report import page as pages
from harness.report import write as write_page
from harness.scenario import Scenario
from harness.status import Status

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
people = Console(stderr=True)
MARK = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "bold yellow"}

SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="any field of the scenario")]
JsonOption = Annotated[bool, typer.Option("--json", help="print result.json, alone, on standard output")]


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="SCENARIO", help="a name of `harness list`, or a TOML file")],
    eps: Annotated[float | None, typer.Option(help="events per second")] = None,
    duration: Annotated[float | None, typer.Option(help="seconds of the measured part")] = None,
    warm_up: Annotated[float | None, typer.Option(help="seconds of load before it")] = None,
    seed: Annotated[int | None, typer.Option(help="same seed, same bytes")] = None,
    kafka: Annotated[str | None, typer.Option(metavar="embedded|HOST:PORT", help="where the brokers are")] = None,
    profile: Annotated[str | None, typer.Option(help="default, or specification")] = None,
    reports: Annotated[Path, typer.Option(help="where run directories are written")] = Path("reports"),
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a scenario, judge it, and write its report."""
    flags = {
        "load.eps": eps,
        "load.duration_s": duration,
        "load.warm_up_s": warm_up,
        "load.seed": seed,
        "kafka.where": kafka,
        "pipeline.profile": profile,
    }
    overrides = [f"{field}={json.dumps(value)}" for field, value in flags.items() if value is not None]
    chosen = scenario.load(name, overrides + (sets or []))
    directory = _directory(reports, chosen)
    try:
        runner.run(chosen, directory, Status(people), sys.argv[1:])
    except KeyboardInterrupt:
        _leave(directory, "interrupted by the user")
        raise
    except HarnessError as error:
        _leave(directory, str(error))
        raise
    _link_latest(directory)
    raise typer.Exit(_judge(directory, as_json).exit_code)


@app.command()
def check(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="run directories")], as_json: JsonOption = False
) -> None:
    """Judge runs again, from their directories alone."""
    raise typer.Exit(Verdict.worst(_judge(directory, as_json) for directory in runs).exit_code)


@app.command("list")
def list_() -> None:
    """The scenarios that come with the harness."""
    for name in scenario.names():
        print(f"{name:<16} {scenario.load(name).about}")


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="SCENARIO")], sets: SetOption = None) -> None:
    """A scenario in full, as it would be run."""
    print(scenario.dump(scenario.load(name, sets or [])), end="")


@app.command()
def doctor() -> None:
    """What this machine has and lacks."""
    table = Table("", "check", "found", "needed", "what to do")
    checks = machine.checks()
    for one in checks:
        table.add_row("[green]ok" if one.ok else "[red]no", one.name, one.found, one.needed, "" if one.ok else one.hint)
    Console().print(table)
    raise typer.Exit(0 if all(one.ok for one in checks) else 1)


@app.command("jars")
def fetch() -> None:
    """Fetch the jars of Spark's Kafka connector and of the broker, and print their folders."""
    print(jars.spark_jars())
    print(jars.broker_jars())


def _directory(reports: Path, chosen: Scenario) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    return (reports / chosen.name / f"{stamp}-seed{chosen.load.seed}").absolute()


def _link_latest(directory: Path) -> None:
    temporary = directory.parent / f".latest-{os.getpid()}"
    temporary.symlink_to(directory.name)
    os.replace(temporary, directory.parent / "latest")


def _leave(directory: Path, why: str) -> None:
    """What an interrupted run leaves: a result that says unknown, and where everything is."""
    if directory.is_dir():
        _write_result(directory, verdict.unknown(why))
        people.print(f"[bold yellow]UNKNOWN[/]  what happened so far is in {directory}", highlight=False)


def _judge(directory: Path, as_json: bool) -> Verdict:
    read = history.read(directory)
    result = verdict.judge(read)
    _write_result(directory, result)
    write_page(pages.of_run(read, result), directory / "report.html")
    _print(directory, read.scenario, result)
    if as_json:
        print(json.dumps(verdict.as_json(result)))
    return result.verdict


def _write_result(directory: Path, result: Result) -> None:
    temporary = directory / "result.json.tmp"
    temporary.write_text(json.dumps(verdict.as_json(result), indent=1), encoding="utf-8")
    os.replace(temporary, directory / "result.json")


def _print(directory: Path, chosen: Scenario, result: Result) -> None:
    people.print(
        f"[{MARK[result.verdict]}]{result.verdict.value.upper()}[/]  {chosen.name}  seed {chosen.load.seed}  {result.why}",
        highlight=False,
    )
    for target in result.targets:
        value = "not measured" if target.value is None else f"{target.value:,.4g}"
        sign = ">" if target.at_least else "<"
        room = "" if target.headroom is None else f"head-room {target.headroom:.1%}"
        people.print(
            f"  {target.verdict.value:<8}{target.name:<12}{value:>14} {sign} {target.limit:<14,.6g}{target.unit:<16}{room}",
            highlight=False,
        )
    for anomaly in result.anomalies[:3]:
        key = " ".join(map(str, anomaly.key))
        people.print(
            f"  {anomaly.kind}  {anomaly.query}  {key}\n    expected {anomaly.expected}\n    saw      {anomaly.observed}\n    {anomaly.why}",
            highlight=False,
            markup=False,
        )
    again = f"harness run {shlex.join(history.read(directory).manifest['command'][1:])}"
    people.print(f"  {directory / 'report.html'}\n  again: {again}", highlight=False, markup=False, soft_wrap=True)


def main() -> NoReturn:
    """The entry point: one line for an error, and the exit code of measuring.md."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = Verdict.UNKNOWN.exit_code
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        code = 2 if isinstance(error, ScenarioError) else Verdict.UNKNOWN.exit_code
    except typer.Abort:
        code = Verdict.UNKNOWN.exit_code
    except Exception as error:
        code = _usage(error)
    sys.exit(code or 0)


def _usage(error: Exception) -> int:
    """Click's own usage errors as one line; anything else is a defect of ours and keeps its trace."""
    text = getattr(error, "format_message", None)
    if text is None:
        raise error
    print(f"harness: {text()}", file=sys.stderr)
    return 2


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
