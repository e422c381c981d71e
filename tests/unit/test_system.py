"""A pipeline that ends by itself is an error, unless that belongs to the plan."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from harness.engines.process import Checkpoint, System, ticking
from harness.errors import PipelineDied, StackError
from harness.host import processes
from harness.rundir import history

COUNTS_ARGUMENTS = "import sys; print('not like this', file=sys.stderr); sys.exit(len(sys.argv))"


@pytest.fixture
def system(tmp_path) -> Iterator[System]:
    """A pipeline whose exit code is the number of its arguments, the program included."""
    with history.recording(tmp_path) as recorder:
        yield System([sys.executable, "-c", COUNTS_ARGUMENTS], tmp_path / "pipeline.log", tmp_path, recorder)


def ended(system: System) -> int:
    """Wait for its end."""
    assert comes(lambda: system.ended() is not None)
    code = system.ended()
    assert code is not None
    return code


def comes(condition: Callable[[], bool]) -> bool:
    """Whether it holds within 20 s."""
    deadline = time.monotonic() + 20
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds


def test_unflushed_output_is_read(tmp_path, monkeypatch):
    """Its standard output is a pipe here, which Python would fill before it writes; the pipeline goes on meanwhile."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    program = "import sys; print('{\"event\": \"started\"}'); sys.stdin.read(); __import__('signal').pause()"
    with (
        history.recording(tmp_path) as recorder,
        contextlib.closing(
            System([sys.executable, "-c", program], tmp_path / "pipeline.log", tmp_path, recorder)
        ) as system,
    ):
        system.start()
        assert comes(system.has_started)


def test_extra_flags_last_one_start(system):
    """The next start is without them."""
    system.start(["one", "two"])
    assert 3 == ended(system)
    system.start()
    assert 1 == ended(system)


def test_expected_exit_lasts_until_start(system):
    """Its last line is there all the same."""
    system.start()
    system.expect_end()
    ended(system)
    system.check()

    assert "not like this" == system.last_line()

    system.start()
    ended(system)
    with pytest.raises(StackError, match="ended by itself with code 1: not like this"):
        system.check()

    system.start(may_end=True)
    ended(system)
    system.check()


def test_stdout_is_drained_before_exit(system):
    """Its last words are in the log by then, though they came over its standard output, and in a hurry."""
    program = "import sys; [print(number) for number in range(50_000)]; print('too old'); sys.exit(1)"
    system.become([sys.executable, "-c", program])
    system.start()
    assert comes(system.has_ended)

    assert (1, "too old") == (system.ended(), system.last_line())


def test_working_pipelines_end_is_judged(tmp_path):
    """Before that, it is a pipeline that cannot be started."""
    works = "print('{\"event\": \"started\"}', flush=True); raise SystemExit('a bad record')"
    with history.recording(tmp_path) as recorder:
        system = System([sys.executable, "-c", works], tmp_path / "pipeline.log", tmp_path, recorder)
        system.start()
        assert comes(system.has_started)
        ended(system)
        with pytest.raises(PipelineDied, match="ended by itself with code 1: a bad record") as died:
            system.check()

    assert (1, "a bad record") == (died.value.code, died.value.last)


def test_death_names_cause_and_log(tmp_path):
    """Not the query plan that is printed after it."""
    plan = "=== Streaming Query ===\\n+- ~StreamingDataSourceV2ScanRelation[key#7]"
    works = f"print('{{\"event\": \"started\"}}', flush=True); raise SystemExit('java.io.IOException: gone\\n{plan}')"
    with history.recording(tmp_path) as recorder:
        system = System([sys.executable, "-c", works], tmp_path / "pipeline.log", tmp_path, recorder)
        system.start()
        assert comes(system.has_started)
        ended(system)
        with pytest.raises(PipelineDied, match=r"code 1: java.io.IOException: gone; see .*pipeline.log") as died:
            system.check()

    assert "java.io.IOException: gone" == died.value.cause


def test_leftovers_stay_in_the_run(tmp_path):
    """Python's temporary files here; Spark and Java are told by the environment."""
    tells = "import os, tempfile; tempfile.mkstemp(); exit('\\n'.join(map(os.environ.get, ('SPARK_LOCAL_DIRS', 'SPARK_SUBMIT_OPTS'))))"
    folder = tmp_path / "temporary"
    folder.mkdir()
    with history.recording(tmp_path) as recorder:
        system = System([sys.executable, "-c", tells], tmp_path / "pipeline.log", folder, recorder, java="-XX:Quick")
        system.start()
        ended(system)

    spark, java = (tmp_path / "pipeline.log").read_text().splitlines()
    assert 1 == len(list(folder.iterdir()))
    assert str(folder) == spark
    assert java.endswith(f"-XX:Quick -Djava.io.tmpdir={folder}")


def test_other_lines_go_to_log(tmp_path):
    """Of other shapes, of other types, and of no text."""
    odd = [
        b'{"event": "progress", "progress": {"rows": 5}}',
        b'{"event": "progress", "query": "q", "progress": {"batchId": 1, "stateOperators": null}}',
        b'{"event": "progress", "query": "q", "progress": {"batchId": 1, "stateOperators": [{"memoryUsedBytes": null}]}}',
        b'{"level": "INFO"}',
        b'"\xff"',
        b"[1]",
    ]
    right = b'{"event": "progress", "query": "q", "progress": {"batchId": 3}}'
    (tmp_path / "said").write_bytes(b"\n".join([*odd, right, b'{"event": "started"}']) + b"\n")
    with history.recording(tmp_path) as recorder:
        system = System(["cat", str(tmp_path / "said")], tmp_path / "pipeline.log", tmp_path, recorder)
        system.start()
        assert comes(system.has_started)
        system.kill()

    assert odd == (tmp_path / "pipeline.log").read_bytes().splitlines()
    told = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [3] == [one["batch"] for one in told if one["kind"] == "progress"]


def test_two_never_share_a_checkpoint(tmp_path):
    """The one that runs must end before another is started."""
    with history.recording(tmp_path) as recorder:
        system = System(
            [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "pipeline.log", tmp_path, recorder
        )
        system.start()
        try:
            with pytest.raises(StackError, match="the pipeline runs already"):
                system.start()
        finally:
            system.kill()


STANDS_BY = """
import pathlib, sys, time
say = lambda event: print('{"event": "%s"}' % event, flush=True)
if "--standby" in sys.argv:
    say("standing by")
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.01)
    say("taking over")
say("started")
time.sleep(600)
"""


def test_standby_takes_over(tmp_path):
    """Its start is the moment at which it takes over; both are followed, each with a log of its own."""
    free = tmp_path / "free"
    with history.recording(tmp_path) as recorder:
        system = System([sys.executable, "-c", STANDS_BY, str(free)], tmp_path / "pipeline.log", tmp_path, recorder)
        system.start()
        assert comes(system.has_started)
        system.stand_by()
        assert comes(system.stands_by)
        first, (_, second) = system.pid, system.pids()
        system.kill()
        system.check()
        assert not system.is_up()
        free.touch()
        system.start()
        assert comes(system.is_up)
        assert not system.stands_by()
        assert second == system.pid
        system.kill()

    told = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [("start", first), ("ready", None), ("stand by", second), ("start", second), ("ready", None)] == [
        (one["event"], one.get("pid")) for one in told if one["kind"] == "process"
    ]
    assert {"pipeline.log", "pipeline-2.log"} == {path.name for path in tmp_path.glob("*.log")}


def test_standby_ends_with_the_run(tmp_path):
    """It is dismissed before the first is asked to end; or it would take over."""
    with history.recording(tmp_path) as recorder:
        system = System([sys.executable, "-c", STANDS_BY, "never"], tmp_path / "pipeline.log", tmp_path, recorder)
        system.start()
        system.stand_by()
        assert comes(system.stands_by)
        system.dismiss()
        assert 1 == len(system.pids())
        system.stand_by()
        system.close()

    assert not system.pids()


def test_dead_standby_is_an_error(tmp_path):
    """None would take over."""
    ends = "import sys, time; time.sleep(60) if '--standby' not in sys.argv else sys.exit('no broker')"
    with history.recording(tmp_path) as recorder:
        system = System([sys.executable, "-c", ends], tmp_path / "pipeline.log", tmp_path, recorder)
        system.start()
        system.stand_by()
        assert comes(lambda: 1 == len(system.pids()))
        with pytest.raises(StackError, match="the pipeline that stood by ended by itself: no broker"):
            system.check()
        system.close()


def test_ended_run_is_not_restarted(tmp_path):
    """Whatever a fault that is under way still wants."""
    with history.recording(tmp_path) as recorder:
        system = System(["true"], tmp_path / "pipeline.log", tmp_path, recorder)
        system.close()
        with pytest.raises(StackError, match="the run is over"):
            system.start()


def test_last_line_skips_stack_frames(tmp_path):
    """Java writes those below."""
    says = "print('pipeline: checkpoint damaged\\njava.lang.Error\\n\\tat java.base/java.lang.Thread.run(Thread.java:840)\\n')"
    with history.recording(tmp_path) as recorder:
        system = System([sys.executable, "-c", says], tmp_path / "pipeline.log", tmp_path, recorder)
        system.start()
        ended(system)
        system.kill()

    assert "java.lang.Error" == system.last_line()


def test_missing_command_is_one_line(tmp_path):
    """It names the command, and the field that it comes from."""
    with history.recording(tmp_path) as recorder:
        system = System(["no-such-engine"], tmp_path / "pipeline.log", tmp_path, recorder)
        with pytest.raises(StackError, match="no-such-engine: No such file or directory; see pipeline"):
            system.start()


def test_unbegun_query_is_not_read(tmp_path):
    """A query in its first batch has committed nothing, and the others have not caught up for it."""
    for log in ("offsets", "commits"):
        (tmp_path / "quick" / log).mkdir(parents=True)
    own = '{"p-clicks": {"0": 30, "1": 12}}'
    offsets = ["v1", '{"batchWatermarkMs": 7}', own, '{"a-table-of-theirs": {"0": 3}}']
    (tmp_path / "quick" / "offsets" / "0").write_text("\n".join(offsets))
    (tmp_path / "quick" / "commits" / "0").write_text("v1\n{}")
    reads = {"quick": ["p-clicks"], "slow": ["p-clicks", "p-sales"]}
    with history.recording(tmp_path) as recorder:
        checkpoint = Checkpoint(f"{tmp_path}/{{query}}", tmp_path / "kept", reads, recorder)
        checkpoint.sweep()

    assert (45, 0, 0) == (checkpoint.committed("quick"), checkpoint.committed("slow"), checkpoint.read())


def test_lost_follower_is_reported():
    """And not tried again."""
    told, tries = [], []

    def tick() -> None:
        tries.append(1)
        raise KeyError("batchWatermarkMs")

    thread = ticking(0.001, tick, threading.Event(), told.append)
    thread.start()
    thread.join(10)

    assert ([1], ["'batchWatermarkMs'"]) == (tries, [str(error) for error in told])


def test_kill_freezes_the_tree_first(system, monkeypatch):
    """Or the batch in which it was to die would end meanwhile."""
    stood = []

    def cpu_s(pid: int) -> float:
        stood.append(comes(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED))
        return 0.0

    monkeypatch.setattr(processes, "tree_cpu_s", cpu_s)
    system.become([sys.executable, "-c", "while True: pass"])
    system.start()
    system.kill()

    assert [True] == stood
    assert -signal.SIGKILL == system.ended()
