"""The nouns of the harness, frozen. Verbs are functions elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One input record as the broker acknowledged it: where it lies, and its bytes."""

    topic: str
    partition: int
    offset: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One result row as it was seen.

    `key` holds the identity columns of the query and `values` its measures, both in the order of
    the contract. Times are ISO 8601 in UTC with milliseconds, decimals are `Decimal`.
    `where` is ``topic-partition@offset`` or ``file#row``; `at_s` the epoch second of its appearance
    (LogAppendTime, or the time at which the sink's log named its file). `wrong_key` is the key of the Kafka
    record where that is not, as promised, the row's identity.
    """

    key: tuple[Any, ...]
    values: tuple[Any, ...]
    where: str
    at_s: float
    wrong_key: str | None = None


@dataclass(frozen=True, slots=True)
class Between:
    """A value that is not determined: anything from `low` to `high`, both included; None is no bound."""

    low: Any = None
    high: Any = None

    def holds(self, value: Any) -> bool:
        """Whether a value lies inside; what is no number lies inside only where there is no bound."""
        if self.low is None and self.high is None:
            return True
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return False
        return not number.is_nan() and Decimal(str(self.low)) <= number <= Decimal(str(self.high))

    def __str__(self) -> str:
        return "anything" if self.low is None else f"{self.low} to {self.high}"


Moment = tuple[str, bool]
"""When an event was, in ISO 8601, and whether it must be in a row."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One way in which the output breaks the guarantee, with what was expected and what was seen.

    `why` is what is known of the row, in sentences; `events` and `near` are the evidence: the events that decide (where,
    event time, batch, content), and the nearest rows that did come out. `cause` is equal for anomalies with one cause,
    empty where none is known.
    """

    kind: str
    query: str
    key: tuple[Any, ...]
    expected: str
    observed: str
    why: str
    batch: int | None = None
    events: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    cause: str = ""


class Verdict(Enum):
    """The verdict on a run: right and fast enough, not so, or not known."""

    PASS = "pass"
    UNKNOWN = "unknown"
    FAIL = "fail"

    @property
    def exit_code(self) -> int:
        """0, 1 and 3; 2 is bad usage (measuring.md)."""
        return {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNKNOWN: 3}[self]

    @classmethod
    def worst(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """Fail outranks unknown outranks pass; nothing judged is unknown."""
        order = [cls.PASS, cls.UNKNOWN, cls.FAIL]
        return max(verdicts, key=order.index, default=cls.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Target:
    """A figure held against its limit: `value` must stay below it, or above where `at_least`.

    One that is not `judged` is measured and shown, and the verdict of the run does not depend on it. `why` is the reason
    where it is unknown, or where it is missed though its value is within its limit.
    """

    name: str
    value: float | None
    limit: float
    unit: str
    verdict: Verdict
    at_least: bool = False
    judged: bool = True
    why: str = ""

    def is_met(self, value: float) -> bool:
        """Whether a value is within the limit; a share of 1 meets a limit of 1."""
        if self.at_least:
            return value > self.limit or value == self.limit == 1
        return value < self.limit

    @property
    def headroom(self) -> float | None:
        """The share of the limit that is left (0.6 = 60 % below a maximum, or above a minimum); negative is missed.

        None where nothing was measured, and of a limit of 0, which has no share.
        """
        if self.value is None or not self.limit:
            return None
        room = self.value - self.limit if self.at_least else self.limit - self.value
        return room / self.limit


@dataclass(frozen=True, slots=True)
class Crash:
    """A part of the judgement that crashed, the error in a line, and its trace."""

    part: str
    error: str
    trace: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to; `as_json` of harness.verdict gives the stable keys of measuring.md."""

    verdict: Verdict
    why: str
    targets: tuple[Target, ...]
    figures: Mapping[str, Any]
    counts: Mapping[str, int | None]
    anomalies: tuple[Anomaly, ...]
    faults: tuple[Mapping[str, Any], ...] = ()
    crashes: tuple[Crash, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Path in result.json, such as ``figures.lag_slope_eps``, → why its value is null."""
