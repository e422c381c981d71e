"""What a run leaves for whoever reads the test's failure."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.errors import ScenarioError, Stalled
from harness.experiments import single
from harness.pytest_plugin import TAIL_LINES, _logs_of_what_broke_off, _run

RUN = "late/20260101T000000.000Z-seed7"


class Item:
    """A test that keeps what is added to its report."""

    def __init__(self) -> None:
        self.sections: list[tuple[str, str, str]] = []

    def add_report_section(self, when: str, name: str, text: str) -> None:
        """Kept."""
        self.sections.append((when, name, text))


def logged(reports):
    """A run directory with the logs of two processes."""
    logs = reports / RUN / "logs"
    logs.mkdir(parents=True)
    (logs / "pipeline.log").write_text("".join(f"line {number}\n" for number in range(100)))
    (logs / "kafka-broker-1-broker.log").write_text("started\n")


def break_off(reports, error):
    """A run that begins, and does not come to its end."""
    logged(reports)
    raise error


@pytest.mark.parametrize(
    "error", [Stalled("drain"), pytest.fail.Exception("Timeout >600.0s")], ids=["error", "time-out"]
)
def test_a_run_that_broke_off_tells_where_it_is_and_what_was_said_last(tmp_path, error):
    """Of every process, and the error goes on."""
    item = Item()
    with pytest.raises(type(error)), _logs_of_what_broke_off(item, tmp_path):
        break_off(tmp_path, error)

    [(_, _, text)] = item.sections
    assert f"kept in {tmp_path / RUN}" in text
    assert "started" in text
    assert "line 99" in text
    assert f"line {99 - TAIL_LINES}\n" not in text


def test_a_run_that_never_began_does_not_tell_of_another(tmp_path):
    """Which lies there from before."""
    logged(tmp_path)
    item = Item()
    with pytest.raises(Stalled), _logs_of_what_broke_off(item, tmp_path):
        raise Stalled("no broker")

    assert [] == item.sections


def test_a_run_of_another_scenario_that_another_worker_began_is_not_its_own(tmp_path):
    """Both write below one folder."""
    item = Item()
    with pytest.raises(Stalled), _logs_of_what_broke_off(item, tmp_path / "burst"):
        break_off(tmp_path, Stalled("no broker"))

    assert [] == item.sections


def test_of_bad_usage_no_logs_are_shown(tmp_path):
    """Not even those of a run that another test began in the meantime."""
    item = Item()
    with pytest.raises(ScenarioError), _logs_of_what_broke_off(item, tmp_path):
        break_off(tmp_path, ScenarioError("unknown field"))

    assert [] == item.sections


def test_a_run_that_ended_well_adds_nothing(tmp_path):
    """Its story is told elsewhere."""
    logged(tmp_path)
    item = Item()
    with _logs_of_what_broke_off(item, tmp_path):
        pass

    assert [] == item.sections


def test_the_line_that_repeats_a_run_has_its_settings(monkeypatch, tmp_path):
    """Those of pytest's options, and those of the test."""
    asked = {"--kafka": "embedded", "--seed": 3}
    repeated: list[str] = []

    def run(chosen, reports, status, command):
        repeated.extend(command)
        return SimpleNamespace(result=chosen)

    monkeypatch.setattr(single, "run", run)
    monkeypatch.setattr(single, "story", lambda done: [])
    _run(SimpleNamespace(getoption=asked.get), "late", ("load.eps=50",), tmp_path)

    sets = ["--set", 'kafka.where="embedded"', "--set", "load.seed=3", "--set", "load.eps=50"]
    assert ["run", "late", *sets] == repeated
