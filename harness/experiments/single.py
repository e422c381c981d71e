"""One scenario run, judged and reported: what `harness run` and a test do alike."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import HarnessError, NoRun, PipelineDied, RunError, ScenarioError
from harness.experiments import needs
from harness.job.clickstream.contract import QUERIES
from harness.judge import explain as explaining
from harness.judge import verdict
from harness.judge.assessment import Assessment
from harness.model import Anomaly, Result, Target
from harness.report import Page, figure, write_whole
from harness.report import page as pages
from harness.report import write as write_page
from harness.rundir import history
from harness.rundir.history import Run
from harness.runner import conductor
from harness.runner.console import Status
from harness.runner.metrics import Metrics, served
from harness.scenario import Scenario

SHOWN = 3
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class ReadOnly(RunError):
    """A file cannot be written because its file system or its directory is read-only."""


def run(
    scenario: Scenario,
    reports: Path,
    status: Status,
    command: Sequence[str] = (),
    metrics_port: int | None = None,
) -> Assessment:
    """Run, judge, report; a pipeline that died is judged too. `command` is how to do it again, by default from its file.

    The run's metrics are served at `metrics_port` of loopback meanwhile, if one is given.
    Raises StackError where this machine lacks what the scenario needs, ScenarioError where the port is taken; no directory
    is made then. Raises HarnessError or KeyboardInterrupt; the directory's result is then unknown.
    """
    needs.require(scenario)
    with served(scenario, metrics_port) as metrics:
        return _run(scenario, reports, status, command, metrics)


def _run(
    scenario: Scenario, reports: Path, status: Status, command: Sequence[str], metrics: Metrics | None
) -> Assessment:
    directory = new_folder(reports, scenario.name, f"-seed{scenario.load.seed}")
    try:
        again = list(command) or ["run", str(directory / "scenario.toml")]
        try:
            conductor.run(scenario, directory, status, again, metrics)
        except OSError as error:
            raise RunError(f"{error.filename or directory}: {error.strerror or error}: the run broke off") from error
    except PipelineDied:
        pass  # the verdict decides what that means
    except (KeyboardInterrupt, HarnessError) as error:
        if directory.is_dir():
            _write_unknown(directory, str(error) or "interrupted by the user")
            status.note(f"UNKNOWN  what happened so far is in {directory}")
        raise
    done = judge(directory)
    with contextlib.suppress(OSError):  # where `latest` is a folder, as in a copy
        _link_latest(directory)
    return done


def judge(directory: Path) -> Assessment:
    """Judge a run directory, and write its result and report; a read-only one is judged all the same.

    Raises NoRun where it is no run directory, and RunError where it is incomplete; its result is then unknown.
    """
    try:
        assessed = _judged(directory)
    except NoRun:
        raise  # a mistyped path gets no file
    except HarnessError as error:
        _write_unknown(directory, str(error))
        raise
    try:
        _write_result(directory, assessed.result)
    except ReadOnly:
        return replace(assessed, written=False)
    try:
        page = pages.of_run(assessed)
    except Exception as error:
        raise RunError(f"{directory}: judged, and its page could not be made: {_traced(directory, error)}") from error
    _write_page(directory, page)
    return assessed


def _judged(directory: Path) -> Assessment:
    read = history.read(directory)
    try:
        assessed = verdict.assess(read)
    except HarnessError:
        raise
    except Exception as error:  # outside of every guard: nothing is known to be wrong, and nothing to be right
        return Assessment(read, verdict.unknown(f"a checker crashed, {_traced(directory, error)}"))
    result = assessed.result
    if not result.crashes:
        return assessed
    traces = "\n".join(f"{crash.part} crashed\n{crash.trace}" for crash in result.crashes)
    try:
        return replace(assessed, result=replace(result, why=f"{result.why}; see {_written(directory, traces)}"))
    except ReadOnly:
        return assessed


def _traced(directory: Path, error: Exception) -> str:
    """A defect of the harness, or damage to a run that it does not know, in a line; the trace is in a file.

    In a read-only directory the line ends with the last place of the trace instead.
    """
    try:
        trace = _written(directory, "".join(traceback.format_exception(error)))
    except ReadOnly:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error}; at {at.filename}:{at.lineno}"
    return f"{type(error).__name__}: {error}; see {trace}"


def _written(directory: Path, traces: str) -> Path:
    """The file of the run that the traces of crashes are written to."""
    log = directory / "logs" / "judge.log"
    with _writing(log):
        log.parent.mkdir(exist_ok=True)
        write_whole(log, traces)
    return log


def story(done: Assessment, most: int = SHOWN) -> list[str]:
    """The outcome in lines: why, the targets, the first anomalies explained, where the rest is, how to do it again."""
    chosen, result = done.run.scenario, done.result
    lines = [f"{chosen.name}  seed {chosen.load.seed}  {result.why}"]
    lines += [f"  {_line(target)}" for target in result.targets]
    for anomaly in result.anomalies[:most]:
        lines += [f"  {line}" for line in described(anomaly)]
    if len(result.anomalies) > most:
        lines.append(f"  … and {len(result.anomalies) - most:,} more: harness explain {done.run.directory}")
    again = shlex.join(["harness", *done.run.manifest["command"]])
    page = done.run.directory / "report.html"
    where = str(page) if done.written else f"{done.run.directory} is read-only: no result and no report written"
    return [*lines, f"  {where}", f"  again: {again}"]


def _line(target: Target) -> str:
    """A target in the units of the page."""
    printed = pages.shown(target)
    value = "not measured" if target.value is None else figure(printed["value"])
    judged = target.verdict.value if target.judged else "shown"
    sign = ">" if target.at_least else "<"
    room = "" if target.headroom is None else f"head-room {target.headroom:.1%}"
    return (
        f"{judged:<8}{printed['name']:<12}{value:>14} {sign} {figure(printed['limit']):<8}{printed['unit']:<16}{room}"
    )


def described(anomaly: Anomaly) -> Iterator[str]:
    """An anomaly with its evidence, a line each."""
    batch = "" if anomaly.batch is None else f"  batch {anomaly.batch}"
    yield f"{anomaly.kind}  {anomaly.query}  {'|'.join(map(str, anomaly.key))}{batch}"
    yield f"  expected {anomaly.expected}"
    yield f"  saw      {anomaly.observed}"
    yield f"  {anomaly.why}"
    yield from (f"  event    {event}" for event in anomaly.events)
    yield from (f"  near     {row}" for row in anomaly.near)


def explain(directory: Path, row: str | None, most: int) -> Iterator[str]:
    """Everything known about a row, by its identity joined by |, or about the first anomalies."""
    read = history.read(directory)
    try:
        yield from _explained(read, row, most)
    except HarnessError:
        raise
    except Exception as error:
        raise RunError(f"{directory}: cannot be explained: {_traced(directory, error)}") from error


def _explained(read: Run, row: str | None, most: int) -> Iterator[str]:
    assessed = verdict.assess(read)
    if row is None:
        found = assessed.anomalies[:most]
        yield from (
            (line for anomaly in found for line in described(anomaly)) if found else (f"no anomaly: {assessed.why}",)
        )
        return
    gathered, answers, comparisons = assessed.evidence, assessed.answers, assessed.comparisons
    if gathered is None:
        raise RunError(f"{read.directory}: could not be judged: {assessed.why}")
    known = [
        (query, key)
        for query, comparison in comparisons.items()
        for key in comparison.expected.keys() | comparison.observed.keys()
        if "|".join(map(str, key)) == row
    ]
    if not known:
        raise ScenarioError(
            f"--row {row}: no such row in {read.directory}, expected or seen; a key is its identity columns joined by |, of {', '.join(QUERIES)}"
        )
    for query, key in known:
        yield f"{query}  {row}"
        yield f"  expected {comparisons[query].expected.get(key, 'no row')}  by batch {answers[query].batch.get(key)}"
        for seen in comparisons[query].observed.get(key, ()):
            yield f"  saw      {seen.values}  {seen.where}  {datetime.fromtimestamp(seen.at_s, UTC):%H:%M:%S.%f}"
        for event in explaining.contributing(gathered, {(query, key)})[query, key]:
            yield f"  event    {event}"


def new_folder(reports: Path, name: str, ending: str = "") -> Path:
    """A new folder below that of the name, called by the moment; two that begin in the same millisecond have one each."""
    while True:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
        directory = (reports / name / f"{stamp}{ending}").absolute()
        try:
            directory.mkdir(parents=True)
        except FileExistsError as error:
            if not directory.is_dir():
                raise ScenarioError(
                    f"{reports}: {error.strerror}, and is no folder: name another with --reports"
                ) from None
        except OSError as error:
            raise ScenarioError(f"{reports}: no folder can be made: {error.strerror}; see --reports") from None
        else:
            return directory


def _link_latest(directory: Path) -> None:
    temporary = directory.parent / f".latest-{os.getpid()}"
    temporary.symlink_to(directory.name)
    os.replace(temporary, directory.parent / "latest")


def _write_result(directory: Path, result: Result) -> None:
    with _writing(directory / "result.json"):
        write_whole(directory / "result.json", json.dumps(verdict.as_json(result), indent=1))


def _write_unknown(directory: Path, why: str) -> None:
    """Write result and page of a run that could not be judged; where that fails, the error that is already under way matters more."""
    with contextlib.suppress(RunError):
        _write_result(directory, verdict.unknown(why))
        _write_page(directory, pages.of_unjudged(directory, why))


def _write_page(directory: Path, page: Page) -> None:
    with _writing(directory / "report.html"):
        write_page(page, directory / "report.html")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = ReadOnly if error.errno in READ_ONLY else RunError
        raise kind(f"{path}: cannot be written: {error.strerror}") from error
