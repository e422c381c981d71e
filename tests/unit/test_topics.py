"""What brokers say of offsets while a partition moves, without brokers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from harness.errors import StackError
from harness.kafka import topics


class Admin:
    """An admin client whose broker answers so, one after the other; a number is an offset, and the last is repeated."""

    def __init__(self, *answers: KafkaError | int) -> None:
        self.answers = list(answers)

    def list_topics(self, timeout: float) -> SimpleNamespace:
        """One topic of one partition."""
        return SimpleNamespace(topics={"clicks": SimpleNamespace(partitions={0: None})})

    def list_offsets(
        self, asked: Mapping[TopicPartition, object], request_timeout: float
    ) -> dict[TopicPartition, Future]:
        """The next answer for each."""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        future: Future = Future()
        if isinstance(answer, int):
            future.set_result(SimpleNamespace(offset=answer))
        else:
            future.set_exception(KafkaException(answer))
        return dict.fromkeys(asked, future)


def ends(monkeypatch: pytest.MonkeyPatch, *answers: KafkaError | int) -> Mapping[str, Mapping[int, int]]:
    """The ends that are told where the broker answers so."""
    admin = Admin(*answers)
    monkeypatch.setattr(topics, "_admin", lambda bootstrap: admin)
    return topics.end_offsets("localhost:1", ["clicks"])


def test_who_does_not_lead_a_partition_yet_is_asked_again(monkeypatch):
    """It leads in the metadata already: a moment later it tells."""
    moves = [KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION), KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)]

    assert {"clicks": {0: 7}} == ends(monkeypatch, *moves, 7)


def test_an_answer_that_waiting_does_not_change_is_an_error_at_once(monkeypatch):
    """In one line; where no leader comes, too, once its time is over."""
    with pytest.raises(StackError, match="does not answer: "):
        ends(monkeypatch, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    monkeypatch.setattr(topics, "ADMIN_S", 0.1)
    with pytest.raises(StackError, match="no leader tells its offsets after 0 s"):
        ends(monkeypatch, KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
