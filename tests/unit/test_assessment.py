"""`harness.check` and the data frames of an assessment."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import harness
from harness import scenario
from harness.errors import ScenarioError
from harness.experiments.simulate import simulate
from harness.judge import frames
from harness.judge.assessment import Assessment
from harness.model import Result
from harness.rundir import history

GOLDEN = Path(__file__).parent.parent / "golden" / "format-2"
REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference" / "frames.md"


@pytest.fixture(scope="module")
def kill(tmp_path_factory) -> Assessment:
    """A golden run in which the pipeline was killed twice."""
    return harness.check(shutil.copytree(GOLDEN / "kill", tmp_path_factory.mktemp("golden") / "kill"))


@pytest.fixture(scope="module")
def lost(tmp_path_factory) -> Assessment:
    """A golden run that lost a row."""
    return harness.check(shutil.copytree(GOLDEN / "lost_row", tmp_path_factory.mktemp("golden") / "lost_row"))


def test_the_reference_page_is_current():
    """Written by `frames.reference`."""
    assert frames.reference() == REFERENCE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", frames.NAMES)
def test_columns_are_those_documented(kill, name):
    """In their order; `batch_<query>` stands for one column a query."""
    expected = [column for column in frames.COLUMNS[name] if "<" not in column]
    queries = [f"batch_{query}" for query in kill.run.scenario.queries] if name == "events" else []

    assert [*expected, *queries] == list(kill.frame(name).columns)


def test_events_agree_with_the_counts(kill):
    """Acknowledged events, and those that a query read."""
    events = kill.frame("events")
    own = events[~events["flush"]]

    assert kill.result.counts["acknowledged"] == events["offset"].notna().sum()
    assert own["sent"].notna().all()
    assert len(own) == own["batch_dead_letter"].notna().sum()


def test_batches_read_every_acknowledged_record(kill):
    """The records of a query's batches sum up to its topics' records."""
    batches, events = kill.frame("batches"), kill.frame("events")

    assert events["offset"].notna().sum() == batches.loc[batches["query"] == "dead_letter", "records"].sum()


def test_a_lost_row_stands_in_the_rows(lost):
    """With its expected values, without observed ones."""
    rows = lost.frame("rows")
    wrong = rows[rows["anomaly"] == "lost_row"]

    assert len([anomaly for anomaly in lost.anomalies if anomaly.kind == "lost_row"]) == len(wrong) > 0
    assert wrong["expected"].notna().all()
    assert wrong["observed"].isna().all()


def test_faults_and_samples_have_times(kill):
    """Two kills, each healed after its injection, and samples in order."""
    faults, samples = kill.frame("faults"), kill.frame("samples")

    assert ["kill pipeline", "kill pipeline"] == faults["fault"].tolist()
    assert (faults["healed"] > faults["injected"]).all()
    assert samples["at"].is_monotonic_increasing


def test_far_times_keep_their_value():
    """pandas' nanoseconds end in 2262; event times of the contract do not have to."""
    [far] = frames._times(np.array([253402300799999]), "ms")

    assert pd.Timestamp("9999-12-31 23:59:59.999", tz="UTC") == far


def test_an_unknown_frame_is_refused(kill):
    """The error lists the tables."""
    with pytest.raises(ScenarioError, match="'row': no such table; there are: events, batches, rows"):
        kill.frame("row")


def test_an_unjudged_run_has_no_events(tmp_path):
    """A run that was broken off still has its samples."""
    simulate(tmp_path, scenario.load("late", ["load.eps=200"]))
    broken = Assessment(history.read(tmp_path), Result(harness.Verdict.UNKNOWN, "broken off", (), {}, {}, ()))

    with pytest.raises(ScenarioError, match="could not be judged: broken off"):
        broken.frame("events")
    assert len(broken.frame("samples"))


def test_a_wrong_override_names_itself():
    """Before anything is started."""
    with pytest.raises(ScenarioError, match=r"override load\.eps=0: load\.eps"):
        harness.run("late", "load.eps=0")
