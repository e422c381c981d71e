"""A checkpoint that must not be continued is refused by the file that is wrong; a right one never is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline import checkpoint, settings
from pipeline.checkpoint import CheckpointError

OFFSETS = "v1\n" + json.dumps({"batchWatermarkMs": 0}) + "\n" + json.dumps({"transactions": {"0": 5}})
COMMIT = "v1\n{}"


@pytest.fixture
def given(tmp_path):
    """Revenue at batch 6, which has begun and is not committed; batches 0 and 1 are forgotten, 5 is in the sink."""
    folder = tmp_path / "checkpoint" / "revenue"
    log = tmp_path / "output" / "revenue" / "_spark_metadata"
    for path, text in {
        **{folder / "offsets" / str(number): OFFSETS for number in range(2, 7)},
        **{folder / "commits" / str(number): COMMIT for number in range(2, 6)},
        folder / "metadata": "{}",
        log / "4.compact": "v1",
        log / "5": "v1",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    where = ["--checkpoint", str(tmp_path / "checkpoint"), "--output", str(tmp_path / "output")]
    return folder, settings.parse(["--bootstrap", "b:1", *where, "--queries", "revenue"])


def damaged(path: Path, content: str | None) -> None:
    """Write it anew, or remove it."""
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="as it is after a kill"),
        pytest.param({"commits/6": COMMIT, "../../output/revenue/_spark_metadata/6": "v1"}, id="as it is after a stop"),
        pytest.param({"offsets/3": None, "commits/2": None}, id="killed while old batches were forgotten"),
        pytest.param({"../../output/revenue/_spark_metadata/6": "v1"}, id="killed after the sink"),
    ],
)
def test_a_right_checkpoint_is_continued(given, change):
    """Wherever the last process ended."""
    folder, asked = given
    for name, content in change.items():
        damaged(folder / name, content)

    checkpoint.whole(asked)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"offsets/6": OFFSETS[:20]}, r"offsets/6: damaged", id="truncated"),
        pytest.param({"offsets/6": ""}, r"offsets/6: damaged", id="empty"),
        pytest.param({"offsets/6": "v1\n{}"}, r"offsets/6: damaged \(it ends too early\)", id="a line is missing"),
        pytest.param({"commits/5": "v"}, r"commits/5: damaged", id="commit truncated"),
        pytest.param({"metadata": None}, r"metadata is missing", id="no metadata"),
        pytest.param({"offsets/5": None}, r"offsets/5 is missing", id="a hole"),
        pytest.param({"offsets/6": None, "commits/6": COMMIT}, r"offsets/6 is missing", id="committed, never begun"),
        pytest.param({"commits/5": None}, r"commits/5 is missing", id="a commit is missing"),
        pytest.param(
            {"../../output/revenue/_spark_metadata/7": "v1"},
            r"older than its results: it is at batch 6, .*/revenue holds batch 7",
            id="older than its sink",
        ),
        pytest.param(
            {"../../output/revenue/_spark_metadata/5": None},
            r"newer than its results: batch 5 is committed, .*/revenue ends at batch 4",
            id="results of an older moment",
        ),
        pytest.param(
            {f"../../output/revenue/_spark_metadata/{name}": None for name in ("5", "4.compact")},
            r"newer than its results: batch 5 is committed, .*/revenue holds none",
            id="no results",
        ),
    ],
)
def test_wrong_checkpoint_is_refused_by_cause(given, change, said):
    """One line that names the file and what to do."""
    folder, asked = given
    for name, content in change.items():
        damaged(folder / name, content)

    with pytest.raises(CheckpointError, match=said):
        checkpoint.whole(asked)


def test_results_without_any_checkpoint_are_refused(given, tmp_path):
    """Spark would number its batches from 0 again, and the sink would skip them."""
    _, asked = given
    (tmp_path / "checkpoint").rename(tmp_path / "elsewhere")

    with pytest.raises(CheckpointError, match=r"older than its results: it is at batch -1"):
        checkpoint.whole(asked)


def test_missing_settings_are_refused_once_begun(given, tmp_path):
    """They were written before: what is there is not all that was."""
    with pytest.raises(CheckpointError, match=r"settings.json: missing, though a query has begun"):
        checkpoint.agree(given[1])
    where = ["--checkpoint", str(tmp_path / "new"), "--output", str(tmp_path)]
    checkpoint.agree(settings.parse(["--bootstrap", "b:1", *where]))


def test_the_last_commit_is_the_newest_file_of_the_log(given):
    """Its time; of a query that has committed nothing there is none."""
    folder, asked = given
    for number, at_s in ((3, 100), (4, 300), (5, 200)):
        os.utime(folder / "commits" / str(number), (at_s, at_s))
    os.utime(folder / "commits" / "2", (50, 50))

    assert 300 == checkpoint.committed_s(asked, "revenue")
    assert checkpoint.committed_s(asked, "sessions") is None
