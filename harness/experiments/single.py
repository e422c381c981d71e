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
from harness.judge import causes, death, verdict
from harness.judge import explain as explaining
from harness.judge.assessment import Assessment
from harness.judge.causes import Group
from harness.model import Anomaly, Result, Target
from harness.report import figure, render, write_whole
from harness.report import page as pages
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
        text = render(pages.of_run(assessed))
    except Exception as error:  # the result is written, and the verdict is known without a page
        return _without_page(assessed, f"the page could not be made: {_traced(directory, error, 'page.log')}")
    _write_page(directory, text)
    return assessed


def _without_page(assessed: Assessment, why: str) -> Assessment:
    """Leave a page with the verdict alone, or none: an older page may have another verdict."""
    target = assessed.run.directory / "report.html"
    with _writing(target):
        target.unlink(missing_ok=True)
    with contextlib.suppress(Exception):
        _write_page(assessed.run.directory, render(pages.of_verdict(assessed, why)))
    return replace(assessed, page_crash=why)


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


def _traced(directory: Path, error: Exception, name: str = "judge.log") -> str:
    """A defect of the harness, or damage to a run that it does not know, in a line; the trace is in a file.

    In a read-only directory the line ends with the last place of the trace instead.
    """
    try:
        trace = _written(directory, "".join(traceback.format_exception(error)), name)
    except ReadOnly:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error}; at {at.filename}:{at.lineno}"
    return f"{type(error).__name__}: {error}; see {trace}"


def _written(directory: Path, traces: str, name: str = "judge.log") -> Path:
    """The file of the run that the traces of crashes are written to."""
    log = directory / "logs" / name
    with _writing(log):
        log.parent.mkdir(exist_ok=True)
        write_whole(log, traces)
    return log


def story(done: Assessment, most: int = SHOWN) -> list[str]:
    """The outcome in lines: why, the targets, the first anomalies explained, where the rest is, how to do it again."""
    chosen, result = done.run.scenario, done.result
    lines = [f"{chosen.name}  seed {chosen.load.seed}  {result.why}"]
    lines += [f"  {_line(target)}" for target in result.targets]
    groups = causes.groups(result.anomalies)
    for group in groups[:most]:
        lines += [f"  {line}" for line in of_group(group)]
    shown = min(most, len(groups))
    if len(result.anomalies) > shown:
        lines.append(f"  … and {len(result.anomalies) - shown:,} more: harness explain {done.run.directory}")
    lines += [f"  {done.page_crash}"] if done.page_crash else []
    again = shlex.join(["harness", *done.run.manifest["command"]])
    page = done.run.directory / "report.html"
    where = str(page) if done.written else f"{done.run.directory} is read-only: no result and no report written"
    return [*lines, f"  {where}", f"  again: {again}"]


def _line(target: Target) -> str:
    """A target in the units of the page."""
    printed = pages.shown(target)
    value = "not measured" if target.value is None else figure(printed["value"])
    # No comparison is printed that does not hold: `983.5 misses > 1,000`, and nothing is compared with no value.
    sign = f"{'misses ' if printed['missed'] else 'limit ' if target.value is None else ''}{printed['operator']}"
    room = "" if target.headroom is None else f"head-room {target.headroom:.1%}"
    notes = "; ".join(note for note in (room, target.why) if note)
    line = f"{printed['verdict']:<8}{printed['name']:<12}{value:>14} {sign:>8} {figure(printed['limit']):<8}"
    return f"{line}{printed['unit']:<16}{notes}".rstrip()


def of_group(group: Group) -> Iterator[str]:
    """The cause of a group and its number, and the first of its anomalies with its evidence, a line each."""
    if group.cause or len(group.anomalies) > 1:
        yield f"{len(group.anomalies):,} × {group.cause or f'{group.anomalies[0].kind}, no cause found'}"
    yield from described(group.anomalies[0])


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
    """Everything known about a row, by its identity joined by |, or about the first anomalies and the pipeline's death."""
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
        yield from _by_cause(assessed, most)
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
        anomalies = [anomaly for anomaly in assessed.anomalies if (anomaly.query, anomaly.key) == (query, key)]
        unexplained = [anomaly for anomaly in anomalies if not anomaly.events]
        explained = explaining.explain(gathered, unexplained, answers, comparisons)
        for anomaly in [*(anomaly for anomaly in anomalies if anomaly.events), *explained]:
            yield from (f"  {line}" for line in described(anomaly))
        words, events = explaining.of_row(gathered, query, key, comparisons)
        yield f"  made of  {words}"
        yield from (f"  event    {event}" for event in events)


def _by_cause(assessed: Assessment, most: int) -> Iterator[str]:
    """Each cause with its number, then the first `most` anomalies, those of one cause one after the other."""
    if died := list(death.explained(assessed.run)):
        yield from (*died, f"  verdict  {assessed.verdict.value}: {assessed.why}")
    elif not assessed.anomalies:
        yield f"no anomaly: {assessed.why}"
    groups = causes.groups(assessed.anomalies)
    for group in groups:
        yield f"{len(group.anomalies):>9,} × {group}"
    for group in _shared(groups, most):
        yield from (line for anomaly in group.anomalies for line in described(anomaly))


def _shared(groups: Sequence[Group], most: int) -> Iterator[Group]:
    """The groups with `most` anomalies in all, so that each group has its first before any has its second."""
    sizes = [0] * len(groups)
    while sum(sizes) < most and any(size < len(group.anomalies) for size, group in zip(sizes, groups, strict=True)):
        for at, group in enumerate(groups):
            sizes[at] += sum(sizes) < most and sizes[at] < len(group.anomalies)
    for size, group in zip(sizes, groups, strict=True):
        yield Group(group.cause, group.anomalies[:size])


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
        _write_page(directory, render(pages.of_unjudged(directory, why)))


def _write_page(directory: Path, text: str) -> None:
    with _writing(directory / "report.html"):
        write_whole(directory / "report.html", text)


def written(path: Path, text: str) -> Path:
    """The path of a file that is written whole. Raises RunError where it cannot be written."""
    with _writing(path):
        write_whole(path, text)
    return path


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = ReadOnly if error.errno in READ_ONLY else RunError
        raise kind(f"{path}: cannot be written: {error.strerror}") from error
