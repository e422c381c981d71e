"""What happened: the run directory, and nothing that was concluded from it.

    scenario.toml   as run, overrides in           manifest.json   versions, machine, command
    history.jsonl   one line an event, in order of time (harness/rundir/events.py)
    sent.parquet    one row an event: n, topic, partition, offset, due, sent, acknowledged, event time
    outputs/        <query>.parquet, one row a result: values, where, at_s
    checkpoints/    <query>/offsets/N and <query>/commits/N as the pipeline wrote them
    logs/           of every process

Format 2; format 1 is read too. The manifest has the format of the events too, since their bytes are made again from the
seed. Right of this directory everything is a pure function of these files.
"""

from __future__ import annotations

import errno
import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from harness import scenario as scenarios
from harness.errors import NoRun, RunError, ScenarioError
from harness.job.clickstream.events import FORMAT as EVENTS_FORMAT
from harness.model import Row
from harness.rundir import events, files, format1
from harness.rundir.events import Event, Written
from harness.rundir.events import Recorder as Recorder
from harness.rundir.events import recording as recording
from harness.scenario import Scenario

FORMAT = 2
"""The format that is written; `READ` are those that are read."""
READ = (1, FORMAT)
OfType = TypeVar("OfType", bound=Written)
SENT = {
    **dict.fromkeys(("n", "partition", "offset", "due_us", "sent_us", "acked_us", "event_time_ms", "malformed"), "iu"),
    "topic": "O",
    "copy": "b",
    "flush": "b",
}
"""The columns of sent.parquet and numpy's kinds of them. Times ending in _us are epoch µs, 0 for never, and in _ms epoch
ms; an offset is −1 until it is acknowledged; malformed is 0 for an event that the contract takes."""
ROWS = ("key", "values", "where", "at_s", "wrong_key")
"""The columns of outputs/<query>.parquet: identity and measures as JSON arrays, and the rest of `Row`."""


def write_rows(directory: Path, query: str, rows: list[Row]) -> None:
    """Write the result rows of a query to outputs/<query>.parquet; keys and values as JSON text, exact."""
    target = directory / "outputs" / f"{query}.parquet"
    target.parent.mkdir(exist_ok=True)
    table = pa.table(
        {
            "key": pa.array([encode(row.key) for row in rows], pa.string()),
            "values": pa.array([encode(row.values) for row in rows], pa.string()),
            "where": pa.array([row.where for row in rows], pa.string()),
            "at_s": pa.array([row.at_s for row in rows], pa.float64()),
            "wrong_key": pa.array([row.wrong_key for row in rows], pa.string()),
        }
    )
    fresh = target.with_suffix(".fresh")
    pq.write_table(table, fresh, compression="zstd")
    fresh.replace(target)


def encode(columns: tuple[Any, ...]) -> str:
    """Columns as JSON text; decimals keep their digits, as strings with their scale."""
    return msgspec.json.encode(columns).decode()


class _Manifest(TypedDict):
    """What is made use of in manifest.json."""

    topic_prefix: str
    command: list[str]
    started_s: float
    cores: int
    memory_bytes: int
    machine: str
    python: str
    git: str | None
    versions: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory, read."""

    directory: Path
    scenario: Scenario
    manifest: dict[str, Any]
    events: tuple[Event, ...]

    def of(self, kind: type[OfType]) -> list[OfType]:
        """The events of one type, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def sent(self) -> dict[str, Any]:
        """sent.parquet as numpy columns of `SENT`; topics as an object array, a million times the same two objects."""
        path = self.directory / "sent.parquet"
        if not path.is_file():
            raise RunError(f"{path}: missing: the run ended before its load did; run it again")
        file = files.parquet(path, SENT, read_dictionary=["topic"])
        with files.decoding(path):
            columns = {name: _numpy(file.read([name]).column(0)) for name in SENT}
        if odd := [name for name, kinds in SENT.items() if columns[name].dtype.kind not in kinds]:
            raise RunError(f"{path}: damaged: column {odd[0]} is of type {file.schema_arrow.field(odd[0]).type}")
        if not len(columns["n"]):
            raise RunError(f"{path}: no event was sent: there is nothing to judge")
        return columns

    def rows(self, query: str) -> list[tuple[str, str, str, float, str | None]]:
        """The result rows of a query as (key, values, where, at_s, wrong_key), key and values encoded."""
        path = self.directory / "outputs" / f"{query}.parquet"
        if not path.is_file():
            raise RunError(f"{path}: missing: the run ended before its results were collected; run it again")
        file = files.parquet(path, ROWS)
        with files.decoding(path):
            table = file.read(list(ROWS)).to_pydict()
        return list(zip(*(table[name] for name in ROWS), strict=True))


def read(directory: Path) -> Run:
    """Read a run directory. Raises NoRun if it is none, else RunError that names the file that is missing or damaged."""
    if not is_run(directory):
        raise NoRun(f"{directory}: {'not a run directory' if os.path.isdir(directory) else 'no such directory'}")
    manifest = _manifest(directory)
    scenario = _with_events_of(_scenario(directory / "scenario.toml"), manifest.get("events_format", 1), directory)
    return Run(directory, scenario, manifest, _events(directory / "history.jsonl", scenario, manifest["format"]))


def is_run(directory: Path) -> bool:
    """Whether a path is a run directory, even if its manifest or its history is gone. RunError if that cannot be seen."""
    try:
        return any((directory / name).is_file() for name in ("manifest.json", "history.jsonl"))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise RunError(f"{directory}: cannot be read: {error.strerror}") from error


def _events(path: Path, scenario: Scenario, written: int) -> tuple[Event, ...]:
    """The history in its format."""
    decoded = format1.Reader(scenario).decode if written == 1 else events.decode
    found = tuple(events.read(path, files.lines(path), decoded))
    if found[:1] and found[0] in found[1:]:
        raise RunError(f"{path}: damaged: its first event is there twice")
    return found


def _manifest(directory: Path) -> dict[str, Any]:
    path = directory / "manifest.json"
    text = files.text(path)
    try:
        manifest = msgspec.json.decode(text, type=dict[str, Any])
        if manifest.get("format") not in READ:
            raise RunError(
                f"{directory}: format {manifest.get('format')!r}, this harness reads {FORMAT}; use the version that wrote it"
            )
        msgspec.convert(manifest, _Manifest)
    except msgspec.ValidationError as error:
        raise RunError(f"{path}: not the manifest of a run: {error}") from error
    except msgspec.DecodeError as error:
        raise RunError(f"{path}: not JSON: {error}") from error
    return manifest


def _scenario(path: Path) -> Scenario:
    """As it was run. One that this harness would not run is no bad usage here: it lies in a run directory."""
    try:
        table = tomllib.loads(files.text(path))
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path}: not TOML: {error}") from error
    if "name" not in table:
        raise RunError(f"{path}: not the scenario of a run: it has no name")
    try:
        return scenarios.parse(table, str(path))
    except ScenarioError as error:
        raise RunError(str(error)) from error


def _with_events_of(scenario: Scenario, written: object, directory: Path) -> Scenario:
    """The scenario with the events that it had when it was run: those of format 1 had none that are awkward."""
    if written not in (1, EVENTS_FORMAT):
        raise RunError(
            f"{directory}: events of format {written!r}, this harness makes {EVENTS_FORMAT}; use the version that wrote it"
        )
    return scenario if written != 1 else replace(scenario, workload=replace(scenario.workload, awkward=0))


def _numpy(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column as numpy; equal texts are one object, so that millions of them cost a pointer each."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(column.to_numpy())
    column = column.unify_dictionaries()
    texts = np.array(column.chunk(0).dictionary.to_pylist() if column.num_chunks else [], dtype=object)
    codes = [chunk.indices.to_numpy() for chunk in column.chunks]
    return np.asarray(texts[np.concatenate(codes)] if codes else texts)
