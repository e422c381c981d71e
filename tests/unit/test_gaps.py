"""Offsets with gaps, as transactions leave them: every record is still found in the batch that read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.judge import timeline, verdict
from harness.model import Verdict
from harness.rundir import history

RIGHT = Path(__file__).parent.parent / "golden" / "format-2" / "right"


def spread(offset: int) -> int:
    """Behind every third record two offsets that are no records; an exclusive end lies behind its markers."""
    return offset + 2 * (offset // 3)


@pytest.fixture
def gapped(tmp_path) -> Path:
    """A right run, as if its producer had committed and aborted transactions."""
    run = tmp_path / "run"
    shutil.copytree(RIGHT, run)
    sent = pq.read_table(run / "sent.parquet")
    offsets = [spread(offset) if offset >= 0 else offset for offset in sent["offset"].to_pylist()]
    column = pa.array(offsets, sent.schema.field("offset").type)
    pq.write_table(sent.set_column(sent.schema.names.index("offset"), "offset", column), run / "sent.parquet")
    for path in run.glob("checkpoints/*/offsets/*"):
        version, metadata, *sources = path.read_text().splitlines()
        spreads = [
            json.dumps(
                {topic: {part: spread(end) for part, end in ends.items()} for topic, ends in json.loads(source).items()}
            )
            for source in sources
        ]
        path.write_text("\n".join([version, metadata, *spreads]))
    return run


def test_gaps_move_no_record(gapped):
    """Each record is in the batch that it was in without gaps."""
    dense, apart = (timeline.gather(history.read(run)) for run in (RIGHT, gapped))

    assert dense.batch_of.keys() == apart.batch_of.keys()
    for query in dense.batch_of:
        assert dense.batch_of[query].tolist() == apart.batch_of[query].tolist()


def test_gaps_accuse_no_row(gapped):
    """Nothing is wrong; what lies in the gaps is not known from the run, so the verdict is unknown, and names it."""
    result = verdict.judge(history.read(gapped))

    assert () == tuple(result.anomalies)
    assert Verdict.UNKNOWN is result.verdict
    assert "offsets were read that no acknowledgement covers" in result.why
    assert "transactions" in result.why
