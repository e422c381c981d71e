"""The law of the watermark: what each batch's must be, given the event times that its predecessors read.

After a batch, each source's candidate is the newest event time it has read since the process started,
less the delay; the watermark of the next batch is the smallest candidate, and never falls. A source that
has read nothing since the start holds it back (tests/spark/test_semantics.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def watermarks_after(
    newest: Sequence[Mapping[str, int]], sources: Sequence[str], starts: Collection[int], delay_ms: int
) -> list[int]:
    """The watermark of each batch, in epoch ms, and of the one that would follow the last.

    `newest` has, for each batch, the newest event time in ms that it read by source; `starts` the batches
    that were the first of a process.
    """
    watermark = 0
    seen: dict[str, int] = {}
    answer = [watermark]
    for number, of_batch in enumerate(newest):
        if number in starts:
            seen = {}
        for source, at_ms in of_batch.items():
            seen[source] = max(at_ms, seen.get(source, at_ms))
        candidate = min(seen.get(source, 0) for source in sources) - delay_ms
        watermark = max(watermark, candidate)
        answer.append(watermark)
    return answer
