"""A scenario of a declared job: the load, the shape of its records, the brokers and the faults, for a `job.toml`.

It is a file with `job = "job.toml"`. The tables `[load]`, `[kafka]` and `[[fault]]` are those of every scenario;
`[workload]` is the declared job's, for any topic.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from harness.errors import ScenarioError
from harness.faults import CRASH_POINTS, Fault, parts
from harness.job import declared
from harness.job.declared import Job
from harness.job.draws import Workload
from harness.scenario.fields import Kafka, Load
from harness.scenario.toml import Override, _build, _override, _table_lines, nearest

FAULTS = ("stop", "kill", "pause", "crash")
"""Kinds of faults that a declared job is tested under."""
TARGETS = (parts.PIPELINE, *parts.ONE_BROKER)
UNUSED = (
    *("burst_factor", "burst_at_s", "burst_s", "silence_s", "cool_down_s", "acks"),
    *("engine", "workers", "master", "web"),
)
"""Fields of `[load]` that a declared job has no use for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnScenario:
    """One run of a declared job, described in full; `job` is the path of its declaration, and `declaration` what it holds."""

    name: str
    job: Path
    declaration: Job
    about: str = ""
    load: Load = field(default_factory=Load)
    workload: Workload = field(default_factory=Workload)
    kafka: Kafka = field(default_factory=Kafka)
    fault: tuple[Fault, ...] = ()


def is_own(table: Mapping[str, Any]) -> bool:
    """Whether a TOML table is a scenario of a declared job."""
    return "job" in table


def find(name_or_path: str) -> Path | None:
    """The file, if the argument names the scenario of a declared job; None if it is anything else."""
    path = Path(name_or_path)
    try:
        return path if path.is_file() and is_own(tomllib.loads(path.read_text(encoding="utf-8"))) else None
    except (OSError, ValueError):
        return None


def load(path: Path, overrides: Sequence[Override] = ()) -> OwnScenario:
    """Read a scenario and its job. Raises ScenarioError that names file, field, value, and what is allowed."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    for override in overrides:
        _override(table, override)
    known = [item.name for item in dataclasses.fields(OwnScenario) if item.name != "declaration"]
    for name in table:
        if name not in known:
            raise ScenarioError(f"{path}: unknown field {name}{nearest(name, known)}; allowed: {', '.join(known)}")
    if not isinstance(table.get("job"), str):
        raise ScenarioError(f"{path}: job must be the path of a job.toml, not {table.get('job')!r}")
    declaration = path.parent / table["job"]
    scenario = OwnScenario(
        name=str(table.get("name", path.stem)),
        about=str(table.get("about", "")),
        job=declaration.absolute(),
        declaration=declared.load(declaration),
        load=cast(Load, _build(Load, table.get("load", {}), str(path), "load")),
        workload=_workload(table.get("workload", {}), path),
        kafka=cast(Kafka, _build(Kafka, table.get("kafka", {}), str(path), "kafka")),
        fault=tuple(_fault(item, path, f"fault[{at}]") for at, item in enumerate(table.get("fault", ()))),
    )
    for problem in _problems(scenario, table):
        raise ScenarioError(f"{path}: {problem}")
    return scenario


def dump(scenario: OwnScenario, job: str) -> str:
    """The scenario as TOML that `load` reads back; `job` is the path of the declaration, relative to the file."""
    table = {
        "name": scenario.name,
        "about": scenario.about,
        "job": job,
        "load": {name: value for name, value in msgspec.to_builtins(scenario.load).items() if name not in UNUSED},
        "workload": msgspec.to_builtins(scenario.workload),
        "kafka": msgspec.to_builtins(scenario.kafka),
        "fault": [msgspec.to_builtins(fault) for fault in scenario.fault],
    }
    return "\n".join(_table_lines("", table)).lstrip("\n") + "\n"


def _workload(table: Any, path: Path) -> Workload:
    try:
        return msgspec.convert(table, Workload, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise ScenarioError(f"{path}: workload{where.rstrip('`')}: {what}") from error


def _fault(table: Any, path: Path, where: str) -> Fault:
    """A fault; its `query` is one of the job's, which `Fault` does not know."""
    if not isinstance(table, Mapping):
        raise ScenarioError(f"{path}: {where} must be a table, not {table!r}")
    query = table.get("query", "")
    built = cast(
        Fault, _build(Fault, {name: value for name, value in table.items() if name != "query"}, str(path), where)
    )
    return dataclasses.replace(built, query=query)


def _problems(scenario: OwnScenario, table: Mapping[str, Any]) -> Iterator[str]:
    for name in UNUSED:
        if name in table.get("load", {}):
            yield f"load.{name}: a declared job's load has none"
    try:
        declared.duration_ms(scenario.workload.edge)
    except ValueError as error:
        yield f"workload.edge: {error}"
    if scenario.workload.late + scenario.workload.too_late > 1:
        yield "workload.late and workload.too_late: together more than 1"
    queries = [query.name for query in scenario.declaration.queries]
    for at, fault in enumerate(scenario.fault):
        if fault.kind not in FAULTS:
            yield f"fault[{at}].kind = {fault.kind!r}: a declared job is tested under {', '.join(FAULTS)}"
        if fault.on not in TARGETS:
            yield f"fault[{at}].on = {fault.on!r}: must be one of {', '.join(TARGETS)}"
        if fault.kind == "crash" and fault.query not in queries:
            yield f"fault[{at}].query = {fault.query!r}: no such query; there are: {', '.join(queries)}"
        if fault.kind == "crash" and fault.point not in CRASH_POINTS:
            yield f"fault[{at}].point = {fault.point!r}: must be one of {', '.join(CRASH_POINTS)}"
        if fault.at >= scenario.load.events:
            yield f"fault[{at}].at = {fault.at}: the load has {scenario.load.events} events"
