"""What a mutant is: one wrong pipeline, the rows that it would emit, and a sentence for a reader."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.job.clickstream.records import Click, Purchase, Rejected, fields, parse
from harness.job.lateness import Watermarks
from harness.model import Record

Made = TypeVar("Made")
Rows = Sequence[tuple[tuple[Any, ...], tuple[Any, ...]]]
"""Identity and measures of each row; a row that stands twice is there twice."""


@dataclass(frozen=True, slots=True)
class Item:
    """One record, its fields where it is a JSON object, its event by the contract, and the batch of each query that read it."""

    record: Record
    fields: Mapping[str, Any] | None
    event: Click | Purchase | Rejected
    batches: Mapping[str, int]

    def value(self, name: str) -> Any:
        """A field by its name in the record."""
        return (self.fields or {}).get(name)


@dataclass(frozen=True, slots=True)
class Given:
    """The inputs of the oracle: records in the order of their partitions, and the watermarks of each query's batches."""

    items: tuple[Item, ...]
    watermarks: Mapping[str, Watermarks]
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once for a key: mutants differ in one decision and share the rest.

        Whatever depends on the watermarks has them in its key.
        """
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


def given(records: Iterable[tuple[Record, Mapping[str, int]]], watermarks: Mapping[str, Watermarks]) -> Given:
    """Parse records, each with the batches that read it."""
    return Given(tuple(Item(record, _object(record), parse(record), at) for record, at in records), watermarks)


def _object(record: Record) -> Mapping[str, Any] | None:
    """The fields of a record that is a JSON object within the contract's bounds."""
    found = fields(record.value)
    return None if isinstance(found, Rejected) else found


@dataclass(frozen=True, slots=True)
class Mutant:
    """A pipeline that is wrong in one way.

    `query` is the query that goes wrong, or that shows it first. `sentence` completes "no event distinguishes …".
    `rows` gives, by query, the rows that the wrong pipeline emits; a query that it leaves out is as it must be.
    `equivalent` is the reason why no input can kill the mutant; None of one that some input kills.
    """

    name: str
    query: str
    sentence: str
    rows: Callable[[Given], Mapping[str, Rows]]
    equivalent: str | None = None
