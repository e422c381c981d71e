"""Drills: many faults, each at many places, on one page.

A drill is a table of cells, a fault in a state of the stream. Some cells of a state share a run: its faults
are injected one after the other, each once the one before has healed and the pipeline has caught up (in the state of
catching up: before it has), and the load goes on until the last has healed. What a cell shows
is its fault's own figures and its run's verdict: a run that fails fails all of its cells, since a wrong row
cannot be blamed on one fault without proof.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from harness import scenario as scenarios
from harness.errors import HarnessError, ScenarioError
from harness.faults import CRASH_POINTS as POINTS
from harness.faults import KINDS, Fault
from harness.job.clickstream.contract import QUERIES, first
from harness.job.clickstream.events import Workload
from harness.judge import coverage
from harness.judge.assessment import Assessment
from harness.model import Verdict
from harness.report import render_drill, write_whole
from harness.rundir.events import FaultHealed
from harness.scenario import Kafka, Load, Pipeline, Scenario

WARM_UP_S = 15.0
APART_S = 2.0
"""Seconds of load that are read between the healing of a fault and the next injection: a batch or two."""
MOST_S = 120.0
"""Seconds that a fault may take from its turn until it has healed; a run that takes longer is not stretched further."""
JUDGED = ("state_size", "success")
"""Right or wrong is the question of a drill, not how fast."""
AT_RANDOM = 12
"""Faults of a random run, before a crash at a point of a micro-batch."""
PER_RUN = 11
"""Cells that share a run at most, and its verdict."""


@dataclass(frozen=True, slots=True)
class State:
    """The stream while faults are injected."""

    about: str
    eps: float = 600.0
    limit: int = 0
    """Most records of a topic that a batch of the pipeline takes; 0 is all."""
    clickstream_share: float = 0.8
    late: float = 0.02
    too_late: float = 0.0
    backlog_s: float = 0.0
    before: Fault | None = None
    """A fault before each fault, which is injected as soon as the first has healed."""


UNLIMITED = Fault(kind="change", flags=("--max-offsets-per-trigger", "1000000000"))
"""Ends a run in which the pipeline was kept behind: all that is unread is then read at once."""
REPLAYING = "replaying"
STATES: Mapping[str, State] = {
    "warm-up": State("just started, while Java compiles", before=Fault(kind="stop", on="pipeline")),
    "idle": State("a few events a second", eps=20),
    "loaded": State("600 events a second, windows closing in every batch"),
    "late": State("events behind the watermark in every batch", late=0.05, too_late=0.03),
    "catching-up": State(
        "a backlog of more than a batch, read at a limited rate",
        eps=500,
        # As many of each topic as come in the time of a batch: no query catches up before the limit is lifted.
        clickstream_share=0.5,
        limit=400,
        backlog_s=40,
    ),
    REPLAYING: State(
        "right after a crash whose batch is being replayed",
        before=Fault(kind="crash", point="after sink", query=first(lambda query: query.stateful)),
    ),
}
CRASH_POINTS = "crash-points"
CRASH_STATES = ("idle", "loaded", "late", "catching-up")
MATRIX_STATES = ("warm-up", "loaded", "late", "catching-up", REPLAYING)
# Row of the matrix → its fault: the cells of each kind.
FAULTS: Mapping[str, Fault] = {name: fault for kind in KINDS.values() for name, fault in kind.cells().items()}


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault in one state: what became of it. `figures` has the keys of a fault in result.json."""

    fault: str
    state: str
    verdict: Verdict
    why: str
    run: str
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A run of a drill, and the name of the cell that each of its faults is for; None is for none."""

    state: str
    scenario: Scenario
    cells: tuple[str | None, ...]


def crash_points(points: Sequence[str], queries: Sequence[str], states: Sequence[str]) -> list[Plan]:
    """Every point of every query in every state; there is no state of a query that keeps none."""
    faults = {
        f"{query} {point}": Fault(kind="crash", point=point, query=query)
        for query in _known(queries, tuple(QUERIES), "query", "--queries")
        for point in _known(points, POINTS, "point", "--points")
        if QUERIES[query].stateful or point != "in state"
    }
    return [
        _plan(CRASH_POINTS, state, shared, nodes=1)
        for state in _known(states, CRASH_STATES, "state", "--states")
        for shared in _shared(faults)
    ]


def matrix(faults: Sequence[str], states: Sequence[str]) -> list[Plan]:
    """Every fault in every state, on three brokers."""
    chosen = {
        name: FAULTS[name]
        for name in _known(faults, tuple(FAULTS), "fault", "--faults")
        if name in faults or name in possible()
    }
    return [
        _plan("matrix", state, shared, nodes=3)
        for state in _known(states, MATRIX_STATES, "state", "--phases")
        for shared in _shared(chosen)
    ]


def possible() -> list[str]:
    """The faults that can be injected on this machine by this user: some take root on Linux."""
    return [name for name, fault in FAULTS.items() if not fault.of_kind.why_not()]


def at_random(seed: int, minutes: float, clock: Callable[[], float] = time.monotonic) -> Iterator[Plan]:
    """Runs with faults drawn from a seed, until the time is used up; the last one is carried to its end."""
    rng, end_s, number = Random(seed), clock() + minutes * 60, 0
    while clock() < end_s:
        number += 1
        names = [rng.choice(sorted(possible())) for _ in range(AT_RANDOM)]
        crash = Fault(
            kind="crash",
            point=rng.choice(POINTS),
            query=rng.choice([name for name, query in QUERIES.items() if query.stateful]),
        )
        faults = {f"{number}.{at + 1} {name}": FAULTS[name] for at, name in enumerate(names)}
        faults |= {f"{number}.{AT_RANDOM + 1} crash {crash.point} of {crash.query}": crash}
        state = rng.choice(("loaded", "late", "catching-up"))
        plan = _plan("random", state, faults, nodes=3)
        load = replace(plan.scenario.load, seed=rng.randrange(2**32))
        yield replace(plan, scenario=replace(plan.scenario, load=load))


def carry_out(plans: Iterable[Plan], run: Callable[[Scenario], Assessment]) -> Iterator[Cell]:
    """The cells of each plan, as soon as its run has been judged; a run that broke off leaves its cells unknown."""
    for plan in plans:
        try:
            trial = run(plan.scenario)
        except ScenarioError:
            raise
        except HarnessError as error:
            yield from (Cell(name, plan.state, Verdict.UNKNOWN, str(error), "", {}) for name in plan.cells if name)
            continue
        result = trial.result
        healed = trial.run.of(FaultHealed)
        costs = {event.index: (event, figures) for event, figures in zip(healed, result.faults, strict=False)}
        # The faults of a plan stand in the order of their positions: that of the cell is its index.
        for index, name in enumerate(plan.cells):
            if name is not None:
                event, figures = costs.get(index, (None, {}))
                doubt = _doubt(STATES[plan.state], event, figures)
                verdict = Verdict.worst((result.verdict, Verdict.UNKNOWN if doubt else Verdict.PASS))
                why = result.why if verdict is result.verdict else doubt
                yield Cell(name, plan.state, verdict, why, str(trial.run.directory), figures)


def _doubt(state: State, event: FaultHealed | None, figures: Mapping[str, Any]) -> str:
    """Why a cell does not show what it is for; empty where it does."""
    if event is None:
        return "it was not injected"
    if missing := coverage.unproved(event):
        return f"it is not proved: {missing}"
    if not state.limit:
        return ""
    if not figures["behind"]:
        return "how many records were unread when it was injected is unknown"
    fault = event.fault
    of_query = "query" in fault.of_kind.fields
    behind = figures["behind"][fault.query] if of_query else max(figures["behind"].values())
    if behind <= state.limit:
        who = fault.query if of_query else "the pipeline"
        return f"it was injected when {who} had {behind:,} records of a topic unread, a batch or less: it had caught up"
    return ""


def write(drill: str, cells: Sequence[Cell], seed: int, again: str, target: Path, left: int | None = 0) -> Verdict:
    """Write the page of a drill and `cells.json` beside it; the worst verdict of all cells.

    With cells `left` to come, None where nobody knows how many, it is unknown at best.
    """
    verdict = Verdict.worst([*(cell.verdict for cell in cells), *([] if left == 0 else [Verdict.UNKNOWN])])
    right = sum(cell.verdict is Verdict.PASS for cell in cells)
    so_far = "" if left == 0 else f", so far: {'more' if left is None else left} are to come"
    seen_s = [cell.figures["recovered_s"] for cell in cells if cell.figures.get("recovered_s") is not None]
    slowest = f" The slowest recovery took {max(seen_s):.1f} s." if seen_s else ""
    duplicates = sum(cell.figures.get("duplicates") or 0 for cell in cells)
    replaying = any(cell.state == REPLAYING for cell in cells)
    earlier = f" In the state {REPLAYING} they may be those of the crash before the fault." if replaying else ""
    text = render_drill(
        title=f"drill {drill}",
        verdict=verdict.value,
        summary=f"{right} of {len(cells)} cells are right{so_far}.{slowest} {duplicates} rows stand twice on Kafka, where a"
        f" replayed batch may write them again.{earlier}{'' if drill == CRASH_POINTS else _left_out()}",
        states=list(dict.fromkeys(cell.state for cell in cells)),
        faults=list(dict.fromkeys(cell.fault for cell in cells)),
        cells={(cell.fault, cell.state): cell for cell in cells},
        links={cell.run: os.path.relpath(Path(cell.run) / "report.html", target.parent) for cell in cells if cell.run},
        wrong=[cell for cell in cells if cell.verdict is not Verdict.PASS],
        seed=seed,
        again=again,
    )
    written = [{**asdict(cell), "verdict": cell.verdict.value, "figures": dict(cell.figures)} for cell in cells]
    write_whole(target, text)
    write_whole(target.with_name("cells.json"), json.dumps(written, indent=1))
    return verdict


def _left_out() -> str:
    """What the page must not be silent about."""
    left_out: dict[str, list[str]] = {}
    for name, fault in FAULTS.items():
        if why := fault.of_kind.why_not():
            left_out.setdefault(why, []).append(name)
    return "".join(f" Not possible here, {why}: {', '.join(names)}." for why, names in left_out.items())


def _shared(faults: Mapping[str, Fault]) -> list[dict[str, Fault]]:
    """In as few runs of about the same length as can be."""
    runs = -(-len(faults) // PER_RUN)
    named = list(faults.items())
    return [dict(named[len(named) * at // runs : len(named) * (at + 1) // runs]) for at in range(runs)]


def _plan(drill: str, of: str, faults: Mapping[str, Fault], nodes: int) -> Plan:
    state = STATES[of]
    first_s = state.backlog_s + WARM_UP_S
    apart = round(APART_S * state.eps)
    placed: list[tuple[str | None, Fault]] = []
    for turn, (name, fault) in enumerate(faults.items()):
        at = round(first_s * state.eps) + turn * apart
        placed_at: dict[str, Any] = {"at": at, "after": apart, "caught_up": not state.limit}
        if state.before:
            placed.append((None, replace(state.before, **placed_at)))
            placed_at = {"at": at + 1}
        placed.append((name, replace(fault, **placed_at)))
    if state.limit:
        placed.append((None, replace(UNLIMITED, at=round(first_s * state.eps) + len(faults) * apart, after=apart)))
    scenario = Scenario(
        name=f"drill-{drill}-{of}",
        about=f"{len(faults)} faults, {state.about}.",
        load=Load(eps=state.eps, warm_up_s=first_s, duration_s=APART_S, stretch_s=MOST_S * len(placed)),
        workload=Workload(
            time_scale=60,
            clickstream_share=state.clickstream_share,
            late=state.late,
            too_late=state.too_late,
            malformed=0.001 if state.eps > 100 else 0.02,
        ),
        kafka=Kafka(nodes=nodes),
        pipeline=Pipeline(
            quick_start=True,
            flags=("--max-offsets-per-trigger", str(state.limit)) if state.limit else (),
            start_after_s=state.backlog_s,
        ),
        judged=JUDGED,
        fault=tuple(fault for _, fault in placed),
    )
    return Plan(of, scenario, tuple(name for name, _ in placed))


def _known(asked: Sequence[str], known: Sequence[str], what: str, flag: str) -> Sequence[str]:
    """What was asked for, in the known order; all where nothing was. ScenarioError that names the flag for an unknown one."""
    for name in asked:
        if name not in known:
            raise ScenarioError(
                f"{flag}: no {what} {name!r}{scenarios.nearest(name, known)}; there are: {', '.join(known)}"
            )
    return [name for name in known if not asked or name in asked]
