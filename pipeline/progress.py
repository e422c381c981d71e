"""Each batch's progress as a JSON line on standard output.

A Python listener is called seconds after the batch, so the last progress is polled instead: its time is cheap to
read, and the progress itself is read only if the time is new.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pyspark.sql.streaming.query import StreamingQuery


def emit(event: str, **fields: object) -> None:
    """Print an event as one line of JSON."""
    print(json.dumps({"event": event, **fields}), flush=True)


class Listener(Protocol):
    """What wants to know of the queries' progress."""

    def batch(self, query: str, progress: Mapping[str, Any]) -> None:
        """A batch of a query has ended."""

    def died(self, query: str) -> None:
        """A query has ended by itself."""


class Progress:
    """Prints the progress of queries, each batch once, and passes it on."""

    def __init__(self, queries: list[StreamingQuery], listeners: Sequence[Listener] = ()) -> None:
        self._queries = queries
        self._listeners = listeners
        self._reported: dict[str, tuple[int, str]] = {}

    def report(self) -> None:
        """Print the progress of every batch that has ended since the last call."""
        for query in self._queries:
            last = query._jsq.lastProgress()
            if last is not None and self._is_new(query.name, last):
                for progress in self._since(query):
                    emit("progress", query=query.name, progress=progress)
                    for listener in self._listeners:
                        listener.batch(query.name, progress)

    def died(self, query: StreamingQuery) -> None:
        """Pass on that a query has ended by itself."""
        for listener in self._listeners:
            listener.died(query.name)

    def _is_new(self, name: str, last: Any) -> bool:
        return (last.batchId(), last.timestamp()) != self._reported.get(name)

    def _since(self, query: StreamingQuery) -> list[dict[str, Any]]:
        known = self._reported.get(query.name, (-1, ""))
        fresh: list[dict[str, Any]] = []
        for recent in reversed(list(query._jsq.recentProgress())):
            mark = (recent.batchId(), recent.timestamp())
            if mark == known:
                break
            fresh.append(json.loads(recent.json()))
        fresh.reverse()
        if fresh:
            self._reported[query.name] = (fresh[-1]["batchId"], fresh[-1]["timestamp"])
        # Progress of an idle trigger has no addBatch: nothing was done.
        return [progress for progress in fresh if "addBatch" in progress["durationMs"]]
