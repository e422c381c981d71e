"""What a checkpoint has still to read is there, or it is said which of it is not; what was read is no loss."""

from __future__ import annotations

import json

import pytest

from pipeline import checkpoint, loss, settings
from pipeline.checkpoint import CheckpointError, Reach
from pipeline.loss import NO_ID, Lost, Topic

READ = {"page_views": Reach({("clicks", 0): 50, ("clicks", 1): 70}, {("clicks", 0): 60, ("clicks", 1): 70})}


def clicks(**spans: tuple[int, int]) -> dict[str, Topic]:
    """The topic, with partitions p0, p1 and so on."""
    return {"clicks": Topic("an id", {int(name[1:]): span for name, span in spans.items()})}


@pytest.mark.parametrize(
    ("topics", "losses"),
    [
        pytest.param(clicks(p0=(0, 90), p1=(0, 90)), [], id="all there"),
        pytest.param(clicks(p0=(50, 90), p1=(70, 70)), [], id="deleted once it was read"),
        pytest.param(clicks(p0=(51, 90), p1=(0, 90)), [(0, 50, 1)], id="one record"),
        pytest.param(clicks(p0=(60, 60), p1=(90, 90)), [(0, 50, 10), (1, 70, 20)], id="in both partitions"),
        pytest.param(clicks(p0=(0, 90), p1=(0, 90), p2=(5, 9)), [(2, 0, 5)], id="of a partition that was added later"),
    ],
)
def test_what_was_deleted_unread_is_counted(topics, losses):
    """From where the query is to where the partition begins."""
    assert losses == [(one.partition, one.first, one.records) for one in loss.lost(READ, topics)]


def test_slower_query_loses_more():
    """Queries that are equally far are told together, and one that has read nothing yet has lost nothing."""
    reaches = {
        "page_views": Reach({("clicks", 0): 5}, {("clicks", 0): 5}),
        "sessions": Reach({("clicks", 0): 5}, {("clicks", 0): 5}),
        "dead_letter": Reach({("clicks", 0): 3}, {("clicks", 0): 3}),
        "conversions": Reach(),
    }
    found = loss.lost(reaches, clicks(p0=(9, 9)))

    assert [
        Lost("clicks", 0, 3, 9, ("dead_letter",)),
        Lost("clicks", 0, 5, 9, ("page_views", "sessions")),
    ] == found
    assert "clicks-0: 4 records lost to page_views, sessions (read up to offset 5, the partition begins at 9)" in str(
        loss.refuse(found)
    )


@pytest.mark.parametrize(
    ("known", "topics", "said"),
    [
        pytest.param({}, clicks(p0=(0, 59), p1=(0, 90)), "partition 0 ends at offset 59", id="shorter"),
        pytest.param({}, clicks(p0=(0, 90)), "partition 1 ends at offset 0", id="fewer partitions"),
        pytest.param({"clicks": "other"}, clicks(p0=(0, 90), p1=(0, 90)), "its id is an id", id="another id"),
    ],
)
def test_a_topic_made_again_is_refused(known, topics, said):
    """A batch that is to be run again must be there to its end too."""
    with pytest.raises(CheckpointError, match=f"topic clicks was deleted and made again: {said}"):
        loss.same(READ, known, topics)


@pytest.mark.parametrize("known", [{}, {"clicks": "an id"}, {"clicks": NO_ID}])
def test_the_same_topic_is_accepted(known):
    """With its id, or where none is known."""
    loss.same(READ, known, clicks(p0=(0, 60), p1=(0, 70)))


def test_read_topic_can_be_gone():
    """One that was never read is only missing."""
    assert {"clicks"} == loss.gone(READ, {"other"})
    assert set() == loss.gone({"page_views": Reach()}, {"other"})


def batch(number: int) -> str:
    """The log entry of a batch that ends at ten times its number."""
    return "v1\n" + json.dumps({"batchWatermarkMs": 0}) + "\n" + json.dumps({"clicks": {"0": 10 * number}})


@pytest.mark.parametrize(
    ("files", "read", "begun"),
    [
        pytest.param({}, None, None, id="nothing yet"),
        pytest.param(
            {"offsets/0": batch(0), "commits/0": "v1", "offsets/1": batch(1), "commits/1": "v1"}, 10, 10, id="stopped"
        ),
        pytest.param({"offsets/0": batch(0), "commits/0": "v1", "offsets/1": batch(1)}, 0, 10, id="killed in a batch"),
        pytest.param(
            {"offsets/0": batch(2), "sources/0/0": '\0v1\n{"clicks":{"0":7}}'}, 7, 20, id="killed in the first batch"
        ),
        pytest.param(
            {"offsets/8": batch(8), "offsets/9": batch(9), "commits/8": "v1", "sink/9": "v1"}, 90, 90, id="in the sink"
        ),
    ],
)
def test_query_position_is_in_its_log(tmp_path, files, read, begun):
    """A batch that is not committed is read again, unless the Parquet sink has it."""
    for name, text in files.items():
        path = tmp_path / "checkpoint" / "revenue" / name
        if name.startswith("sink/"):
            path = tmp_path / "output" / "revenue" / "_spark_metadata" / name.removeprefix("sink/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    where = ["--checkpoint", str(tmp_path / "checkpoint"), "--output", str(tmp_path / "output")]
    reach = checkpoint.reach(settings.parse(["--bootstrap", "b:1", *where]), "revenue")

    assert (read, begun) == (reach.read.get(("clicks", 0)), reach.begun.get(("clicks", 0)))


def test_topic_ids_are_kept(tmp_path):
    """None before anything has been read: a topic that is made again by then has lost nothing."""
    asked = settings.parse(["--bootstrap", "b:1", "--checkpoint", str(tmp_path), "--output", str(tmp_path)])

    assert {} == checkpoint.topics(asked)
    checkpoint.sign(asked, {"clicks": "an id"})
    assert {} == checkpoint.topics(asked)
    begins = tmp_path / "page_views" / "sources" / "0" / "0"
    begins.parent.mkdir(parents=True)
    begins.touch()
    assert {"clicks": "an id"} == checkpoint.topics(asked)
    (tmp_path / "topics.json").unlink()
    with pytest.raises(CheckpointError, match=r"topics.json: missing, though a query has begun"):
        checkpoint.topics(asked)
    (tmp_path / "topics.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"topics.json: damaged"):
        checkpoint.topics(asked)
