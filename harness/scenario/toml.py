"""Scenarios as TOML: read, overridden, written, and shown with what each field means.

An error names file, field, value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import ScenarioError
from harness.scenario.fields import Scenario
from harness.scenario.validate import contradictions


@dataclass(frozen=True, slots=True)
class Override:
    """A field that a flag sets: `text` is FIELD=VALUE, and `given` the words of the command line, for errors."""

    text: str
    given: str


def folder() -> Path:
    """The folder of the scenarios that come with the harness: in the wheel, or beside the package in a clone."""
    package = Path(__file__).parent.parent
    return next(path for path in (package / "scenarios", package.parent / "scenarios") if path.is_dir())


def names() -> list[str]:
    """The scenarios that come with the harness."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def load(name_or_path: str, overrides: Sequence[str | Override] = ()) -> Scenario:
    """Read a scenario by name or by path, with overrides such as ``load.eps=5000``; each must be right by itself.

    Raises ScenarioError that names the field, the value, what is allowed, and where the value comes from: the
    override (as the flag it was given by, for text ``--set``) if the scenario is right without it, else the file.
    """
    path = _locate(name_or_path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not TOML: {error}") from error
    table = {"name": path.stem} | table
    stages = _stages(table, str(path), overrides)
    scenario = parse(table, str(path))
    for problem in contradictions(scenario):
        raise ScenarioError(f"{_source(problem, stages, str(path))}: {problem}")
    return scenario


def _stages(table: dict[str, Any], path: str, overrides: Sequence[str | Override]) -> list[tuple[str, Scenario | None]]:
    """(source, scenario) of the file and after each override; None is one that cannot be read because of the file."""
    stages = [(path, _read_or_none(table, path))]
    for override in overrides:
        chosen = Override(override, f"--set {override}") if isinstance(override, str) else override
        _override(table, chosen)
        right_before = stages[-1][1] is not None
        read = parse(table, chosen.given) if right_before else _read_or_none(table, path)
        stages.append((chosen.given, read))
    return stages


def _read_or_none(table: Mapping[str, Any], path: str) -> Scenario | None:
    try:
        return parse(table, path)
    except ScenarioError:
        return None


def _source(problem: str, stages: Sequence[tuple[str, Scenario | None]], path: str) -> str:
    """Where a contradiction comes from: the first stage from which on it stays, the file or an override."""
    source = path
    for name, scenario in reversed(stages):
        if scenario is None or problem not in contradictions(scenario):
            break
        source = name
    return source


def parse(table: Mapping[str, Any], source: str) -> Scenario:
    """A scenario from a TOML table, whatever it asks for; `source` names it in errors of names, types and bounds."""
    return typing.cast(Scenario, _build(Scenario, table, source, ""))


def dump(scenario: Scenario) -> str:
    """The scenario as TOML that `parse` reads back to an equal one."""
    return "\n".join(_table_lines("", msgspec.to_builtins(scenario))).lstrip("\n") + "\n"


def described(scenario: Scenario) -> str:
    """The same, with what each field means and may be behind it, as a comment."""
    table, lines = "", []
    for line in dump(scenario).rstrip("\n").split("\n"):
        if line.startswith("["):
            table = line.strip("[]")
        name = line.partition(" = ")[0]
        doc = _meaning(table, name) if " = " in line else ""
        lines.append(f"{line:<30}  # {doc}" if doc else line)
    return "\n".join(lines) + "\n"


def _meaning(table: str, name: str) -> str:
    at: Any = Scenario
    for part in filter(None, table.split(".")):
        hint = typing.get_type_hints(at)[part]
        at = next((kind for kind in typing.get_args(hint) if dataclasses.is_dataclass(kind)), hint)
    bounds_of = next(item.metadata for item in dataclasses.fields(at) if item.name == name)
    choices = " | ".join(choice or '""' for choice in bounds_of.get("choices", ()))
    bounds = f"{_bound(bounds_of['min'])} to {_bound(bounds_of['max'])}" if "min" in bounds_of else ""
    return "; ".join(filter(None, (bounds_of.get("doc", ""), bounds, choices)))


def _table_lines(path: str, table: Mapping[str, Any]) -> list[str]:
    """A table's own values first, then the tables below it."""
    own = [f"{key} = {_toml(value)}" for key, value in table.items() if not _is_below(value) and value is not None]
    for key, value in table.items():
        if _is_below(value):
            name = _join(path, key)
            for item in (value,) if isinstance(value, dict) else value:
                own += ["", f"[{name}]" if isinstance(value, dict) else f"[[{name}]]", *_table_lines(name, item)]
    return own


def _is_below(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict))


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return msgspec.json.encode(value).decode()


def _locate(name_or_path: str) -> Path:
    path = Path(name_or_path)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # it may be a name
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{name_or_path}: cannot be looked at: {getattr(error, 'strerror', error)}") from error
    if path.is_dir() and name_or_path not in names():
        raise ScenarioError(f"{path}: a directory: name a scenario, or a file such as {path / 'scenario.toml'}")
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise ScenarioError(f"{path}: no such scenario file")
        return path
    known = names()
    if name_or_path not in known:
        raise ScenarioError(
            f"no scenario {name_or_path!r}{nearest(name_or_path, known)}; there are: {', '.join(known)}"
        )
    return folder() / f"{name_or_path}.toml"


def _override(table: dict[str, Any], override: Override) -> None:
    name, equals, text = override.text.partition("=")
    if not (equals and name):
        raise ScenarioError(f"{override.given}: expected FIELD=VALUE, such as load.eps=5000")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = name.split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ScenarioError(f"{override.given}: {part} is not a table")
    table[last] = value


def _build(cls: type[Any], table: Any, source: str, path: str) -> Any:
    if not isinstance(table, Mapping):
        raise ScenarioError(f"{source}: {path or 'the file'} must be a table, not {table!r}")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in table:
        if name not in fields:
            known = ", ".join(fields)
            raise ScenarioError(f"{source}: unknown field {_join(path, name)}{nearest(name, fields)}; allowed: {known}")
    built = {name: _value(hints[name], fields[name], value, source, _join(path, name)) for name, value in table.items()}
    return cls(**built)


def _value(hint: Any, item: dataclasses.Field[Any], value: Any, source: str, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, source, path)
    if (of := typing.get_args(hint)) and dataclasses.is_dataclass(of[0]):
        if not isinstance(value, list):
            raise ScenarioError(f"{source}: {path} must be tables [[{path}]], not {value!r}")
        return tuple(
            _build(typing.cast(type[Any], of[0]), item, source, f"{path}[{at}]") for at, item in enumerate(value)
        )
    try:
        converted = msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{source}: {path} = {value!r}: {error}") from error
    low, high = item.metadata.get("min"), item.metadata.get("max")
    if (low is not None and converted < low) or (high is not None and not converted <= high):
        raise ScenarioError(f"{source}: {path} = {value!r}: must lie between {_bound(low)} and {_bound(high)}")
    choices = item.metadata.get("choices")
    for choice in converted if isinstance(converted, tuple) else (converted,):
        if choices and choice not in choices:
            allowed = ", ".join(known or '""' for known in choices)
            raise ScenarioError(
                f"{source}: {path} = {value!r}: must be one of {allowed}{nearest(str(choice), choices)}"
            )
    return converted


def _bound(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """The known name that a misspelt one may have meant, as the end of a sentence; empty where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
