"""Spark's own log, read: offsets, watermark and times of each batch; what is missing or damaged is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.engines.spark.offset_log import read
from harness.errors import RunError
from harness.job.lateness import Watermarks


def checkpoint(folder: Path, numbers: list[int]) -> Path:
    """A query's checkpoint with these batches, ten records and a second of watermark a batch."""
    for number in numbers:
        end, metadata = (
            json.dumps({"clickstream": {"0": 10 * (number + 1)}}),
            json.dumps({"batchWatermarkMs": 1000 * number}),
        )
        for log, text in (("offsets", f"v1\n{metadata}\n{end}\n-"), ("commits", "v1\n{}")):
            path = folder / log / str(number)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return folder


RECORDED = {0: (100.0, 100.5), 1: (101.0, 200.0), 2: (201.0, 201.5)}


def test_batch_equals_its_checkpoint_files(tmp_path):
    """When it was begun and committed is what was recorded: files are copied, and then have other times."""
    first, second = read(checkpoint(tmp_path, [0, 1]), {number: RECORDED[number] for number in (0, 1)})

    assert (0, {("clickstream", 0): 10}, 0, 100.5, 100.0) == (
        first.number,
        first.ends,
        first.watermark_ms,
        first.committed_s,
        first.begun_s,
    )
    assert (1, {("clickstream", 0): 20}, 1000, 200.0, 101.0) == (
        second.number,
        second.ends,
        second.watermark_ms,
        second.committed_s,
        second.begun_s,
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(lambda folder: (folder / "commits" / "1").unlink(), "batch 1 was not recorded", id="a hole"),
        pytest.param(lambda folder: (folder / "offsets" / "1").unlink(), "offsets/1: No such file", id="no offsets"),
        pytest.param(
            lambda folder: (folder / "offsets" / "1").write_text("v1\n{"), "offsets/1: not an offset log", id="cut off"
        ),
        pytest.param(
            lambda folder: (folder / "offsets" / "1").write_text("v1\n{}\n-\n-"),
            "offsets/1: not an offset log",
            id="no watermark",
        ),
        pytest.param(
            lambda folder: (folder / "offsets" / "1").write_text('v1\n{"batchWatermarkMs": 0}\n-'),
            "offsets/1: it has 1 sources, others 2",
            id="cut off after a source",
        ),
        pytest.param(
            lambda folder: (folder / "commits" / "2").unlink(),
            "commits/2: missing: history.jsonl has the time",
            id="the last is gone",
        ),
        pytest.param(
            lambda folder: shutil.rmtree(folder / "commits"),
            "commits/0: missing: history.jsonl has the time",
            id="all are gone",
        ),
        pytest.param(
            lambda folder: checkpoint(folder, [3]),
            "commits/3: history.jsonl has no time for it",
            id="a history cut off",
        ),
    ],
)
def test_missing_or_damaged_file_is_named(tmp_path, damage, said):
    """Without it nothing can be said about the run."""
    damage(checkpoint(tmp_path, [0, 1, 2]))

    with pytest.raises(RunError, match=said):
        read(tmp_path, RECORDED)


@pytest.mark.parametrize(
    ("lateness", "before"), [("previous", [0, 10, 20]), ("own", [10, 20, 30]), ("never", [-(2**62)] * 3)]
)
def test_lateness_uses_previous_batch_watermark(lateness, before):
    """And by the batch's own, or never, in pipelines that are wrong."""
    marks = Watermarks((10, 20, 30), lateness)

    assert before == [marks.before(batch) for batch in range(3)]
    assert [0, 1, 1, None] == [marks.first_at(moment) for moment in (10, 11, 20, 31)]
