"""A judged run as pandas data frames, for a notebook. Times are UTC timestamps, unknown values are NA.

docs/reference/frames.md names every column; a test compares it with `COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.judge.anomalies import Comparison
from harness.judge.metrics import Array
from harness.judge.timeline import Evidence
from harness.model import Result
from harness.rundir.events import Sample
from harness.rundir.history import Run

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "events": {
        "n": "number of the event in the scenario's sequence",
        "topic": "topic, without the run's prefix",
        "partition": "partition that the producer chose",
        "offset": "offset that the broker acknowledged, NA if none",
        "due": "time at which the scenario offers the event",
        "sent": "time at which it was handed to the Kafka client, NaT if never",
        "acknowledged": "time of the broker's acknowledgement, NaT if none",
        "event_time": "event time in the record, as the contract reads it",
        "malformed": "True for a record that the contract rejects",
        "copy": "True for a duplicate of an earlier event",
        "flush": "True for an event that closes windows at the end",
        "measured": "True if it was due in the measured part",
        "batch_<query>": "number of the batch of this query that read it, NA if none; a column a query",
    },
    "batches": {
        "query": "name of the query",
        "batch": "number of the micro-batch",
        "begun": "time at which its offsets were written",
        "committed": "time at which it was committed",
        "watermark": "watermark that it ran at, NaT if it had none yet",
        "records": "offsets that it read, over all partitions, markers of transactions included",
        "duration_s": "seconds from begun to committed",
    },
    "rows": {
        "query": "name of the query",
        "key": "identity columns, joined by |",
        "not_before": "earliest time at which the row may appear, NaT if there is no bound",
        "expected": "expected values as text, NA for a row that must not be there",
        "observed": "observed values as text, NA for a row that is missing; a line for each copy",
        "where": "topic-partition@offset or file#row of the observed row",
        "at": "time at which the observed row appeared",
        "anomaly": "kinds of anomalies of this row, joined by commas; empty if it is right",
    },
    "samples": {
        "at": "time of the sample",
        "pipeline_cpu_s": "CPU seconds of the pipeline so far",
        "generator_cpu_s": "CPU seconds of the load generator so far",
        "harness_cpu_s": "CPU seconds of the harness so far",
        "machine_cpu_s": "CPU seconds of the whole machine so far",
        "brokers_cpu_s": "CPU seconds of the brokers so far, NA for external brokers",
        "pipeline_rss": "resident bytes of the pipeline",
        "brokers_rss": "resident bytes of the brokers",
        "generator_rss": "resident bytes of the load generator",
        "harness_rss": "resident bytes of the harness",
        "checkpoint_bytes": "bytes in the checkpoint",
        "sent": "events handed to the Kafka client so far",
        "acknowledged": "events acknowledged so far",
    },
    "faults": {
        "fault": "kind and target",
        "kind": "kind of fault",
        "at": "position in the stream at which it was to be injected, in acknowledged events",
        "injected_at": "acknowledged events when it was injected",
        "unread": "events acknowledged and not read when it was injected",
        "injected": "time of injection",
        "healed": "time at which it was seen to have healed, NaT if never",
        "effect_observed": "True if its effect was observed",
        "first_commit_s": "seconds from injection to the next commit",
        "longest_gap_s": "longest time without a commit, in seconds",
        "first_output_s": "seconds from injection to the next result row",
        "recovered_s": "seconds until the lag was back at its baseline, NA if never",
        "unrecovered_s": "seconds for which it is known not to have recovered, NA if it did",
        "replayed": "batches that were run again",
        "duplicates": "rows that were written again",
    },
}
"""Table → column → what it holds."""
NAMES = tuple(COLUMNS)
RENAMED = {"struck_at": "injected_at", "proved": "effect_observed"}


def reference() -> str:
    """docs/reference/frames.md: every table with its columns."""
    lines = [
        "# Data frames",
        "",
        "`harness.run(…)` and `harness.check(RUN)` return an assessment; `assessment.frame(NAME)` gives a pandas DataFrame.",
        "Times are UTC timestamps; what is unknown is NA.",
    ]
    for table, columns in COLUMNS.items():
        lines += ["", f"## {table}", "", "| column | content |", "|---|---|"]
        lines += [f"| `{name}` | {content.replace('|', chr(92) + '|')} |" for name, content in columns.items()]
    return "\n".join(lines) + "\n"


def events(evidence: Evidence) -> pd.DataFrame:
    """A row an event, in the order of sending."""
    sent = evidence.sent
    frame = pd.DataFrame(
        {
            "n": sent["n"],
            "topic": pd.Categorical(sent["topic"]),
            "partition": sent["partition"],
            "offset": pd.array(sent["offset"], dtype="Int64"),
            "due": _times(sent["due_us"], "us"),
            "sent": _times(sent["sent_us"], "us"),
            "acknowledged": _times(sent["acked_us"], "us"),
            "event_time": _times(sent["event_time_ms"], "ms"),
            "malformed": sent["malformed"] != 0,
            "copy": sent["copy"],
            "flush": sent["flush"],
            "measured": evidence.measured.holds(sent["due_us"] / 1e6) & ~sent["flush"],
        }
    )
    frame.loc[frame["offset"] < 0, "offset"] = pd.NA
    for query, found in evidence.batches.items():
        index = evidence.batch_of[query]
        numbers = pd.array(np.asarray(index, dtype=np.int64), dtype="Int64")
        numbers[(index < 0) | (index >= len(found))] = pd.NA
        frame[f"batch_{query}"] = numbers
    return frame


def batches(evidence: Evidence) -> pd.DataFrame:
    """A row a committed batch, by query; empty for a black box."""
    rows: list[dict[str, Any]] = []
    for query, found in evidence.batches.items():
        before: Mapping[tuple[str, int], int] = {}
        for batch in found:
            rows.append(
                {
                    "query": query,
                    "batch": batch.number,
                    "begun": _time(batch.begun_s),
                    "committed": _time(batch.committed_s),
                    "watermark": batch.watermark_ms,
                    "records": sum(end - before.get(place, 0) for place, end in batch.ends.items()),
                    "duration_s": batch.committed_s - batch.begun_s if batch.begun_s else None,
                }
            )
            before = {**before, **batch.ends}
    frame = pd.DataFrame(rows, columns=list(COLUMNS["batches"]))
    frame["watermark"] = _times(frame["watermark"].to_numpy(np.int64), "ms")
    return frame


def rows(comparisons: Mapping[str, Comparison], result: Result) -> pd.DataFrame:
    """A row an expected row and observed copy of it, and a row an observed row that nothing expects."""
    kinds: dict[tuple[str, tuple[Any, ...]], list[str]] = {}
    for anomaly in result.anomalies:
        kinds.setdefault((anomaly.query, anomaly.key), []).append(anomaly.kind)
    found: list[dict[str, Any]] = []
    for query, comparison in comparisons.items():
        for key in sorted(comparison.expected.keys() | comparison.observed.keys(), key=str):
            common = {
                "query": query,
                "key": "|".join(map(str, key)),
                "not_before": _time(comparison.earliest_s.get(key)),
                "expected": _text(comparison.expected.get(key)),
                "anomaly": ",".join(dict.fromkeys(kinds.get((query, key), ()))),
            }
            found += [
                common | {"observed": _text(seen.values), "where": seen.where, "at": _time(seen.at_s)}
                for seen in comparison.observed.get(key, ())
            ]
            if key not in comparison.observed:
                found.append(common)
    return pd.DataFrame(found, columns=list(COLUMNS["rows"]))


def samples(run: Run) -> pd.DataFrame:
    """A row a sample of processor and memory use."""
    taken = [
        {"at": _time(sample.t), **{name: getattr(sample, name) for name in COLUMNS["samples"] if name != "at"}}
        for sample in run.of(Sample)
    ]
    return pd.DataFrame(taken, columns=list(COLUMNS["samples"]))


def faults(result: Result) -> pd.DataFrame:
    """A row a fault that was injected, with its cost."""
    injected = [
        {RENAMED.get(name, name): value for name, value in fault.items()}
        | {"injected": _time(fault["at_s"]), "healed": _time(fault["healed_s"])}
        for fault in result.faults
    ]
    return pd.DataFrame(injected, columns=list(COLUMNS["faults"]))


def _times(values: Array, unit: str) -> pd.DatetimeIndex:
    """Times of the epoch in a unit, which they keep: a nanosecond's range ends in 2262. 0 is never."""
    times = values.astype(f"datetime64[{unit}]")
    times[values == 0] = np.datetime64("NaT")
    return pd.DatetimeIndex(times).tz_localize("UTC")


def _time(second: float | None) -> pd.Timestamp | None:
    """An epoch second as a timestamp; 0 and None are never."""
    return pd.Timestamp(second, unit="s", tz="UTC") if second else None


def _text(values: tuple[Any, ...] | None) -> str | None:
    return None if values is None else "|".join(map(str, values))
