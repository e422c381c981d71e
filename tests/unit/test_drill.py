"""Plans of drills, and what becomes of their cells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from history_events import healed

from harness import scenario
from harness.errors import ScenarioError, StackError
from harness.experiments import drill
from harness.model import Result, Verdict

TWO = ["kill leader", "pause leader"]


def test_every_crash_point_is_planned():
    """Five queries, four points, one of which a query without state does not have."""
    plans = drill.crash_points([], [], [])

    assert 4 * 19 == sum(name is not None for plan in plans for name in plan.cells)
    assert all(len(plan.cells) == len(plan.scenario.fault) for plan in plans)


def test_drill_scenarios_survive_toml():
    """Written and read again they are the same."""
    for plan in [*drill.matrix([], []), *drill.crash_points([], [], []), *at_random(7)]:
        again = scenario.parse(__import__("tomllib").loads(scenario.dump(plan.scenario)), "drill")
        assert again == plan.scenario


def at_random(seed: int) -> list[drill.Plan]:
    """Those of three minutes, each run taking one."""
    return list(drill.at_random(seed, 3, iter([0.0, 0.0, 60.0, 120.0, 180.0]).__next__))


def test_random_faults_follow_the_seed():
    """And others for another, until the time is used up."""
    assert at_random(7) == at_random(7) != at_random(8)
    assert 3 == len(at_random(7))
    cells = [name for plan in at_random(7) for name in plan.cells if name]
    assert len(cells) == len(set(cells))


def test_faults_wait_for_catch_up():
    """Where something is done before each fault, that waits, and the fault strikes at once after it."""
    faults = {plan.state: plan.scenario.fault for plan in drill.matrix(TWO, [])}
    waits = {state: [(one.after, one.caught_up) for one in placed] for state, placed in faults.items()}

    assert 2 * [(1200, True)] == waits["loaded"] == waits["late"]
    assert 2 * [(1200, True), (0, False)] == waits["replaying"] == waits["warm-up"]
    assert 2 * [(1000, False)] == waits["catching-up"][:-1]


def test_delayed_pipeline_may_read_at_once():
    """No cell, but the last of what is done: or reading the rest would take longer than all faults."""
    [plan] = drill.matrix(TWO, ["catching-up"])

    assert (*TWO, None) == plan.cells
    assert ("--max-offsets-per-trigger", "400") == plan.scenario.pipeline.flags
    assert "--max-offsets-per-trigger" == plan.scenario.fault[-1].flags[0]


def test_a_misspelt_name_offers_the_nearest():
    """Bad usage, on one line."""
    with pytest.raises(ScenarioError, match=r"no fault 'kill leadr' \(did you mean kill leader\?\)"):
        drill.matrix(["kill leadr"], [])


@pytest.mark.parametrize(
    ("fault", "behind", "said"),
    [
        ("kill leader", {"sessions": 401, "revenue": 10}, Verdict.PASS),
        ("kill leader", {"sessions": 400, "revenue": 10}, Verdict.UNKNOWN),
        ("truncated offsets", {"sessions": 401, "revenue": 10}, Verdict.PASS),
        ("truncated offsets", {"sessions": 10, "revenue": 401}, Verdict.UNKNOWN),
    ],
)
def test_caught_up_fault_is_not_counted(tmp_path, fault, behind, said):
    """Its cell is unknown, however right the run; a fault of one query asks for that one."""
    plan = drill.matrix([fault], ["catching-up"])[0]
    result = Result(Verdict.PASS, "why", (), {}, {}, (), ({"behind": behind},))
    event = healed(0.5, 1.0, plan.scenario.fault[0])
    trial = SimpleNamespace(result=result, run=SimpleNamespace(directory=tmp_path, of=lambda kind: [event]))

    assert [said] == [cell.verdict for cell in drill.carry_out([plan], lambda scenario: trial)]


@pytest.mark.parametrize(
    ("verdict", "figures", "said"),
    [
        pytest.param(Verdict.PASS, {"proved": True, "healed_s": 1.0}, Verdict.PASS, id="right"),
        pytest.param(Verdict.PASS, {"proved": False, "healed_s": 1.0}, Verdict.UNKNOWN, id="not proved"),
        pytest.param(Verdict.PASS, None, Verdict.UNKNOWN, id="never struck"),
        pytest.param(Verdict.FAIL, {"proved": True, "healed_s": 1.0}, Verdict.FAIL, id="the run is wrong"),
    ],
)
def test_cell_is_limited_by_its_run(tmp_path, verdict, figures, said):
    """And the page links to the run."""
    plan = drill.matrix(["kill leader"], ["loaded"])[0]
    result = Result(verdict, "why", (), {}, {}, (), (figures,) if figures else ())
    events = [healed(0.5, 1.0, effect_observed=figures["proved"])] if figures else []
    trial = SimpleNamespace(
        result=result, run=SimpleNamespace(directory=tmp_path / "a" / "run", of=lambda kind: events)
    )
    cells = list(drill.carry_out([plan], lambda scenario: trial))

    (tmp_path / "b").mkdir()
    assert said is drill.write("matrix", cells, 7, "harness drill matrix", tmp_path / "b" / "drill.html")
    assert "../a/run/report.html" in Path(tmp_path / "b" / "drill.html").read_text()


def test_broken_run_leaves_unknown_cells(tmp_path):
    """With what went wrong, and a page all the same."""

    def broken(scenario):
        raise StackError("the pipeline ended by itself with code 1: no reason given")

    cells = list(drill.carry_out(drill.matrix(["kill leader"], ["loaded", "late"]), broken))

    assert ["unknown", "unknown"] == [cell.verdict.value for cell in cells]
    assert Verdict.UNKNOWN is drill.write("matrix", cells, 7, "harness drill matrix", tmp_path / "drill.html")
    assert "ended by itself" in (tmp_path / "drill.html").read_text()


@pytest.mark.parametrize(("state", "said"), [("replaying", True), ("loaded", False)])
def test_page_attributes_duplicated_rows(tmp_path, state, said):
    """No batch was replayed after the fault, and ten rows stand twice: they are those of the crash before it."""
    cells = [drill.Cell("stop leader", state, Verdict.PASS, "", "", {"replayed": 0, "duplicates": 10})]
    drill.write("matrix", cells, 7, "again", tmp_path / "drill.html")

    assert said is ("those of the crash before the fault" in (tmp_path / "drill.html").read_text())


@pytest.mark.parametrize(("left", "said"), [(7, "so far: 7 are to come"), (None, "so far: more are to come")])
def test_unfinished_drill_has_not_passed(tmp_path, left, said):
    """Its page is written after every cell, and may be the last that there is."""
    cells = [drill.Cell("kill leader", "loaded", Verdict.PASS, "", "", {})]

    assert Verdict.UNKNOWN is drill.write("matrix", cells, 7, "again", tmp_path / "drill.html", left)
    assert said in (tmp_path / "drill.html").read_text()
    assert Verdict.PASS is drill.write("matrix", cells, 7, "again", tmp_path / "drill.html")
