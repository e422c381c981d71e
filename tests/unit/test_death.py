"""`harness explain` on a run whose pipeline died explains the death."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from harness import scenario
from harness.cli import app
from harness.errors import RunError
from harness.experiments import single
from harness.rundir import history, manifest
from harness.rundir.events import FaultInjected, Interrupted, PipelineEnded, Process

USELESS = "+- ~StreamingDataSourceV2ScanRelation[key#7, value#8]"
CAUSE = (
    "org.apache.kafka.common.errors.UnknownTopicOrPartitionException: This server does not host this topic-partition."
)
LOG = f"""\
26/12/01 02:00:02 ERROR MicroBatchExecution: Query page_views [id = a, runId = b] terminated with error
java.util.concurrent.ExecutionException: {CAUSE}
\tat java.base/java.util.concurrent.CompletableFuture.reportGet(CompletableFuture.java:396)
Caused by: {CAUSE}
=== Streaming Query ===
Logical Plan:
{USELESS}
"""


def dead(directory, log="", cause="", logs=("pipeline.log",)):
    """The directory of a run whose pipeline died while it was measured, after a fault; the last log has the cause."""
    chosen = scenario.load("kill")
    directory.mkdir()
    (directory / "logs").mkdir()
    for name in logs:
        (directory / "logs" / name).write_text(LOG if name == logs[-1] else "java.lang.Error: an older one\n")
    (directory / "scenario.toml").write_text(scenario.dump(chosen))
    with history.recording(directory) as recorder:
        manifest.write(directory, chosen, ["run", "kill"], "")
        recorder.write(Process(event="start", pid=1))
        recorder.write(FaultInjected(index=0, fault=chosen.fault[0]))
        recorder.write(PipelineEnded(code=1, last=USELESS, brokers_down=(2,), cause=cause, log=log))
        recorder.write(Interrupted(phase="measure", why="the pipeline ended by itself"))
    return directory


def lines(directory):
    """What explain prints of a run."""
    return [line.strip() for line in single.explain(directory, None, 10)]


@pytest.mark.parametrize(
    ("recorded", "logs", "log"),
    [
        pytest.param({}, ("pipeline.log",), "pipeline.log", id="older history"),
        pytest.param({}, ("pipeline.log", "pipeline-2.log", "pipeline-10.log"), "pipeline-10.log", id="the newest log"),
        pytest.param({"log": "logs/p.log"}, ("pipeline.log", "p.log"), "p.log", id="a log that is named"),
        pytest.param({"log": "logs/pipeline.log", "cause": CAUSE}, ("pipeline.log",), "pipeline.log", id="a cause"),
    ],
)
def test_explain_names_cause_and_log(tmp_path, recorded, logs, log):
    """The innermost cause, not the last line of a query plan; and the last lines of the log."""
    run = dead(tmp_path / "run", logs=logs, **recorded)
    first, *more = lines(run)

    assert "the pipeline ended by itself in phase measure with code 1, at " in first
    assert f"cause    {CAUSE}" in more
    assert f"log      {run / 'logs' / log}" in more
    assert f"Caused by: {CAUSE}" in more


def test_explain_names_what_came_before(tmp_path):
    """Faults, brokers that were down, and the verdict."""
    text = "\n".join(lines(dead(tmp_path / "run")))
    [fault, *_] = scenario.load("kill").fault

    assert f"before   {fault.name} at event {fault.at:,}, injected at " in text
    assert "not healed" in text
    assert "down     brokers 2" in text
    assert "verdict  unknown: the pipeline ended by itself in phase measure" in text
    assert "no anomaly" not in text


def test_explain_without_a_log(tmp_path):
    """The last line that was recorded is all that is known."""
    run = dead(tmp_path / "run")
    (run / "logs" / "pipeline.log").unlink()

    assert {f"cause    {USELESS}", "log      none is in the run directory"} <= set(lines(run))


def test_command_prints_the_death(tmp_path):
    """On standard output, exit code 0."""
    done = CliRunner().invoke(app, ["explain", str(dead(tmp_path / "run"))])

    assert (0, True) == (done.exit_code, CAUSE in done.output)


def test_a_row_of_a_dead_run_is_refused(tmp_path):
    """It could not be judged; the line says why."""
    with pytest.raises(RunError, match="could not be judged: the pipeline ended by itself"):
        list(single.explain(dead(tmp_path / "run"), "a|b", 1))


def test_an_interrupted_run_has_no_death(tmp_path):
    """It was ended by its user."""
    run = dead(tmp_path / "run")
    path = run / "history.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "pipeline_died" not in line))

    assert ["no anomaly: interrupted in phase measure: the pipeline ended by itself"] == lines(run)
