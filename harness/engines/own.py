"""A job of one's own as a process: unchanged, and so followed by what Spark writes, not by what the job prints.

It is ready once every query has begun, by the files of its checkpoint. Spark's event log, switched on from outside by
SPARK_CONF_DIR, has what Spark reports of each batch.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.engines.process import System
from harness.rundir.events import Process, Recorder


class OwnSystem(System):
    """The job's process, which prints nothing of ours: `look` finds that its queries have begun."""

    def __init__(
        self, args: list[str], log: Path, temporary: Path, history: Recorder, checkpoints: Mapping[str, Path]
    ) -> None:
        """`checkpoints` are the folders of the queries' checkpoints, by query."""
        super().__init__(args, log, temporary, history)
        self._checkpoints = checkpoints
        self._started_s = 0.0

    def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
        """Start it; it is ready again once each query has written to its checkpoint since."""
        self._started_s = time.time()
        super().start(flags, may_end)

    def look(self) -> None:
        """Mark it as ready if every query has begun."""
        now = self._now
        if now is None or now.started.is_set() or not now.is_alive():
            return
        if all(_newest_s(checkpoint) >= self._started_s for checkpoint in self._checkpoints.values()):
            self._worked = True
            self._history.write(Process(event="ready"))
            now.started.set()


def _newest_s(checkpoint: Path) -> float:
    """The epoch second at which a query last began, planned or committed a batch; 0 where it never has."""
    files = [checkpoint / "metadata"]
    for log in ("offsets", "commits"):
        folder = checkpoint / log
        names = os.listdir(folder) if folder.is_dir() else []
        files += [folder / name for name in names if name.isdigit()]
    found = 0.0
    for file in files:
        try:
            found = max(found, file.stat().st_mtime)
        except OSError:  # Spark deletes old ones
            continue
    return found


def command(parts: Sequence[str], environment: Mapping[str, str], folder: Path, places: Mapping[str, str]) -> list[str]:
    """The command line that starts a job in its folder and environment, with placeholders filled in."""
    assignments = [f"{name}={filled(value, places)}" for name, value in environment.items()]
    return ["env", f"--chdir={folder}", *assignments, *(filled(part, places) for part in parts)]


def filled(text: str, places: Mapping[str, str]) -> str:
    """A text with its placeholders filled in."""
    for name, value in ({"python": sys.executable} | dict(places)).items():
        text = text.replace("{" + name + "}", value)
    return text


def spark_conf(folder: Path, events: Path, jars: Sequence[Path]) -> None:
    """Write a SPARK_CONF_DIR: what the environment's own has, the event log, and jars for Spark to load."""
    folder.mkdir(parents=True)
    events.mkdir(parents=True)
    given = Path(os.environ.get("SPARK_CONF_DIR", "")) / "spark-defaults.conf"
    lines = given.read_text().splitlines() if os.environ.get("SPARK_CONF_DIR") and given.is_file() else []
    lines += [
        "spark.eventLog.enabled true",
        f"spark.eventLog.dir file://{events}",
        "spark.eventLog.compress false",
        "spark.eventLog.rolling.enabled false",
    ]
    if jars:
        lines.append(f"spark.jars {','.join(map(str, jars))}")
    (folder / "spark-defaults.conf").write_text("\n".join(lines) + "\n")
