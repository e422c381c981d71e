"""Proves a streaming pipeline right under difficult data and faults, and measures what it can carry.

Exit codes: 0 pass, 1 fail, 2 bad usage, 3 unknown.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import scenario
from harness.errors import HarnessError, RunError, ScenarioError, StackError
from harness.experiments import capacity, drill, mutation, needs, own, selfcheck, shrink, single
from harness.host import cgroup, cleanup, jars, streams
from harness.host import doctor as machine
from harness.judge import own as own_judge
from harness.judge import verdict
from harness.judge.assessment import Assessment
from harness.load import distributed
from harness.model import Result, Verdict
from harness.runner.console import Status
from harness.scenario import Scenario
from harness.scenario import own as own_scenario
from harness.scenario import schema as scenario_schema

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
people = Console(stderr=True)
INTERRUPTED = 130
"""What Typer makes of Ctrl-C."""
SEED_MAX = 2**63 - 1
MARK = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "bold yellow"}

SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="any field of the scenario")]
JsonOption = Annotated[bool, typer.Option("--json", help="print result.json, alone, on standard output")]


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="SCENARIO", help="a name of `harness list`, or a TOML file")],
    eps: Annotated[float | None, typer.Option(help="events per second, instead of the scenario's")] = None,
    duration: Annotated[float | None, typer.Option(help="seconds of the measured part, likewise")] = None,
    warm_up: Annotated[float | None, typer.Option(help="seconds of load before it, likewise")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=SEED_MAX, help="same seed, same bytes")] = None,
    kafka: Annotated[
        str | None, typer.Option(metavar="embedded|containers|HOST:PORT", help="where the brokers are")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="default, or specification")] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="harness|locust", help="one load engine, or several that Locust coordinates")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="locust: load engines, started here unless --master is given")
    ] = None,
    master: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="locust: address of this machine for workers of other machines"),
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="locust: serve its page while the run goes on")] = False,
    reports: Annotated[Path, typer.Option(help="where run directories are written")] = Path("reports"),
    metrics_port: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=65_535, help="serve the run's metrics for Prometheus, on loopback"),
    ] = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a scenario, judge it, and write its report."""
    flags = {
        "--eps": ("load.eps", eps),
        "--duration": ("load.duration_s", duration),
        "--warm-up": ("load.warm_up_s", warm_up),
        "--seed": ("load.seed", seed),
        "--kafka": ("kafka.where", kafka),
        "--profile": ("pipeline.profile", profile),
        "--engine": ("load.engine", engine),
        "--workers": ("load.workers", workers),
        "--master": ("load.master", master),
    }
    overrides = [
        scenario.Override(f"{field}={json.dumps(value) if isinstance(value, str) else value}", f"{flag} {value}")
        for flag, (field, value) in flags.items()
        if value is not None
    ]
    overrides += [scenario.Override("load.web=true", "--web")] if web else []
    if (path := own_scenario.find(name)) is not None:
        if metrics_port is not None:
            raise ScenarioError(
                f"--metrics-port {metrics_port}: a run of a declared job has no metrics yet; leave it out"
            )
        raise typer.Exit(_run_own(path, [*overrides, *_named(sets or [])], reports, as_json).exit_code)
    chosen = scenario.load(name, [*overrides, *(sets or [])])
    try:
        done = single.run(chosen, reports, Status(people), sys.argv[1:], metrics_port)
    except HarnessError as error:
        if as_json and not isinstance(error, ScenarioError):
            _print_json(verdict.unknown(str(error)))
        raise
    raise typer.Exit(_tell(done, as_json).exit_code)


@app.command("capacity")
def capacity_(
    name: Annotated[str, typer.Argument(metavar="SCENARIO", help="whose pipeline, data and limits")] = "load",
    start: Annotated[float, typer.Option("--from", metavar="EPS", help="the first rate, events per second")] = 5_000,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="within 25 % instead of 10, shorter runs, and each rate once instead of three times"
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="go on with a search that was broken off; no other option counts"),
    ] = None,
    reports: Annotated[Path, typer.Option(help="where the search and its runs are written")] = Path("reports"),
    sets: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="print capacity.json, alone, on standard output")] = False,
) -> None:
    """Find the highest rate at which all targets hold, and what gives way above it.

    Doubling, bisection, then three runs at the answer and three at one step above. Exit code 3 also where the load engine was the limit.
    """
    if resume:
        found = capacity.Capacity.resume(resume)
    else:
        chosen, settings = capacity.prepared(scenario.load(name, sets or []), start, quick=quick)
        found = capacity.Capacity.begin(single.new_folder(reports, f"capacity-{chosen.name}"), chosen, settings)
    try:
        answer = found.search(_step)
    except (HarnessError, KeyboardInterrupt):
        _say(f"go on: harness capacity --resume {found.folder}")
        raise
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        _print_curve(found.curve())
    people.print(Text.assemble((answer.verdict.value.upper(), MARK[answer.verdict]), f"  {answer.why}"), soft_wrap=True)
    _say(f"  {_between(answer.spread)}  {found.folder / capacity.FILE}")
    raise typer.Exit(answer.verdict.exit_code)


def _step(chosen: Scenario, folder: Path) -> tuple[Result, Path]:
    _say(f"step      {chosen.load.eps:,.0f} events/s")
    done = single.run(chosen, folder, Status(people))
    _tell(done, as_json=False)
    return done.result, done.run.directory


def _between(spread: tuple[float | None, float | None]) -> str:
    """The spread of a capacity in words."""
    held, missed = spread
    words = [f"every run held up to {held:,.0f}"] if held else []
    words += [f"none held from {missed:,.0f} on"] if missed else []
    return ", ".join(words) or "no rate had the same outcome in all of its runs"


CURVE = {
    "latency": ("latency p99, s", 1.0),
    "cpu": ("pipeline CPU, %", 100.0),
    "machine_cpu_share": ("machine CPU, %", 100.0),
    "state_size": ("state, MB", 1e-6),
    "lag_records_max": ("lag, records", 1.0),
    "generator_delay_ms_p99": ("generator delay p99, ms", 1.0),
}
"""Figure of a curve → its heading, and the factor to its unit."""


def _print_curve(rows: Sequence[Mapping[str, Any]]) -> None:
    """A row a rate: medians, with least and most where there are several runs."""
    table = Table("events/s", "hold", *(heading for heading, _ in CURVE.values()), "gave way")
    for row in rows:
        figures = (_median(row["figures"].get(name), factor) for name, (_, factor) in CURVE.items())
        table.add_row(f"{row['eps']:,.0f}", f"{row['hold']} of {row['runs']}", *figures, ", ".join(row["gave_way"]))
    Console().print(table)


def _median(spread: Mapping[str, float] | None, factor: float) -> str:
    if spread is None:
        return "–"
    values = (spread[name] * factor for name in ("median", "min", "max"))
    middle, least, most = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    return middle if least == most else f"{middle} ({least}–{most})"


@app.command("load-worker")
def load_worker(
    master: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="the --master of `harness run --engine locust`")],
) -> None:
    """Send a share of the load of a run on another machine; ends with it."""
    needs.locust()
    raise typer.Exit(distributed.take_part(master))


def _named(sets: Iterable[str]) -> list[scenario.Override]:
    return [scenario.Override(text, f"--set {text}") for text in sets]


def _run_own(path: Path, overrides: Sequence[scenario.Override], reports: Path, as_json: bool) -> Verdict:
    """Run the scenario of a declared job."""
    chosen = own_scenario.load(path, overrides)
    try:
        done = own.run(chosen, reports, Status(people), sys.argv[1:])
    except HarnessError as error:
        if as_json and not isinstance(error, ScenarioError):
            _print_json(verdict.unknown(str(error)))
        raise
    return _told(done.result, own.story(done), as_json)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the folder of the suite")],
    folder: Annotated[Path, typer.Option(help="where the folder is made")] = Path("scenarios"),
) -> None:
    """Make a suite for a job of your own: a declaration, its SQL, a job and a scenario that run."""
    target = own.new(name, folder)
    print(f"harness run {target / 'kill.toml'}")


@app.command()
def check(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="run directories")], as_json: JsonOption = False
) -> None:
    """Judge runs again, from their directories alone."""
    codes = [_checked(directory, as_json) for directory in runs]
    # A fail is found whatever else was named; a path that is no run is bad usage, which outranks unknown.
    raise typer.Exit(next((code for code in (Verdict.FAIL.exit_code, 2) if code in codes), max(codes)))


def _checked(directory: Path, as_json: bool) -> int:
    """The exit code of one of several runs: if one cannot be read, the others are judged all the same."""
    try:
        if own_judge.is_own(directory):
            judged = own.judge(directory)
            return _told(judged.result, own.story(judged), as_json).exit_code
        return _tell(single.judge(directory), as_json).exit_code
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        if as_json:
            _print_json(verdict.unknown(str(error)))
        return error.exit_code


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")],
    row: Annotated[str | None, typer.Option(metavar="KEY", help="identity columns of a row, joined by |")] = None,
    most: Annotated[int, typer.Option(min=1, help="how many anomalies")] = 10,
) -> None:
    """Everything known about a row, or about the first anomalies."""
    for line in single.explain(run, row, most):
        print(line)


@app.command("shrink")
def shrink_(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory with anomalies")],
    reports: Annotated[Path, typer.Option(help="where the attempts are written")] = Path("reports"),
) -> None:
    """Find the fewest events and the simplest faults that still fail in the same way."""
    print(f"harness run {_shrink(single.judge(run), reports)}")


def _shrink(failed: Assessment, reports: Path) -> Path:
    """The file of the smallest scenario that fails as a run did: in its directory, or in a new one if it is read-only."""

    def attempt(smaller: Scenario) -> Result:
        return single.run(smaller, reports / "shrink", Status(people)).result

    smallest = shrink.shrink(failed.run.scenario, failed.result, attempt, _say)
    text = scenario.dump(smallest)
    try:
        return single.written(failed.run.directory / "shrunk.toml", text)
    except RunError as error:
        _say(f"{error}; it is written to a folder of its own")
        return single.written(single.new_folder(reports, "shrunk") / "shrunk.toml", text)


@app.command("selfcheck")
def selfcheck_(
    names: Annotated[list[str] | None, typer.Argument(metavar="SCENARIO…", help="with --mutants; all if none")] = None,
    mutants: Annotated[bool, typer.Option("--mutants", help="measure which wrong pipelines scenarios kill")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds")] = 3,
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="a right run, instead of one made for this")] = None,
) -> None:
    """Plant every anomaly in a right run, and prove that each is found as its own kind."""
    if mutants:
        _print_mutants(names or [])
        return
    if names:
        raise ScenarioError(f"selfcheck {names[0]}: scenarios are for --mutants; a run of your own is named by --run")
    table = Table("kind", "planted", "found", "missed", "accused wrongly")
    tally = selfcheck.prove(range(seeds), run)
    for kind, count in tally.items():
        table.add_row(kind, str(count.planted), str(count.found), str(count.missed), str(count.accused))
    Console().print(table)
    if any(count.missed or count.accused for count in tally.values()):
        raise typer.Exit(Verdict.FAIL.exit_code)
    nowhere = [kind for kind, count in tally.items() if not count.planted]
    if nowhere:
        _say(f"this run has no place for {', '.join(nowhere)}: not proved")
    raise typer.Exit((Verdict.UNKNOWN if nowhere else Verdict.PASS).exit_code)


def _print_mutants(names: Sequence[str]) -> None:
    table = Table("scenario", "mutants killed", "of those that some input kills")
    measured = list(mutation.measure(names))
    for found in measured:
        table.add_row(found.scenario, str(len(found.killed)), str(len(mutation.KILLABLE)))
    if len(measured) > 1:
        table.add_row("all of these", str(len(mutation.killed(measured))), str(len(mutation.KILLABLE)))
    Console().print(table)
    for line in mutation.alive(measured):
        print(line)


drills = typer.Typer(no_args_is_help=True, help="Many faults at many places, on one page.")
app.add_typer(drills, name="drill")
ReportsOption = Annotated[Path, typer.Option(help="where run directories and pages are written")]
StatesOption = Annotated[str, typer.Option(metavar="A,B", help="what the stream is like; all where none is named")]
SeedOption = Annotated[int, typer.Option(min=0, max=SEED_MAX, help="of the events, and of random faults")]


@drills.command("crash-points")
def crash_points(
    points: Annotated[str, typer.Option(metavar="A,B", help="of a micro-batch")] = "",
    queries: Annotated[str, typer.Option(metavar="A,B", help="whose micro-batch")] = "",
    states: StatesOption = "",
    seed: SeedOption = 7,
    reports: ReportsOption = Path("reports"),
) -> None:
    """The driver dies at every point of a micro-batch, of every query, in every state."""
    plans = drill.crash_points(_names(points), _names(queries), _names(states))
    if not plans:
        raise ScenarioError("--points, --queries: no such crash point: dead_letter keeps no state to die in")
    raise typer.Exit(_drill(drill.CRASH_POINTS, plans, _seeded(seed, reports), seed, reports).exit_code)


@drills.command()
def matrix(
    faults: Annotated[str, typer.Option(metavar="A,B", help="such as 'kill leader'; all where none is named")] = "",
    phases: StatesOption = "",
    seed: SeedOption = 7,
    reports: ReportsOption = Path("reports"),
) -> None:
    """Every fault in every phase of the stream."""
    plans = drill.matrix(_names(faults), _names(phases))
    raise typer.Exit(_drill("matrix", plans, _seeded(seed, reports), seed, reports).exit_code)


@drills.command("random")
def random_(
    minutes: Annotated[float, typer.Option(min=1, help="after which no further run begins")] = 10,
    seed: SeedOption = 7,
    smaller: Annotated[bool, typer.Option("--shrink/--no-shrink", help="make a run that fails smaller")] = True,
    reports: ReportsOption = Path("reports"),
) -> None:
    """Random faults at random, from a seed; a run that fails is made smaller, as by `harness shrink RUN`."""
    failed: list[Assessment] = []

    def attempt(scenario: Scenario) -> Assessment:
        done = _attempt(scenario, reports)
        if done.result.anomalies:
            failed.append(done)
        return done

    result = _drill("random", drill.at_random(seed, minutes), attempt, seed, reports)
    for failing in failed if smaller else ():
        try:
            _say(f"smaller: harness run {_shrink(failing, reports)}")
        except HarnessError as error:
            # The page is written, and its verdict stands.
            _say(str(error))
        except KeyboardInterrupt:
            break
    raise typer.Exit(result.exit_code)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seeded(seed: int, reports: Path) -> Callable[[Scenario], Assessment]:
    return lambda scenario: _attempt(replace(scenario, load=replace(scenario.load, seed=seed)), reports)


def _attempt(scenario: Scenario, reports: Path) -> Assessment:
    done = single.run(scenario, reports, Status(people))
    _tell(done, as_json=False)
    return done


def _drill(
    name: str, plans: Iterable[drill.Plan], attempt: Callable[[Scenario], Assessment], seed: int, reports: Path
) -> Verdict:
    target = single.new_folder(reports, f"drill-{name}") / "drill.html"
    cells: list[drill.Cell] = []
    again = shlex.join(["harness", *sys.argv[1:]])
    planned = sum(len([cell for cell in plan.cells if cell]) for plan in plans) if isinstance(plans, Sequence) else None
    for cell in drill.carry_out(plans, attempt):
        cells.append(cell)
        drill.write(name, cells, seed, again, target, left=None if planned is None else planned - len(cells))
    result = drill.write(name, cells, seed, again, target)
    people.print(Text.assemble((result.value.upper(), MARK[result]), f"  {len(cells)} cells  {target}"), soft_wrap=True)
    return result


@app.command("list")
def list_() -> None:
    """The scenarios that come with the harness."""
    for name in scenario.names():
        print(f"{name:<16} {scenario.load(name).about}")


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="SCENARIO")], sets: SetOption = None) -> None:
    """A scenario in full, as it would be run, and what each field means."""
    print(scenario.described(scenario.load(name, sets or [])), end="")


@app.command("schema")
def schema_() -> None:
    """The JSON Schema of a scenario file, for an editor that completes and checks TOML."""
    print(json.dumps(scenario_schema.schema(), indent=1))


@app.command()
def doctor() -> None:
    """What this machine has and lacks."""
    table = Table("", "check", "found", "needed", "what to do")
    checks = machine.checks()
    for check in checks:
        sign = Text("ok", "green") if check.ok else Text("no", "red")
        table.add_row(sign, *map(Text, (check.name, check.found, check.needed, "" if check.ok else check.hint)))
    Console().print(table)
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


@app.command()
def clean() -> None:
    """End what dead runs have left: processes, folders, disks, containers. The next run does the same."""
    swept = cleanup.sweep()
    cgroup.sweep()
    for what in (*swept.processes, *map(str, swept.folders), *_swept_containers()):
        print(what)


def _swept_containers() -> list[str]:
    from harness.kafka import containers  # the Docker client is loaded where it is asked for

    try:
        return containers.sweep()
    except StackError:  # no daemon answers: there are none
        return []


@app.command("jars")
def fetch() -> None:
    """Fetch the jars of Spark's Kafka connector and of the broker, and print their folders."""
    print(jars.spark_jars())
    print(jars.broker_jars())


def _tell(done: Assessment, as_json: bool) -> Verdict:
    return _told(done.result, single.story(done), as_json)


def _told(result: Result, story: Sequence[str], as_json: bool) -> Verdict:
    """Print the verdict and its story."""
    first, *rest = story
    people.print(
        Text.assemble((result.verdict.value.upper(), MARK[result.verdict]), "  ", first),
        soft_wrap=True,
        highlight=False,
    )
    for line in rest:
        _say(line)
    if as_json:
        _print_json(result)
    return result.verdict


def _say(line: str) -> None:
    """A line for people, as it is: `[/tmp/x]` in it is no markup."""
    people.print(Text(line), soft_wrap=True, highlight=False)


def _print_json(result: Result) -> None:
    print(json.dumps(verdict.as_json(result)))


def main() -> NoReturn:
    """The entry point: one line for an error, and the exit code of measuring.md."""
    try:
        _upon_signals(_interrupt)
        code = _called()
        # What comes now comes too late to change the exit code, as it would while Python itself ends.
        _upon_signals(signal.SIG_IGN)
    except KeyboardInterrupt:  # between two lines of this function or of the next
        _upon_signals(signal.SIG_IGN)
        code = INTERRUPTED
    if code == INTERRUPTED:  # an interrupted run is one of which nothing is known
        code = _ends("harness: interrupted: no verdict", Verdict.UNKNOWN.exit_code)
    sys.exit(code or 0)


def _called() -> int | None:
    """The exit code of the command; None is 0."""
    streams.guard()
    code: int | None
    try:
        code = app(standalone_mode=False)
        streams.flush()
    except streams.Unwritable as error:  # by `| head -1` it is closed, and that is no error
        code = Verdict.UNKNOWN.exit_code if error.is_closed else _ends(f"harness: {error}", Verdict.UNKNOWN.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except HarnessError as error:
        code = _ends(f"harness: {error}", error.exit_code)
    except Exception as error:
        code = _usage(error)
    return code


def _ends(line: str, code: int) -> int:
    """Print a last line, if there is still somebody to read it, and return the exit code."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    return code


def _usage(error: Exception) -> int:
    """Click's own usage errors as one line; anything else is a defect of ours, keeps its trace, and is no verdict."""
    text = getattr(error, "format_message", None)
    if text is None:
        return _ends("".join(traceback.format_exception(error)).rstrip(), Verdict.UNKNOWN.exit_code)
    message = text()  # where no command was named, the help is printed already
    return _ends(f"harness: {message}", 2) if message else 2


def _upon_signals(do: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as it is under nohup
            signal.signal(number, do)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Once: another signal, of an impatient hand or a terminal that is closed, would break off the ending itself."""
    _upon_signals(lambda number, frame: None)
    raise KeyboardInterrupt
