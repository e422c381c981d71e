"""What a run that breaks off says of the brokers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from harness.errors import StackError
from harness.runner import conductor


def broker(*answers: bool) -> SimpleNamespace:
    """One that answers so, one look after the other, and no more after the last."""
    left = list(answers)
    return SimpleNamespace(is_up=lambda: left.pop(0) if left else False)


def unreachable() -> bool:
    """Nobody can look at it."""
    raise StackError("no daemon answers")


@pytest.fixture
def down(monkeypatch) -> Callable[..., list[int]]:
    """`down(*brokers)` are the numbers of those that are down."""
    monkeypatch.setattr(conductor, "ANSWER_S", 0.2)
    return lambda *brokers: conductor._down(
        SimpleNamespace(cluster=SimpleNamespace(brokers=dict(enumerate(brokers, 1))))
    )


def test_answering_broker_is_not_down(down):
    """However slow it is beside a pipeline that is ending."""
    assert [] == down(broker(False, True), broker(True), broker(False, False, True))


def test_silent_broker_is_down(down):
    """So is one that nobody can look at."""
    assert [2, 3] == down(broker(True), broker(), SimpleNamespace(is_up=unreachable))
