"""The search for the highest rate, against a pipeline that is made up, with noise."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness import scenario
from harness.errors import RunError, ScenarioError
from harness.experiments import capacity
from harness.experiments.capacity import Attempt, Capacity, Outcome, Settings, curve, prepared, search
from harness.model import Anomaly, Result, Target, Verdict

PLAIN = Settings(start_eps=5_000, floor_eps=1_100)


class Pipeline:
    """It holds below its capacity, each run's own with a spread of `noise`, and keeps count of its runs."""

    def __init__(self, eps: float, noise: float = 0.0, seed: int = 0, above: Outcome = Outcome.MISSES) -> None:
        self.eps, self.noise, self.above = eps, noise, above
        self.random = random.Random(seed)
        self.rates: list[float] = []

    def __call__(self, eps: float) -> Attempt:
        """A run at a rate."""
        self.rates.append(eps)
        holds = eps <= self.eps * (1 + self.random.gauss(0, self.noise))
        return Attempt(eps=eps, outcome=Outcome.HOLDS if holds else self.above, gave_way=() if holds else ("latency",))


@pytest.mark.parametrize("eps", [1_150, 4_900, 5_000, 5_100, 23_456, 99_999, 640_000])
@pytest.mark.parametrize("within", [0.1, 0.25])
def test_the_answer_is_within_what_was_asked(eps, within):
    """Below the capacity, by a step at most; one step above, it misses."""
    pipeline = Pipeline(eps)
    answer = search(pipeline, Settings(start_eps=5_000, floor_eps=1_100, within=within))

    assert Verdict.PASS is answer.verdict
    assert answer.eps <= eps < answer.eps * (1 + within) * 1.01
    assert "latency" == answer.limit
    low, high = answer.spread
    assert low == answer.eps
    assert high > eps


def test_both_ends_are_run_three_times():
    """The answer, and one step above it."""
    pipeline = Pipeline(23_456)
    answer = search(pipeline, PLAIN)

    assert [3, 3] == [pipeline.rates.count(rate) for rate in answer.spread]
    assert len(pipeline.rates) <= 12


def test_a_quick_search_has_few_runs():
    """Within 25 %, each rate once."""
    pipeline = Pipeline(23_456)
    search(pipeline, Settings(start_eps=5_000, floor_eps=1_100, within=0.25, repeats=1))

    assert len(pipeline.rates) == len(set(pipeline.rates)) <= 6


@pytest.mark.parametrize("noise", [0.03, 0.08])
def test_noise_moves_the_answer_by_little(noise):
    """Of 300 searches nine in ten end within a step and the noise; all end, and within a bounded number of runs."""
    near = 0
    for seed in range(300):
        pipeline = Pipeline(23_456, noise, seed)
        answer = search(pipeline, PLAIN)
        assert len(pipeline.rates) <= 40
        assert answer.eps is not None
        near += (1 - noise) / 1.1 <= answer.eps / 23_456 <= 1 + noise
        low, high = answer.spread
        assert (low or 0) <= answer.eps <= (high or 1e9)

    assert near >= 270


def test_wrong_rows_end_the_search():
    """Whatever the rates below hold: the pipeline is wrong, and no rate is its capacity."""
    pipeline = Pipeline(12_000, above=Outcome.WRONG)
    answer = search(pipeline, PLAIN)

    assert (Verdict.FAIL, None) == (answer.verdict, answer.eps)
    assert "wrong rows at 20,000 events/s" in answer.why
    assert [5_000, 10_000, 20_000] == pipeline.rates


def test_a_run_of_which_nothing_is_known_ends_the_search():
    """It is neither held nor missed; the search goes on from there another time."""
    answer = search(Pipeline(12_000, above=Outcome.UNKNOWN), PLAIN)

    assert Verdict.UNKNOWN is answer.verdict
    assert "nothing is known at 20,000 events/s" in answer.why


def test_a_load_engine_that_is_the_limit_is_named():
    """The pipeline may carry more: no answer about it, and the rate that it has carried."""
    answer = search(Pipeline(12_000, above=Outcome.GENERATOR), PLAIN)

    assert (Verdict.UNKNOWN, "generator-limited") == (answer.verdict, answer.limit)
    assert 10_900 < answer.eps <= 12_000


def test_a_pipeline_that_carries_nothing_fails():
    """From the lowest rate on."""
    pipeline = Pipeline(100)
    answer = search(pipeline, PLAIN)

    assert (Verdict.FAIL, None) == (answer.verdict, answer.eps)
    assert [5_000, 2_500, 1_250, 1_100] == pipeline.rates


def test_a_pipeline_without_a_limit_is_unknown():
    """The highest rate that a scenario can have holds."""
    answer = search(Pipeline(1e12), PLAIN)

    assert Verdict.UNKNOWN is answer.verdict
    assert answer.eps <= capacity.CEILING_EPS < answer.eps * 2


def result(verdict=Verdict.PASS, why="", missed=(), anomalies=()):
    """A run's result."""
    targets = [
        Target(name, 1.0, 2.0, "s", Verdict.FAIL if name in missed else Verdict.PASS) for name in ("latency", "cpu")
    ]
    return Result(verdict, why, tuple(targets), {"generator_delay_ms": {"p99": 3.0}}, {}, tuple(anomalies))


WRONG = Anomaly("lost_row", "sessions", (), "", "", "")


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        pytest.param(result(), Outcome.HOLDS, id="pass"),
        pytest.param(result(Verdict.FAIL, "missed: cpu", ["cpu"]), Outcome.MISSES, id="a target missed"),
        pytest.param(result(Verdict.FAIL, "1 anomalies", [], [WRONG]), Outcome.WRONG, id="wrong"),
        pytest.param(result(Verdict.UNKNOWN, "1 anomalies", ["cpu"], [WRONG]), Outcome.WRONG, id="wrong or not"),
        pytest.param(result(Verdict.UNKNOWN, "generator-limited: the load"), Outcome.GENERATOR, id="generator"),
        pytest.param(result(Verdict.UNKNOWN, "nothing to compare"), Outcome.UNKNOWN, id="unknown"),
    ],
)
def test_what_a_run_came_to(found, outcome):
    """Wrong rows outrank all."""
    made = capacity.attempted(5_000, found, Path("runs/1"))

    assert outcome is made.outcome
    assert {"latency": 1.0, "cpu": 1.0, "generator_delay_ms_p99": 3.0}.items() <= made.figures.items()


class Runner:
    """Runs a scenario by a made-up capacity, and can break off."""

    def __init__(self, eps: float, breaks_at: int = 10**9) -> None:
        self.eps, self.left, self.rates = eps, breaks_at, []

    def __call__(self, chosen, reports):
        """(result, directory)."""
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.rates.append(chosen.load.eps)
        holds = chosen.load.eps <= self.eps
        found = result() if holds else result(Verdict.FAIL, "missed: cpu", ["cpu"])
        return found, reports / f"run-{len(self.rates)}"


@pytest.mark.parametrize("breaks_at", [0, 1, 4, 8])
def test_a_search_goes_on_where_it_was_broken_off(tmp_path, breaks_at):
    """Together no more runs than one search, and the same answer."""
    chosen, settings = prepared(scenario.load("load"), 5_000, quick=False)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = Runner(23_456)
    expected = Capacity.begin(tmp_path / "whole", chosen, settings).search(whole)

    first, second = Runner(23_456, breaks_at), Runner(23_456)
    with pytest.raises(KeyboardInterrupt):
        Capacity.begin(tmp_path / "parts", chosen, settings).search(first)
    resumed = Capacity.resume(tmp_path / "parts")

    assert expected == resumed.search(second)
    assert whole.rates == first.rates + second.rates
    assert chosen == resumed.scenario
    written = resumed.as_json()
    assert ("pass", expected.eps, "cpu") == (written["verdict"], written["capacity_eps"], written["limit"])
    assert len(whole.rates) == sum(row["runs"] for row in written["curve"])


def test_the_curve_has_a_row_a_rate():
    """Medians with least and most; what gave way by name."""
    runs = [
        Attempt(eps=20, outcome=Outcome.MISSES, gave_way=("cpu",), figures={"latency": 9.0}, directory="c"),
        Attempt(eps=10, outcome=Outcome.HOLDS, figures={"latency": 1.0}, directory="a"),
        Attempt(eps=20, outcome=Outcome.HOLDS, figures={"latency": 3.0}, directory="b"),
        Attempt(eps=20, outcome=Outcome.GENERATOR, figures={"latency": None}, directory="d"),
    ]
    slow, fast = curve(runs)

    assert (10, 1, 1, []) == tuple(slow[name] for name in ("eps", "runs", "hold", "gave_way"))
    assert (20, 3, 1, ["cpu", "generator-limited"]) == tuple(fast[name] for name in ("eps", "runs", "hold", "gave_way"))
    assert {"latency": {"median": 6.0, "min": 3.0, "max": 9.0}} == fast["figures"]
    assert ["c", "b", "d"] == fast["directories"]


@pytest.mark.parametrize(
    ("name", "start_eps", "problem"),
    [
        pytest.param("kill", 5_000, "without faults and bursts", id="a fault"),
        pytest.param("burst", 5_000, "without faults and bursts", id="a burst"),
        pytest.param("load", 900, "--from 900: below 1100", id="a rate below the target"),
    ],
)
def test_what_cannot_be_searched_is_refused(name, start_eps, problem):
    """Before a run begins."""
    with pytest.raises(ScenarioError, match=problem):
        prepared(scenario.load(name), start_eps, quick=False)


def test_a_quick_search_has_shorter_runs():
    """With an answer within 25 %."""
    chosen, settings = prepared(scenario.load("load"), 5_000, quick=True)

    assert (40, 40, 0.25, 1) == (chosen.load.warm_up_s, chosen.load.duration_s, settings.within, settings.repeats)


def test_a_folder_without_a_search_is_named(tmp_path):
    """Bad usage; damage is none."""
    with pytest.raises(ScenarioError, match=r"no capacity\.json"):
        Capacity.resume(tmp_path)
    (tmp_path / "capacity.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        Capacity.resume(tmp_path)
