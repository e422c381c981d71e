"""The JSON Schema of a scenario file, for editors: types, bounds, choices and the meaning of every field."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from harness.scenario.fields import Scenario

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean"}


def schema() -> dict[str, Any]:
    """A schema of draft 2020-12 that takes every file that `parse` takes, and refuses unknown names, types and bounds.

    What takes more than one field to know, as a fault behind the end of the load, is refused by `load` alone.
    """
    own = _table(Scenario)
    own["required"] = [name for name in own["required"] if name != "name"]  # a file's own name is the default
    return {"$schema": DIALECT, "title": "A scenario of the streaming harness"} | own


def _table(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    required = [
        item.name
        for item in fields
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip().partition("\n")[0],
        "properties": {item.name: _field(hints[item.name], item) for item in fields},
        "required": required,
        "additionalProperties": False,
    }


def _field(hint: Any, item: dataclasses.Field[Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(hint):
        return _table(typing.cast(type[Any], hint))
    of = typing.get_args(hint)
    if of and dataclasses.is_dataclass(of[0]):
        return _described(item) | {"type": "array", "items": _table(typing.cast(type[Any], of[0]))}
    value = {"type": TYPES[of[0] if of else hint]} | _bounds(item)
    found = _described(item) | ({"type": "array", "items": value} if of else value)
    if item.default is not dataclasses.MISSING:
        found["default"] = list(item.default) if of else item.default
    return found


def _described(item: dataclasses.Field[Any]) -> dict[str, Any]:
    return {"description": item.metadata["doc"]} if "doc" in item.metadata else {}


def _bounds(item: dataclasses.Field[Any]) -> dict[str, Any]:
    names = {"min": "minimum", "max": "maximum", "choices": "enum"}
    found = {key: item.metadata[name] for name, key in names.items() if name in item.metadata}
    if "enum" in found:
        found["enum"] = list(found["enum"])
    return found
