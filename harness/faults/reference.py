"""docs/reference/faults.md, from the records of the kinds: ``python -m harness.faults.reference docs/reference/faults.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.faults import CRASH_POINTS, KINDS, Fault, FaultKind, Need, parts

HEAD = """# Kinds of faults

Written by `python -m harness.faults.reference docs/reference/faults.md`, from the `FaultKind` records in `harness/faults`.

Each fault is a table `[[fault]]` of a scenario; `harness show kill` prints its fields with their bounds. A fault whose effect or
healing is not observed makes the run unknown.
"""
HURTS = {"target": "its target", "brokers": "all brokers", "nobody": "nothing"}


def page() -> str:
    """The page, in Markdown."""
    index = [f"| [`{kind.name}`](#{kind.name}) | {kind.about} |" for kind in KINDS.values()]
    table = ["| kind | what happens |", "|---|---|", *index]
    return "\n".join((HEAD, *table, *(line for kind in KINDS.values() for line in _section(kind)))) + "\n"


def _section(kind: FaultKind) -> Iterator[str]:
    yield from ("", f"## {kind.name}", "", kind.about, "")
    yield f"* Effect that must be observed: {kind.effect}"
    yield f"* Healing that must be observed: {kind.heals}"
    yield f"* `on`: {_targets(kind.targets)}"
    if kind.fields:
        yield f"* Fields: {_code(kind.fields)}"
    yield from (f"* Needs {need.value}" for need in kind.needs)
    yield from _conditional(kind)
    yield f"* May be down meanwhile: {HURTS[kind.hurts]}"
    if kind.reads_through:
        yield "* The pipeline goes on reading meanwhile"
    if kind.any_acks:
        yield '* May be used with `load.acks = "leader"`'
    if kind.standby:
        yield "* A hot standby may take over (`pipeline.standby`)"
    yield f"* In the drill matrix: {', '.join(kind.drills) or 'no cell'}"


def _targets(targets: Sequence[str]) -> str:
    default = " (the default)" if parts.PIPELINE in targets else ""
    return _code(targets).replace(f"`{parts.PIPELINE}`", f"`{parts.PIPELINE}`{default}")


def _conditional(kind: FaultKind) -> Iterator[str]:
    """The needs that depend on a field of the fault."""
    values = {"on": kind.targets, "point": CRASH_POINTS if "point" in kind.fields else ()}
    for name, choices in values.items():
        by_need: dict[Need, list[str]] = {}
        for value in choices:
            fields: dict[str, Any] = {"on": kind.targets[0], name: value}
            fault = Fault(kind=kind.name, **fields)
            for need in fault.needs[len(kind.needs) :]:
                by_need.setdefault(need, []).append(value)
        for need, having in by_need.items():
            always = len(having) == len(choices)
            yield f"* {'Needs' if always else f'With `{name}` = {_code(having)}: needs'} {need.value}"


def _code(names: Sequence[str]) -> str:
    """Names in code; the brokers by number are one."""
    unique = dict.fromkeys("broker N" if name.startswith("broker ") else name for name in names)
    return ", ".join(f"`{name}`" for name in unique)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
