"""A run directory that is damaged, or hostile: one line that names the file, in bounded memory and time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.experiments import single
from harness.host import environment

RIGHT = Path(__file__).parent.parent / "golden" / "format-2" / "right"
READ = (
    *("manifest.json", "scenario.toml", "history.jsonl", "sent.parquet"),
    *("outputs/page_views.parquet", "checkpoints/page_views/offsets/1", "checkpoints/page_views/commits/1"),
)
"""A file of each kind that a judgement reads."""
WRITTEN = ("result.json", "report.html")
MEMORY_BYTES = 2**30
HANGS_S = 500
"""Of a minute each none takes more than a moment: a check that hangs is ended."""


def truncated(path: Path) -> None:
    """The first half is left."""
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    """Nothing is left."""
    os.truncate(path, 0)


def doubled(path: Path) -> None:
    """As by an append that was meant to be a write."""
    path.write_bytes(path.read_bytes() * 2)


def removed(path: Path) -> None:
    """It is gone."""
    path.unlink()


def linked_to(target: str) -> Callable[[Path], None]:
    """A damage that puts a link in its place."""

    def linked(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return linked


def folder(path: Path) -> None:
    """A directory in its place, with something in it."""
    path.unlink(missing_ok=True)
    (path / "in it").mkdir(parents=True)


def pipe(path: Path) -> None:
    """A pipe that nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def zeros(path: Path) -> None:
    """A gigabyte of zeros, which takes no room."""
    path.write_bytes(b"")
    os.truncate(path, 2**30)


def swollen(path: Path) -> None:
    """A bomb: few bytes that are a gigabyte once they are decompressed; a text is followed by a gigabyte of zeros."""
    if path.suffix != ".parquet":
        os.truncate(path, 2**30)
        return
    schema = pq.read_schema(path)
    # Many rows that take nothing, or few rows of long texts.
    rows, long = (2**20, "") if "values" not in schema.names else (1, "0" * 2**24)
    at = pa.array(np.zeros(rows, dtype="i8"))
    block = [pa.array([long]).take(at) if pa.types.is_string(kind) else at.cast(kind) for kind in schema.types]
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for _ in range(16):
            writer.write_table(pa.table(block, schema=schema))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncated,
    "emptied": emptied,
    "doubled": doubled,
    "removed": removed,
    "a link to itself": lambda path: linked_to(path.name)(path),
    "a link to /dev/zero": linked_to("/dev/zero"),
    "a link to nothing": linked_to("nowhere"),
    "a directory": folder,
    "a pipe": pipe,
    "zeros": zeros,
    "a bomb": swollen,
}
HARMLESS = {
    ("checkpoints/page_views/commits/1", damage) for damage in ("truncated", "emptied", "doubled", "zeros", "a bomb")
}
"""Of a commit, that it is there is all that is looked at."""


CHECKS = """
import atexit, sys
from pathlib import Path

def note():
    status = Path("/proc/self/status")
    peak = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else ["0"]
    Path("peak").write_text(peak[0])

atexit.register(note)
from harness import cli
cli.main()
"""
"""The command line, which notes the most memory that it had, in KiB; 0 where the kernel does not tell."""


@dataclass(frozen=True)
class Checked:
    """What `harness check` made of all damaged directories, in one process: its lines, and its most memory in bytes."""

    code: int
    lines: list[str]
    memory_bytes: int


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> Iterator[Checked]:
    """Every file damaged in every way, each in a directory of its own, and all of them checked."""
    root = tmp_path_factory.mktemp("damaged")
    cases = {name(file, damage): (file, damage) for file in (*READ, *WRITTEN) for damage in DAMAGES}
    for case, (file, damage) in cases.items():
        shutil.copytree(RIGHT, root / case)
        (root / case / file).touch()
        DAMAGES[damage](root / case / file)
    command = [sys.executable, "-c", CHECKS, "check", *cases]
    done = subprocess.run(
        command, cwd=root, env=environment.own(), capture_output=True, text=True, check=False, timeout=HANGS_S
    )
    yield Checked(done.returncode, done.stderr.splitlines(), int((root / "peak").read_text()) * 1024)
    shutil.rmtree(root)


def name(file: str, damage: str) -> str:
    """The name of a damaged directory."""
    return re.sub(r"\W", "-", f"{damage} {file}")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", READ)
def test_damage_is_one_line(checked, file, damage):
    """It names the file, or the log that has a gap there; a damage of what is not read is none."""
    case = name(file, damage)
    found = [line for line in checked.lines if line.startswith(f"harness: {case}/")]
    judged = [line for line in checked.lines if f"/{case}/report.html" in line or f" {case}/report.html" in line]

    if (file, damage) in HARMLESS:
        assert ([], 1) == (found, len(judged))
    elif (file, damage) == ("history.jsonl", "emptied"):  # what it should have told is missed elsewhere
        assert "history.jsonl has no time for it" in found[0]
    else:
        [line] = found
        assert line.startswith((f"harness: {case}/{file}:", f"harness: {case}/{Path(file).parent}:")), line
        assert not judged


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", WRITTEN)
def test_results_replace_what_was_there(checked, file, damage):
    """They are written anew, through no link; a directory stays, and is named."""
    case = name(file, damage)
    found = [line for line in checked.lines if line.startswith(f"harness: {case}/")]

    assert ([f"harness: {case}/{file}: cannot be written: Is a directory"] if damage == "a directory" else []) == found


def test_damage_takes_bounded_memory(checked):
    """No more than 1 GB, of all of them; nothing crashed, and no run of unknown content passed for bad usage."""
    assert checked.memory_bytes <= MEMORY_BYTES
    assert 3 == checked.code
    assert not [line for line in checked.lines if "Traceback" in line or "crashed" in line]


def test_traces_follow_no_link(tmp_path, monkeypatch):
    """A hostile directory has a link where traces go: what it leads to stays as it was."""
    shutil.copytree(RIGHT, tmp_path / "run")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run" / "logs").mkdir()
    for link in ("logs/judge.log", "logs/judge.log.tmp", "result.json", "result.json.tmp", "report.html.tmp"):
        (tmp_path / "run" / link).unlink(missing_ok=True)
        (tmp_path / "run" / link).symlink_to(tmp_path / "precious")

    def crashes(*_: object) -> None:
        raise KeyError("a crash")

    monkeypatch.setattr(single.verdict, "assess", crashes)
    monkeypatch.setattr(single.verdict, "judge", crashes)
    single.judge(tmp_path / "run")

    assert "precious" == (tmp_path / "precious").read_text()
    assert "a crash" in (tmp_path / "run" / "logs" / "judge.log").read_text()
