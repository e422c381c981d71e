"""Where a run is written."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness import scenario
from harness.cli import app
from harness.errors import RunError, ScenarioError, StackError
from harness.experiments import single
from harness.experiments.simulate import simulate
from harness.judge import verdict
from harness.model import Verdict
from harness.rundir import history
from harness.runner.console import Status


@pytest.fixture(autouse=True)
def complete(monkeypatch):
    """A machine that lacks nothing: no test here starts anything."""
    monkeypatch.setattr(single.needs, "require", lambda chosen: None)


def test_simultaneous_runs_have_own_folders(tmp_path):
    """Many fit into the millisecond that their names tell."""
    assert 20 == len({single.new_folder(tmp_path, "late", "-seed7") for _ in range(20)})


def test_unwritable_place_is_one_line(tmp_path):
    """The line names it."""
    (tmp_path / "file").touch()

    with pytest.raises(ScenarioError, match="file: no folder can be made: Not a directory"):
        single.new_folder(tmp_path / "file", "late")


def test_single_query_run_has_report(tmp_path):
    """Whatever a page shows by default, it shows of the queries that there are."""
    simulate(tmp_path, scenario.load("late", ["load.eps=100", 'pipeline.queries=["page_views"]']))
    done = single.judge(tmp_path)

    assert {"page_views"} == done.result.figures["durable_latency_ms"].keys()
    assert "committed by page_views" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        pytest.param(["page_views", "revenue"], "not checked: this pipeline lacks", id="no dead letter"),
        pytest.param(["page_views", "revenue", "dead_letter"], "they reconcile.", id="all that count"),
    ],
)
def test_page_and_verdict_agree_on_counts(tmp_path, queries, said):
    """A pipeline without one of the queries cannot account for every record."""
    simulate(tmp_path, scenario.load("late", ["load.eps=100", f"pipeline.queries={json.dumps(queries)}"]))
    done = single.judge(tmp_path)

    assert Verdict.PASS is done.result.verdict, done.result.why
    assert said in (tmp_path / "report.html").read_text()


def test_silent_pipeline_has_a_report(tmp_path):
    """Without the charts that are drawn from it."""
    simulate(tmp_path, scenario.load("late", ["load.eps=100", 'judged=["success"]']))
    path = tmp_path / "history.jsonl"
    lines = [line for line in path.read_text().splitlines() if json.loads(line)["kind"] != "progress"]
    path.write_text("\n".join(lines) + "\n")

    assert Verdict.PASS is single.judge(tmp_path).result.verdict
    assert 3 == len(re.findall("<figcaption", (tmp_path / "report.html").read_text()))


def test_unreadable_directory_spares_others(tmp_path):
    """And no wrong one from failing."""
    simulate(tmp_path / "run", scenario.load("late", ["load.eps=100"]))
    history.write_rows(tmp_path / "run", "page_views", [])

    done = CliRunner().invoke(app, ["check", str(tmp_path / "none"), str(tmp_path / "run")])
    assert Verdict.FAIL.exit_code == done.exit_code


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A right run, to be damaged in a copy."""
    directory = tmp_path_factory.mktemp("right") / "run"
    simulate(directory, scenario.load("late", ["load.eps=60"]))
    return directory


@pytest.fixture
def run(right, tmp_path):
    """A copy of it."""
    return shutil.copytree(right, tmp_path / "run")


PHASE = b'{"t": 1, "kind": "phase", "phase": "start"}\n'


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("manifest.json", b"[]", "not the manifest of a run", id="a manifest that is a list"),
        pytest.param("manifest.json", b"{", "not JSON", id="a manifest cut short"),
        pytest.param("manifest.json", b'{"format": 3}', "format 3, this harness reads 2", id="another format"),
        pytest.param("manifest.json", b'{"format": 2}', "not the manifest of a run: .*missing", id="no keys"),
        pytest.param("scenario.toml", b"name = '\xff'", "not UTF-8", id="a scenario that is not UTF-8"),
        pytest.param("scenario.toml", b"", "it has no name", id="an empty scenario"),
        pytest.param("scenario.toml", b"name = 1 1", "not TOML", id="a scenario that is not TOML"),
        pytest.param("scenario.toml", b"name = 'x'\nold = 1", "unknown field old", id="a field of another version"),
        pytest.param("history.jsonl", b"[]\n", "not an event: Expected", id="a history of lists"),
        pytest.param("history.jsonl", PHASE + b'{"t"', "not an event: Input", id="a history cut short"),
        pytest.param("history.jsonl", b"{}\n", "not an event: .*required field `kind`", id="of no kind"),
        pytest.param("history.jsonl", PHASE + b'{"t": 1, "kind": "a"}', "not an event: .*'a'", id="of an unknown kind"),
        pytest.param("history.jsonl", b'{"kind": "phase", "phase": "a"}', "not an event: it has no time", id="no time"),
        pytest.param("history.jsonl", b"", "history.jsonl has no time for it", id="an empty history"),
        pytest.param("sent.parquet", b"", "damaged", id="no events"),
        pytest.param("history.jsonl", b"\xff\n", "not UTF-8", id="a history that is not UTF-8"),
    ],
)
def test_damaged_directory_is_named(run, name, text, said):
    """And the file in it, or the version."""
    (run / name).write_bytes(text)

    with pytest.raises(RunError, match=f"^{run}.*: {said}"):
        single.judge(run)


@pytest.mark.parametrize("name", ["manifest.json", "history.jsonl", "sent.parquet"])
def test_later_damage_revokes_the_pass(run, name):
    """Whoever reads its result or its page alone is told so."""
    single.judge(run)
    (run / name).write_bytes(b"{")

    with pytest.raises(RunError) as error:
        single.judge(run)
    told = json.loads((run / "result.json").read_text())
    assert ("unknown", str(error.value)) == (told["verdict"], told["why"])
    page = (run / "report.html").read_text()
    assert "<title>UNKNOWN · " in page
    assert str(error.value) in html.unescape(page)


def test_verdict_needs_its_manifest(run):
    """That it was made with nothing known is not what it says."""
    single.judge(run)
    (run / "manifest.json").unlink()

    with pytest.raises(RunError):
        single.judge(run)
    assert "unknown" == json.loads((run / "result.json").read_text())["verdict"]


def test_damaged_page_names_its_folder(run, monkeypatch):
    """From within it, too."""
    (run / "sent.parquet").unlink()
    monkeypatch.chdir(run)

    with pytest.raises(RunError):
        single.judge(Path())
    assert f"<title>UNKNOWN · {run.parent.name} · {run.name}</title>" in (run / "report.html").read_text()


def test_unjudged_run_has_a_result(run, tmp_path, monkeypatch):
    """Unknown, as where it broke off."""
    (run / "sent.parquet").unlink()
    monkeypatch.setattr(
        single.conductor, "run", lambda _, directory, *__: shutil.copytree(run, directory, dirs_exist_ok=True)
    )

    with pytest.raises(RunError, match=r"sent.parquet: missing"):
        single.run(scenario.load("late"), tmp_path / "reports", Status(Console(quiet=True)))
    [result] = (tmp_path / "reports").glob("late/2*/result.json")
    assert "unknown" == json.loads(result.read_text())["verdict"]


def test_foreign_folder_gets_no_file(tmp_path):
    """A path may be mistyped."""
    with pytest.raises(RunError):
        single.judge(tmp_path)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "column", "value", "said"),
    [
        pytest.param("sent.parquet", "due_us", None, "column due_us is missing", id="no due times"),
        pytest.param("sent.parquet", "offset", "many", "column offset is of type string", id="offsets that are text"),
        pytest.param("outputs/revenue.parquet", "at_s", None, "column at_s is missing", id="no times of rows"),
    ],
)
def test_incomplete_table_is_one_line(run, file, column, value, said):
    """It names the file and the column."""
    table = pq.read_table(run / file)
    at = table.schema.get_field_index(column)
    table = table.remove_column(at) if value is None else table.set_column(at, column, pa.array([value] * len(table)))
    pq.write_table(table, run / file)

    with pytest.raises(RunError, match=f"^{run / file}: damaged: {said}"):
        single.judge(run)


def test_page_crash_keeps_the_result(run, monkeypatch):
    """One line, and where the trace is; what was explained then ends in the same way."""
    monkeypatch.setattr(single.pages, "of_run", lambda *_: {}["cpu"])
    with pytest.raises(RunError, match=r"judged, and its page could not be made: KeyError: 'cpu'; see .*judge.log"):
        single.judge(run)
    assert "pass" == json.loads((run / "result.json").read_text())["verdict"]

    monkeypatch.setattr(single.verdict.timeline, "gather", lambda _: {}["sent"])
    with pytest.raises(RunError, match=r"cannot be explained: KeyError: 'sent'; see .*judge.log"):
        list(single.explain(run, "a", 1))


@pytest.mark.parametrize("key", history._Manifest.__annotations__)
def test_incomplete_manifest_is_refused(run, key):
    """It is named, before anything is judged."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[key]
    path.write_text(json.dumps(manifest))

    with pytest.raises(RunError, match=key):
        single.judge(run)


def test_crash_makes_its_trace_folder(run, monkeypatch):
    """The verdict is unknown, and says where it is."""
    (run / "logs").rmdir()
    monkeypatch.setattr(verdict, "assess", lambda _: [][0])

    assert f"see {run / 'logs' / 'judge.log'}" in single.judge(run).result.why
    assert "IndexError" in (run / "logs" / "judge.log").read_text()


@pytest.mark.parametrize("name", ["result.json", "report.html"])
def test_unwritable_result_is_one_line(run, name):
    """It names the file."""
    (run / name).mkdir()

    with pytest.raises(RunError, match=f"^{run / name}: cannot be written: "):
        single.judge(run)


def test_cause_survives_an_unwritable_result(tmp_path, monkeypatch):
    """Such as a full disk."""

    def broken(chosen, directory, status, command, metrics):
        (directory / "result.json").mkdir()
        raise StackError("no broker")

    monkeypatch.setattr(single.conductor, "run", broken)
    with pytest.raises(StackError, match="no broker"):
        single.run(scenario.load("late"), tmp_path, Status(Console(quiet=True)))


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    """Its directory has a result: unknown."""

    def full(chosen, directory, status, command, metrics):
        raise OSError(28, "No space left on device", str(directory / "plan.json"))

    monkeypatch.setattr(single.conductor, "run", full)
    with pytest.raises(RunError, match=r"plan.json: No space left on device: the run broke off"):
        single.run(scenario.load("late"), tmp_path, Status(Console(quiet=True)))
    [result] = tmp_path.glob("late/*/result.json")
    assert "unknown" == json.loads(result.read_text())["verdict"]


def test_mistyped_row_is_bad_usage(run):
    """The run can be read; it has no such row."""
    with pytest.raises(ScenarioError, match=r"--row x\|y: no such row in .*, expected or seen"):
        list(single.explain(run, "x|y", 1))
