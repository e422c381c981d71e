"""A scenario of a declared job, run, judged and reported: what `harness run` and `harness check` do with one."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, PipelineDied, RunError, ScenarioError
from harness.experiments.single import described, new_folder
from harness.judge import own, verdict
from harness.judge.own import OwnRun
from harness.model import Anomaly, Result
from harness.report import Page, Table, render, write_whole
from harness.report.page import of_unjudged
from harness.runner import own as runner
from harness.runner.console import Status
from harness.scenario.own import OwnScenario

SHOWN = 3
STARTER = Path(__file__).parent / "starter"


@dataclass(frozen=True, slots=True)
class Trial:
    """The run of a declared job, read, and its result."""

    run: OwnRun
    result: Result


def run(scenario: OwnScenario, reports: Path, status: Status, command: Sequence[str] = ()) -> Trial:
    """Run, judge, report; a job that died is judged too. `command` is how to do it again, by default from its file.

    Raises HarnessError or KeyboardInterrupt; the directory's result is then unknown.
    """
    directory = new_folder(reports, scenario.name, f"-seed{scenario.load.seed}")
    try:
        runner.run(scenario, directory, status, list(command) or ["run", str(directory / "scenario.toml")])
    except PipelineDied:
        pass  # the judge decides what that means
    except (KeyboardInterrupt, HarnessError, OSError) as error:
        why = error
        if isinstance(error, OSError):
            why = RunError(f"{error.filename or directory}: {error.strerror or error}: the run broke off")
        with contextlib.suppress(RunError):  # the error under way matters more
            _write_unknown(directory, str(why) or "interrupted by the user")
        status.note(f"UNKNOWN  what happened so far is in {directory}")
        raise why from error
    return judge(directory)


def judge(directory: Path) -> Trial:
    """Judge a run directory, and write its result and report. Raises RunError where it is incomplete."""
    try:
        done = own.read(directory)
        result = own.judge(done)
    except HarnessError as error:
        with contextlib.suppress(RunError):
            _write_unknown(directory, str(error))
        raise
    _write(directory, result, _page(done, result))
    return Trial(done, result)


def _write_unknown(directory: Path, why: str) -> None:
    _write(directory, verdict.unknown(why), of_unjudged(directory, why))


def _write(directory: Path, result: Result, page: Page) -> None:
    """Write result.json and report.html. Raises RunError that names the file."""
    files = {
        "result.json": json.dumps(verdict.as_json(result), indent=1, default=str),
        "report.html": render(page),
    }
    for name, text in files.items():
        try:
            write_whole(directory / name, text)
        except OSError as error:
            raise RunError(f"{directory / name}: cannot be written: {error.strerror}") from error


def story(done: Trial) -> list[str]:
    """The outcome in lines: why, the first anomalies explained, where the rest is, how to do it again."""
    lines = [f"{done.run.scenario.name}  seed {done.run.scenario.load.seed}  {done.result.why}"]
    for anomaly in done.result.anomalies[:SHOWN]:
        lines += [f"  {line}" for line in described(anomaly)]
    if len(done.result.anomalies) > SHOWN:
        lines.append(f"  … and {len(done.result.anomalies) - SHOWN:,} more: {done.run.directory / 'result.json'}")
    again = shlex.join(["harness", *done.run.manifest["command"]])
    return [*lines, f"  {done.run.directory / 'report.html'}", f"  again: {again}"]


def _page(done: OwnRun, result: Result) -> Page:
    """The verdict, the anomalies, and each query's counts."""
    names = ("expected", "right", "copies", "counted", "late")
    rows = tuple(
        (query.name, *(result.counts.get(f"{query.name}.{name}") for name in names))
        for query in done.scenario.declaration.queries
    )
    columns = ("query", "rows expected", "right", "copies after a restart", "records in time", "late")
    return Page(
        heading=f"{done.scenario.name} · seed {done.scenario.load.seed}",
        about=done.scenario.about,
        again=shlex.join(["harness", *done.manifest["command"]]),
        verdict=result.verdict.value,
        why=result.why,
        targets=(),
        anomalies=_anomalies(result.anomalies),
        charts=(),
        shaded=(),
        measured_s=None,
        tables=(
            Table("Queries", "Expected by the SQL of the declaration, over Spark's own log of batches.", columns, rows),
        ),
    )


def _anomalies(found: Sequence[Anomaly], most: int = 100) -> Table | None:
    if not found:
        return None
    rows = tuple(
        (
            anomaly.kind,
            anomaly.query,
            "|".join(anomaly.key),
            anomaly.expected,
            anomaly.observed,
            anomaly.why,
            anomaly.batch,
        )
        for anomaly in found[:most]
    )
    columns = ("kind", "query", "row", "expected", "seen", "why", "batch")
    return Table("Anomalies", f"{len(found):,} in all, the first {len(rows):,} here.", columns, rows)


def new(name: str, folder: Path) -> Path:
    """Make a suite that runs: a job, its declaration, its SQL, and a scenario. Raises ScenarioError if it is there."""
    target = folder / name
    if target.exists():
        raise ScenarioError(f"{target}: exists already: choose another name")
    target.mkdir(parents=True)
    for source in sorted(STARTER.iterdir()):
        if source.is_file():
            (target / source.name.removesuffix(".txt")).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return target
