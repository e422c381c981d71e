"""The journals of several load engines as one sent.parquet, and the proof that nothing is missing in it.

Engine i of N sends the events whose number modulo N is i. A merged journal is accepted only if each part holds the
first events of its share, without a gap, and all parts together hold the plan's events.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import StackError

Numbers = npt.NDArray[np.int64]


def merge(parts: Sequence[Path], events: int, target: Path, *, whole: bool) -> int:
    """Write the parts, in order of their indexes, as one journal; returns its rows.

    `events` is the number of events of the plan, flush events not counted; `whole` means that all of them must have
    been sent, else the load was cut short and each share may end early. Rows are in the order of `in_order`. The target
    is written whole or not at all. Raises StackError that names the worker whose journal is not its share.
    """
    tables = [_read(index, part) for index, part in enumerate(parts)]
    for index, table in enumerate(tables):
        _check(index, len(parts), table, events, whole=whole)
    merged = pa.concat_tables(tables)
    columns = {name: _column(merged, name) for name in ("n", "partition", "offset")}
    topics = merged["topic"].combine_chunks().dictionary_encode().indices.to_numpy()
    rows = in_order(columns["n"], topics.astype(np.int64), columns["partition"], columns["offset"])
    temporary = target.with_name(target.name + ".tmp")
    pq.write_table(merged.take(pa.array(rows)), temporary, compression="zstd")
    os.replace(temporary, target)
    return len(rows)


def in_order(n: Numbers, topic: Numbers, partition: Numbers, offset: Numbers) -> Numbers:
    """The order of rows: by event number, but the rows of each partition by their offsets among themselves.

    One engine writes to a partition in the order of its events; several do not, and the oracle reads the rows of a
    partition in the order in which they were written. Rows that were never acknowledged keep their place.
    """
    rows = np.argsort(n, kind="stable")
    written = np.flatnonzero(offset[rows] >= 0)
    of = rows[written]
    # Positions grouped by partition, each group ascending; the same groups with their rows by offset.
    places = written[np.lexsort((np.arange(len(of)), partition[of], topic[of]))]
    by_offset = of[np.lexsort((n[of], offset[of], partition[of], topic[of]))]
    ordered = rows.copy()
    ordered[places] = by_offset
    return ordered


def _read(index: int, part: Path) -> pa.Table:
    try:
        return pq.read_table(part)
    except (OSError, pa.ArrowException) as error:
        raise StackError(f"the journal of worker {index} cannot be read: {error}") from error


def _check(index: int, count: int, table: pa.Table, events: int, *, whole: bool) -> None:
    """Whether a journal is the beginning of its worker's share, or all of it, and has no flush event but the first's."""
    n, flush = _column(table, "n"), _column(table, "flush").astype(bool)
    own, planned = np.sort(n[~flush]), len(range(index, events, count))
    share = index + np.arange(len(own), dtype=np.int64) * count
    if len(own) > planned or not np.array_equal(own, share):
        raise StackError(f"the journal of worker {index} holds other events than its share, n modulo {count} = {index}")
    if whole and len(own) < planned:
        raise StackError(f"worker {index} sent {len(own):,} of its {planned:,} events")
    if flush.any() and index:
        raise StackError(f"worker {index} sent flush events, which worker 0 sends")


def _column(table: pa.Table, name: str) -> Numbers:
    return np.asarray(table[name].to_numpy())
