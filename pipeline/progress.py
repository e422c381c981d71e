"""Each batch's progress, as soon as it is known, as a JSON line on standard output.

A listener in Python hears of a batch with seconds of delay, so the last progress is asked for instead:
a cheap look at its time, and only where that is new the whole of it, with those in between.
"""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql.streaming.query import StreamingQuery


def say(event: str, **what: object) -> None:
    """Print one line."""
    print(json.dumps({"event": event, **what}), flush=True)


class Progress:
    """Remembers what was said of each query."""

    def __init__(self, queries: list[StreamingQuery]) -> None:
        self._queries = queries
        self._said: dict[str, tuple[int, str]] = {}

    def report(self) -> None:
        """Say what is new of every query."""
        for query in self._queries:
            last = query._jsq.lastProgress()
            if last is not None and self._is_new(query.name, last):
                for progress in self._since(query):
                    say("progress", query=query.name, progress=progress)

    def _is_new(self, name: str, last: Any) -> bool:
        return (last.batchId(), last.timestamp()) != self._said.get(name)

    def _since(self, query: StreamingQuery) -> list[dict[str, Any]]:
        known = self._said.get(query.name, (-1, ""))
        fresh: list[dict[str, Any]] = []
        for one in reversed(list(query._jsq.recentProgress())):
            mark = (one.batchId(), one.timestamp())
            if mark == known:
                break
            fresh.append(json.loads(one.json()))
        fresh.reverse()
        if fresh:
            self._said[query.name] = (fresh[-1]["batchId"], fresh[-1]["timestamp"])
        # Progress of an idle trigger has no addBatch: nothing was done.
        return [one for one in fresh if "addBatch" in one["durationMs"]]
