"""What brokers say of offsets while a partition moves, without brokers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from harness.errors import StackError, Unreachable, Unready
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


def test_new_leader_is_asked_again(monkeypatch):
    """It leads in the metadata already: a moment later it tells."""
    moves = [KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION), KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)]

    assert {"clicks": {0: 7}} == ends(monkeypatch, *moves, 7)


def test_permanent_error_is_immediate(monkeypatch):
    """In one line; where no leader comes, too, once its time is over."""
    with pytest.raises(StackError, match="does not answer: "):
        ends(monkeypatch, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    monkeypatch.setattr(topics, "ADMIN_S", 0.1)
    with pytest.raises(StackError, match="no leader answers with its offsets after 0 s"):
        ends(monkeypatch, KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))


def metadata(monkeypatch: pytest.MonkeyPatch, answers: Mapping[str, tuple[int, set[int]] | None]) -> None:
    """Address → (controller, brokers in the metadata); None does not answer."""

    def listed(address: str) -> SimpleNamespace:
        if (answer := answers[address]) is None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(controller_id=answer[0], brokers=dict.fromkeys(answer[1]))

    monkeypatch.setattr(topics, "_admin", lambda address: SimpleNamespace(list_topics=lambda timeout: listed(address)))


def test_unreachable_and_unready_are_two(monkeypatch):
    """Nothing answers, no controller is known, and a broker that is down are three answers."""
    metadata(monkeypatch, {"a:1": None, "b:1": (-1, {1, 2}), "c:1": (1, {1})})

    with pytest.raises(Unreachable, match="no Kafka answers at a:1 within 1 s"):
        topics.broker_ids("a:1")
    with pytest.raises(Unready, match="b:1 answers, and knows no controller"):
        topics.broker_ids("b:1")
    assert {1} == topics.broker_ids("c:1")


def test_a_member_answers_and_is_listed(monkeypatch):
    """In the metadata that it gives itself."""
    metadata(monkeypatch, {"a:1": None, "b:1": (-1, {1, 2}), "c:1": (1, {1})})

    members = [topics.is_member(*place) for place in (("a:1", 1), ("b:1", 1), ("c:1", 2), ("c:1", 1))]
    assert [False, False, False, True] == members


@pytest.mark.parametrize(
    ("second", "why"),
    [
        pytest.param(None, "no Kafka answers at b:1", id="unreachable"),
        pytest.param((-1, {1, 2}), "Kafka at b:1 answers, and knows no controller", id="no controller"),
        pytest.param((1, {2}), "broker 2 does not see broker 1", id="down"),
        pytest.param((1, {1, 2}), "", id="one cluster"),
    ],
)
def test_brokers_apart_say_why(monkeypatch, second, why):
    """The first reason, and none where each sees all."""
    metadata(monkeypatch, {"a:1": (1, {1, 2}), "b:1": second})

    found = topics.apart({1: "a:1", 2: "b:1"})
    assert found.startswith(why)
    assert bool(found) == bool(why)
