"""One record a kind of fault: everything else about kinds follows from the records."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness import faults, scenario
from harness.experiments import drill
from harness.faults import KINDS, Fault, FaultKind, Need, parts, reference
from harness.host import cgroup, disks
from harness.runner import injector
from harness.scenario import toml

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"


def records() -> list[FaultKind]:
    """Every record that a module of the package has."""
    modules = [importlib.import_module(f"harness.faults.{info.name}") for info in pkgutil.iter_modules(faults.__path__)]
    return [value for module in modules for value in vars(module).values() if isinstance(value, FaultKind)]


def plain(kind: FaultKind) -> scenario.Scenario:
    """A scenario with one fault of a kind, on the first part that it can be on, that has all that it needs."""
    fields: dict[str, object] = {"kind": kind.name, "on": kind.targets[0], "at": 5}
    if Need.PARQUET in kind.needs:
        fields["query"] = "revenue"
    return toml.parse({"name": "x", "kafka": {"nodes": 3}, "fault": [fields]}, "a test")


def test_every_record_is_listed():
    """A record that is not in the list would be a kind that no scenario can name."""
    assert {id(kind) for kind in records()} == {id(kind) for kind in KINDS.values()}
    assert all(name == kind.name for name, kind in KINDS.items())


@pytest.fixture
def added(monkeypatch) -> FaultKind:
    """A kind that nobody else knows of."""
    kind = FaultKind(
        name="flood",
        about="The cellar is under water.",
        effect="It is wet.",
        heals="It is dry.",
        targets=("leader",),
        inject=lambda bed, fault: (bed.rig, fault),
        needs=(Need.DISK,),
        fields=("flags",),
        drills={"flood leader": {"on": "leader"}},
    )
    monkeypatch.setitem(KINDS, kind.name, kind)
    return kind


def test_scenarios_can_name_a_new_kind(added):
    """With its targets and its fields checked, and its needs."""
    assert [] == list(scenario.contradictions(plain(added)))
    wrong = replace(plain(added), fault=(Fault(kind="flood", on="pipeline", at=5, refused=True),))
    assert [
        "fault[0].on = 'pipeline': flood acts on one of leader",
        "fault[0].refused: a fault of kind flood has none; it is for change",
    ] == list(scenario.contradictions(wrong))
    assert plain(added).needs_root


def test_new_kind_is_injected_by_its_record(added):
    """No other module has to know how."""
    rig, fault = object(), Fault(kind="flood", at=1)

    assert (rig, fault) == injector.injected(rig, fault)


def test_new_kind_has_cells_and_a_section(added):
    """The matrix and the reference page list it."""
    assert {"flood leader": Fault(kind="flood", on="leader")} == added.cells()
    assert "## flood\n\nThe cellar is under water.\n" in reference.page()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_can_be_asked_for(kind):
    """On its first target, with what it needs; its cells of the matrix are on targets that it has."""
    assert [] == list(scenario.contradictions(plain(kind)))
    assert all(fault.on in kind.targets for fault in kind.cells().values())


def test_the_matrix_has_the_cells_of_all_kinds():
    """Each row is of one kind."""
    rows = [name for kind in KINDS.values() for name in kind.cells()]

    assert rows == list(drill.FAULTS)
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("fault", "brokers"),
    [
        pytest.param(Fault(), set(), id="pipeline"),
        pytest.param(Fault(on="broker 2"), {2}, id="one broker"),
        pytest.param(Fault(on="two brokers"), {1, 2}, id="two brokers"),
        pytest.param(Fault(on="leader"), {1, 2, 3}, id="role"),
        pytest.param(Fault(kind="roll", on="broker 2"), {1, 2, 3}, id="all in turn"),
        pytest.param(Fault(kind="partitions", on="leader"), set(), id="nothing is down"),
    ],
)
def test_brokers_hurt_follow_from_kind_and_target(fault, brokers):
    """A broker that is down for another reason makes the run unknown."""
    assert brokers == fault.brokers_hurt(3)


@pytest.mark.parametrize(("module", "kind"), [(disks, "full"), (disks, "read_only"), (cgroup, "memory")])
def test_machine_lacks_what_a_kind_needs(monkeypatch, module, kind):
    """Its cells are left out of the matrix, with the reason."""
    monkeypatch.setattr(disks, "why_not", lambda: None)
    monkeypatch.setattr(cgroup, "why_not", lambda: None)
    monkeypatch.setattr(module, "why_not", lambda: "it takes root")

    assert "it takes root" == KINDS[kind].why_not()
    assert KINDS["kill"].why_not() is None
    assert not set(KINDS[kind].cells()) & set(drill.possible())


def test_the_reference_page_is_current():
    """It is written by `python -m harness.faults.reference docs/reference/faults.md`."""
    assert reference.page() == PAGE.read_text(encoding="utf-8")


def test_parts_are_known_to_the_reference():
    """Each part that a fault can be on is a target of some kind."""
    assert set(parts.PARTS) == {target for kind in KINDS.values() for target in kind.targets}
