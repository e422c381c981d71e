"""The highest rate that a pipeline carries: all judged targets hold, every row is right, the load was on schedule.

Doubling until a run misses something, bisection, then confirmation at the answer and at one step above it; at both the
majority of the runs decides, which is the median of their outcomes. Every run's directory is kept, and what was tried is
in capacity.json, from which a search that was broken off goes on.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from harness import scenario as scenarios
from harness.errors import RunError, ScenarioError
from harness.model import Result, Verdict
from harness.report import write_whole
from harness.scenario import Scenario

FILE = "capacity.json"
FLOOR = 1.1
"""The lowest rate that is tried, as a multiple of the throughput that the scenario demands: no target is seen below it."""
CEILING_EPS = 1_000_000.0
REPEATS = 3


class Outcome(Enum):
    """What a run at a rate came to."""

    HOLDS = "holds"
    MISSES = "misses"
    GENERATOR = "generator-limited"
    WRONG = "wrong rows"
    UNKNOWN = "unknown"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A run at a rate: `gave_way` are the targets that it missed, `figures` what the curve is made of."""

    eps: float
    outcome: Outcome
    why: str = ""
    gave_way: tuple[str, ...] = ()
    figures: dict[str, float | None] = {}
    directory: str = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a search is made: `within` 0.1 is an answer within 10 %."""

    start_eps: float = 5_000.0
    floor_eps: float = 1_100.0
    within: float = 0.1
    repeats: int = REPEATS


QUICK_WITHIN, QUICK_REPEATS = 0.25, 1
QUICK_S = 40.0
"""Seconds of warm-up, and of measured part, of a quick search's runs. In fewer, no session of the scenario `load` would
end in the measured part."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a search.

    `eps` is the highest rate at which most runs hold, None where no rate does. `spread` is (highest rate up to which
    every run held, lowest rate from which on none did); None is not seen. `limit` names what gave way one step above.
    """

    verdict: Verdict
    why: str
    eps: float | None = None
    spread: tuple[float | None, float | None] = (None, None)
    limit: str = ""


class _End(Exception):
    """A run after which no further one can help; the message is why."""

    def __init__(self, verdict: Verdict, why: str) -> None:
        super().__init__(why)
        self.verdict = verdict


@dataclass(slots=True)
class _Tried:
    """The runs until now, by rate; `attempt` makes one."""

    attempt: Callable[[float], Attempt]
    runs: dict[float, list[Attempt]] = field(default_factory=dict)

    def holds(self, eps: float, repeats: int = 1) -> bool:
        """Whether most runs at a rate hold, of `repeats` at least. Raises _End where one has wrong rows, or is unknown."""
        runs = self.runs.setdefault(eps, [])
        while len(runs) < repeats:
            run = self.attempt(eps)
            if run.outcome is Outcome.WRONG:
                raise _End(Verdict.FAIL, f"wrong rows at {eps:,.0f} events/s: {run.why}; see {run.directory}")
            if run.outcome is Outcome.UNKNOWN:
                raise _End(Verdict.UNKNOWN, f"nothing is known at {eps:,.0f} events/s: {run.why}; see {run.directory}")
            runs.append(run)
        return sum(run.outcome is Outcome.HOLDS for run in runs) * 2 > len(runs)

    def spread(self) -> tuple[float | None, float | None]:
        """(highest rate up to which every run held, lowest rate from which on none did)."""
        shares = {
            eps: sum(run.outcome is Outcome.HOLDS for run in runs) / len(runs)
            for eps, runs in sorted(self.runs.items())
            if runs
        }
        missed = min((eps for eps, share in shares.items() if share < 1), default=math.inf)
        held = max((eps for eps, share in shares.items() if share > 0), default=0.0)
        return (
            max((eps for eps in shares if eps < missed), default=None),
            min((eps for eps in shares if eps > held), default=None),
        )

    def limit(self, eps: float) -> str:
        """What gave way at a rate: the load generator, or the targets that most runs missed."""
        missed = [run for run in self.runs[eps] if run.outcome is not Outcome.HOLDS]
        if sum(run.outcome is Outcome.GENERATOR for run in missed) * 2 > len(missed):
            return Outcome.GENERATOR.value
        names = Counter(name for run in missed for name in run.gave_way)
        return ", ".join(name for name, number in names.most_common() if number * 2 >= len(missed)) or "not named"


def rounded(eps: float) -> float:
    """A rate to three significant digits."""
    return float(f"{eps:.3g}")


def search(attempt: Callable[[float], Attempt], settings: Settings) -> Answer:
    """Find the highest rate at which most runs hold; `attempt` makes a run at a rate."""
    tried = _Tried(attempt)
    try:
        found = _confirmed(tried, settings, *_bracket(tried, settings))
    except _End as end:
        return Answer(end.verdict, str(end), spread=tried.spread())
    low, high = found
    if low is None:
        return Answer(
            Verdict.FAIL,
            f"no rate holds from {settings.floor_eps:,.0f} events/s on",
            None,
            tried.spread(),
            tried.limit(high or 0),
        )
    if high is None:
        return Answer(Verdict.UNKNOWN, f"all rates up to {low:,.0f} events/s hold", low, tried.spread())
    limit = tried.limit(high)
    above = f"{low:,.0f} events/s hold; at {high:,.0f} "
    if limit == Outcome.GENERATOR.value:
        why = f"{above}the load engine was the limit: {limit}, the pipeline may carry more"
        return Answer(Verdict.UNKNOWN, why, low, tried.spread(), limit)
    return Answer(Verdict.PASS, f"{above}what gives way: {limit}", low, tried.spread(), limit)


Bracket = tuple[float | None, float | None]
"""(highest rate that holds, lowest rate above it that does not); None where there is none."""


def _bracket(tried: _Tried, settings: Settings) -> Bracket:
    """By doubling, or halving where the first rate misses already, then by bisection in ratios."""
    low: float | None = None
    high: float | None = None
    eps = rounded(settings.start_eps)
    while low is None or high is None:
        if tried.holds(eps):
            low, eps = eps, min(CEILING_EPS, rounded(eps * 2))
            if low == CEILING_EPS:
                return low, None
        else:
            high, below = eps, max(settings.floor_eps, rounded(eps / 2))
            if low is None and below == eps:
                return None, high
            eps = below
    while high / low > 1 + settings.within:
        middle = rounded(math.sqrt(low * high))
        if not low < middle < high:
            break
        low, high = (middle, high) if tried.holds(middle) else (low, middle)
    return low, high


def _confirmed(tried: _Tried, settings: Settings, low: float | None, high: float | None) -> Bracket:
    """Move the bracket until most of `repeats` runs hold at its low end, and most miss at its high end.

    It ends: once most runs hold at the low end it only moves up, and once most miss at the high end only down.
    """
    while low is not None and high is not None:
        if not tried.holds(low, settings.repeats):
            low, high = _below(tried, settings, low), low
        elif tried.holds(high, settings.repeats):
            low, high = high, _above(settings, high)
        else:
            return low, high
    return low, high


def _below(tried: _Tried, settings: Settings, eps: float) -> float | None:
    """The next rate to look at below one that misses: one that has held, if it is a step away, else a step down."""
    step = rounded(eps / (1 + settings.within))
    known = [rate for rate, runs in tried.runs.items() if step <= rate < eps and runs]
    below = max([*known, step])
    return below if below >= settings.floor_eps else None


def _above(settings: Settings, eps: float) -> float | None:
    above = rounded(eps * (1 + settings.within))
    return above if above <= CEILING_EPS else None


def attempted(eps: float, result: Result, directory: Path) -> Attempt:
    """A run's result as an attempt."""
    missed = tuple(target.name for target in result.targets if target.judged and target.verdict is Verdict.FAIL)
    values = {target.name: target.value for target in result.targets}
    figures = result.figures
    delay = figures.get("generator_delay_ms")
    curve = {
        **values,
        "throughput_eps": figures.get("throughput_eps"),
        "lag_records_max": figures.get("lag_records_max"),
        "machine_cpu_share": figures.get("machine_cpu_share"),
        "generator_delay_ms_p99": delay["p99"] if delay else None,
    }
    return Attempt(
        eps=eps,
        outcome=_outcome(result),
        why=result.why,
        gave_way=missed or ("pipeline",),
        figures=curve,
        directory=str(directory),
    )


def _outcome(result: Result) -> Outcome:
    if result.anomalies:
        return Outcome.WRONG
    if result.verdict is Verdict.PASS:
        return Outcome.HOLDS
    if result.verdict is Verdict.FAIL:
        return Outcome.MISSES
    return Outcome.GENERATOR if Outcome.GENERATOR.value in result.why else Outcome.UNKNOWN


class _File(msgspec.Struct, kw_only=True):
    """capacity.json while a search goes on."""

    settings: Settings
    attempts: list[Attempt] = []


class Capacity:
    """A search in a folder of its own: scenario.toml, capacity.json, and below it the run of each step."""

    def __init__(self, folder: Path, scenario: Scenario, file: _File) -> None:
        self.folder, self.scenario, self._file = folder, scenario, file

    @classmethod
    def begin(cls, folder: Path, scenario: Scenario, settings: Settings) -> Capacity:
        """A new search in an empty folder."""
        (folder / "scenario.toml").write_text(scenarios.dump(scenario), encoding="utf-8")
        capacity = cls(folder, scenario, _File(settings=settings))
        capacity._write({})
        return capacity

    @classmethod
    def resume(cls, folder: Path) -> Capacity:
        """A search that was broken off. ScenarioError where the folder has none, RunError where its file is damaged."""
        path = folder / FILE
        if not path.is_file():
            raise ScenarioError(f"{folder}: no {FILE}: not the folder of `harness capacity`")
        try:
            file = msgspec.json.decode(path.read_bytes(), type=_File)
        except msgspec.DecodeError as error:
            raise RunError(f"{path}: damaged: {error}") from error
        return cls(folder, scenarios.load(str(folder / "scenario.toml")), file)

    def search(self, run: Callable[[Scenario, Path], tuple[Result, Path]]) -> Answer:
        """Search, with the runs that are there already; `run` runs and judges a scenario below a folder."""
        waiting: dict[float, list[Attempt]] = {}
        for done in self._file.attempts:
            waiting.setdefault(done.eps, []).append(done)

        def attempt(eps: float) -> Attempt:
            if waiting.get(eps):
                return waiting[eps].pop(0)
            load = replace(self.scenario.load, eps=eps)
            fresh = attempted(eps, *run(replace(self.scenario, load=load), self.folder))
            if fresh.outcome is not Outcome.UNKNOWN:  # which a search that goes on tries again
                self._file.attempts.append(fresh)
                self._write({})
            return fresh

        answer = search(attempt, self._file.settings)
        self._write(summary(answer, self._file.attempts))
        return answer

    def as_json(self) -> dict[str, Any]:
        """capacity.json as it is now."""
        found: dict[str, Any] = json.loads((self.folder / FILE).read_bytes())
        return found

    def curve(self) -> list[dict[str, Any]]:
        """A row a rate, ascending; see `curve`."""
        return curve(self._file.attempts)

    def _write(self, more: Mapping[str, Any]) -> None:
        content = {"scenario": self.scenario.name, **more, **msgspec.to_builtins(self._file)}
        write_whole(self.folder / FILE, json.dumps(content, indent=1))


def summary(answer: Answer, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The answer and the curve, with stable keys; rates in events/s."""
    return {
        "verdict": answer.verdict.value,
        "why": answer.why,
        "capacity_eps": answer.eps,
        "spread_eps": list(answer.spread),
        "limit": answer.limit,
        "curve": curve(attempts),
    }


def curve(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """A row a rate: runs, how many hold, what gave way, and of each figure median, least and most over the runs."""
    rows = []
    for eps in sorted({attempt.eps for attempt in attempts}):
        runs = [attempt for attempt in attempts if attempt.eps == eps]
        missed = [run for run in runs if run.outcome is not Outcome.HOLDS]
        limits = {
            name for run in missed for name in (run.gave_way if run.outcome is Outcome.MISSES else (run.outcome.value,))
        }
        figures = {name: _spread([run.figures.get(name) for run in runs]) for name in runs[0].figures}
        row = {"eps": eps, "runs": len(runs), "hold": len(runs) - len(missed), "gave_way": sorted(limits)}
        rows.append(row | {"figures": figures, "directories": [run.directory for run in runs]})
    return rows


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return {"median": statistics.median(known), "min": min(known), "max": max(known)} if known else None


def prepared(scenario: Scenario, start_eps: float, *, quick: bool) -> tuple[Scenario, Settings]:
    """A scenario and the settings for a search from a rate. ScenarioError where its load cannot be varied."""
    if scenario.fault or scenario.load.burst_s:
        raise ScenarioError(
            f"{scenario.name}: capacity is searched without faults and bursts, which are placed by event"
        )
    floor = rounded(FLOOR * scenario.limits.throughput_eps)
    if start_eps < floor:
        raise ScenarioError(
            f"--from {start_eps:g}: below {floor:g}, where the throughput target cannot be seen to hold"
        )
    if not quick:
        return scenario, Settings(start_eps=start_eps, floor_eps=floor)
    shorter = replace(scenario.load, warm_up_s=QUICK_S, duration_s=QUICK_S)
    settings = Settings(start_eps=start_eps, floor_eps=floor, within=QUICK_WITHIN, repeats=QUICK_REPEATS)
    return replace(scenario, load=shorter), settings
