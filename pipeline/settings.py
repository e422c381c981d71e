"""The settings of a pipeline: one frozen value, from flags and a profile."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.schema import QUERIES

GATEWAY = "PYSPARK_GATEWAY_PORT"
"""Of the environment, where it is spark-submit that starts this."""
SINKS = ("kafka", "parquet", "console")
ISOLATIONS = ("read_committed", "read_uncommitted")
"""The values of Kafka's ``isolation.level``, the default first."""
TURNS = ("conversions", "page_views", "sessions", "revenue", "dead_letter")
"""The queries from the costliest to the cheapest."""
FAST_CHECKPOINTS = "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
LOCAL_FILES = "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem"
LOCAL_FILES_JAR = "hadoop-bare-naked-local-fs-*.jar"
LOOPBACK = "127.0.0.1"
DAY_MS = 86_400_000
DIGITS_MAX = 19
"""Of a number that Java can hold."""
WITH_A_FLAG = {
    "spark.sql.shuffle.partitions": "--partitions",
    "spark.sql.streaming.stateStore.providerClass": "--state-store",
}
PINNED = {
    "spark.sql.session.timeZone": ("UTC", "all times are UTC, those without an offset too"),
    "spark.sql.streaming.multipleWatermarkPolicy": ("min", "with max, events of the slower topic are dropped"),
    "spark.sql.streaming.noDataMicroBatches.enabled": ("true", "rows are emitted once their window has closed"),
    "spark.sql.caseSensitive": ("false", "columns are named as the contract has them"),
    "spark.sql.ansi.enabled": ("true", "sums that overflow are errors, no other numbers"),
    "spark.sql.legacy.timeParserPolicy": ("CORRECTED", "timestamps are read as the contract has them"),
    "spark.sql.parquet.outputTimestampType": ("INT96", "readers of the results expect it"),
    "spark.hadoop.fs.defaultFS": ("file:///", "checkpoint and output are folders of this machine"),
}
"""Settings that the contract rests on, each with its value and the reason; neither a flag nor Spark's files change them."""
MEMORY = {unit: 1024**power for power, unit in enumerate("bkmgt")}
PROFILES: dict[str, dict[str, Any]] = {
    "default": {
        "partitions": 1,
        "trigger_ms": 1600,
        "apart": 0.03,
        "conversions": "linear",
        "checkpoint_manager": FAST_CHECKPOINTS,
        "local_files": LOCAL_FILES,
        "java_options": "-XX:+UseParallelGC",
        "codegen_cache": 2000,
        "hashed_groups": 100_000,
    },
    "specification": {
        "partitions": 50,
        "trigger_ms": 10_000,
        "apart": 0.0,
        "conversions": "join",
        "checkpoint_manager": "",
        "local_files": "",
        "java_options": "",
        "codegen_cache": 100,
        "hashed_groups": 128,
    },
}
"""`default` is tuned for two cores; `specification` has the specification's values, to compare with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that the job needs to know. Folders are paths on this machine, or file:// URLs."""

    bootstrap: str
    checkpoint: str
    output: str
    jars: str | None = None
    topic_prefix: str = ""
    queries: tuple[str, ...] = tuple(QUERIES)
    sinks: dict[str, str]
    master: str
    """Empty with spark-submit, which names the master itself."""
    trigger_ms: int
    apart: float
    """Share of the trigger by which each query waits longer than the one before it."""
    partitions: int
    state_store: str
    starting_offsets: str
    isolation: str
    """Which records of transactions are read: those of committed transactions alone, or all."""
    max_offsets_per_trigger: int | None = None
    accept_loss: bool = False
    conversions: str
    deduplicate: bool = False
    checkpoint_manager: str
    local_files: str
    """Java class for local files, from a jar of the connector's folder; "" for Hadoop's, which starts a process a file."""
    java_options: str
    codegen_cache: int
    hashed_groups: int
    driver_memory: str
    standby: bool = False
    metrics_port: int | None = None
    """Where metrics are served over HTTP; None for nowhere."""
    metrics_host: str = LOOPBACK
    lag_group: str | None = None
    """The consumer group that the committed offsets are written to, and never read from; None for none."""
    conf: Sequence[tuple[str, str]] = ()

    def interval_ms(self, query: str) -> int:
        """From batch to batch of a query; of each another, the costliest having the shortest.

        Spark begins batches at multiples of the interval: with the same one all queries would plan at the same
        moment, in each other's way, and then all be idle.
        """
        return round(self.trigger_ms * (1 + self.apart * TURNS.index(query)))

    def of_state(self) -> dict[str, Any]:
        """What a checkpoint depends on: with any of these changed it would be silently misread or disobeyed."""
        return {
            "queries": ",".join(self.queries),
            "sinks": ",".join(f"{query}={self.sinks[query]}" for query in self.queries),
            "partitions": self.partitions,
            "state store": self.state_store,
            "conversions": self.conversions,
            "deduplicate": self.deduplicate,
            "topic prefix": self.topic_prefix,
        }


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Settings from flags; a wrong flag ends the process with one line and exit code 2."""
    given = vars(_parser().parse_args(argv))
    profile = PROFILES[given.pop("profile")]
    sinks = {name: str(query.sink) for name, query in QUERIES.items()} | dict(given.pop("sink", ()))
    return Settings(**profile | given, sinks=sinks)


class OneLine(argparse.ArgumentParser):
    """A parser of a module's flags: an error is one line and exit code 2."""

    def error(self, message: str) -> Any:
        """The line begins with the module's name."""
        print(f"{re.split('[ .]', self.prog)[-1]}: {message}; see --help", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = OneLine(
        prog="python -m pipeline",
        description="Clickstream and transactions from Kafka to page views, revenue, conversions, sessions and dead letters.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _places(parser.add_argument_group("where"))
    _computation(parser.add_argument_group("what"))
    _execution(parser.add_argument_group("how"))
    _monitoring(parser.add_argument_group("what others see"))
    return parser


def _places(where: argparse._ArgumentGroup) -> None:
    add = where.add_argument
    add("--bootstrap", required=True, metavar="HOST:PORT", help="Kafka brokers")
    add("--checkpoint", required=True, type=_folder, metavar="DIR", help="where each query keeps its checkpoint")
    add("--output", required=True, type=_folder, metavar="DIR", help="where Parquet results go, a folder a query")
    jars = (
        "folder with the jars of Spark's Kafka connector and of local files; without it Spark fetches the connector itself;"
        " with spark-submit that is given the connector, by its own --packages or --jars"
    )
    add("--jars", metavar="DIR", help=jars)
    add("--topic-prefix", metavar="P", help="what every topic's name begins with")


def _folder(text: str) -> str:
    """A local folder: the checks of a checkpoint read it, and cannot read one on another file system."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} names no folder: a path, or file:///…")
    scheme, found, _ = text.partition(":")
    if found and "/" not in scheme and not text.startswith("file:///"):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder on this machine: a path, or file:///…")
    return text


def _computation(what: argparse._ArgumentGroup) -> None:
    add = what.add_argument
    sinks = f"{', '.join(SINKS)}; may be repeated"
    loss = (
        "go on after records that Kafka deleted before they were read, at the start (the pipeline prints how many) and later;"
        " the default refuses, or ends"
    )
    isolation = "records of transactions: of those that were committed, or of all, open and aborted ones too"
    add("--queries", type=_queries, metavar="A,B", help=f"of {', '.join(QUERIES)}; all where none is named")
    add("--sink", type=_sink, action="append", metavar="QUERY=SINK", help=sinks)
    add("--conversions", choices=("linear", "join"), help=f"both give the same rows {_of_profiles('conversions')}")
    add("--deduplicate", action="store_true", help="count an event id once, as long as the watermark has not passed it")
    add("--starting-offsets", choices=("earliest", "latest"), default="earliest", help="without a checkpoint")
    add("--isolation", choices=ISOLATIONS, default=ISOLATIONS[0], help=isolation)
    add("--accept-loss", action="store_true", help=loss)


def _execution(how: argparse._ArgumentGroup) -> None:
    add = how.add_argument
    profile = "tuned for two cores, or as the specification has it"
    add("--profile", choices=sorted(PROFILES), default="default", help=profile)
    trigger = (
        f"from batch to batch of a query, such as '1500 ms'; 0 ms is as fast as can be {_of_profiles('trigger_ms', ' ms')};"
        f" by this share of it each query waits longer than the one before {_of_profiles('apart')}"
    )
    partitions = f"of the shuffle, and so of the state; with 1 a batch is one task, without a shuffle {_of_profiles('partitions')}"
    add("--trigger", type=_interval, dest="trigger_ms", metavar="T", help=trigger)
    add("--partitions", type=_whole(2**31 - 1), metavar="N", help=partitions)
    master = "" if GATEWAY in os.environ else "local[2]"
    add("--master", default=master, metavar="URL", help="Spark's master; with spark-submit its own --master")
    add("--state-store", choices=("memory", "rocksdb"), default="memory", help="rocksdb bounds memory and costs time")
    limit = "rate limit: records of a topic in a batch of a query"
    add("--max-offsets-per-trigger", type=_whole(2**63 - 1), metavar="N", help=limit)
    add("--driver-memory", type=_memory, default="1g", metavar="SIZE", help="heap of the driver, such as 512m or 2g")
    standby = "wait, with Spark started, until no other pipeline works on the checkpoint; then take over"
    add("--standby", action="store_true", help=standby)
    setting = "any setting of Spark; may be repeated"
    add("--conf", type=_conf, action="append", metavar="NAME=VALUE", help=setting)


def _monitoring(seen: argparse._ArgumentGroup) -> None:
    add = seen.add_argument
    add("--metrics-port", type=_whole(65_535), metavar="N", help="serve metrics for Prometheus over HTTP at this port")
    host = "the address that metrics are served at; 0.0.0.0 is every network of this machine"
    add("--metrics-host", default=LOOPBACK, metavar="ADDRESS", help=host)
    group = (
        "write the offsets that every query has committed to this consumer group, for tools that show its lag;"
        " the pipeline never reads them: its checkpoint has its offsets"
    )
    add("--lag-group", type=_group, metavar="NAME", help=group)


def _group(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} names no consumer group")
    return text


def _of_profiles(name: str, unit: str = "") -> str:
    return f"({'; '.join(f'{profile}: {values[name]}{unit}' for profile, values in PROFILES.items())})"


def _conf(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("spark."):
        raise argparse.ArgumentTypeError(f"{text!r} is not spark.NAME=VALUE")
    if flag := WITH_A_FLAG.get(name):
        raise argparse.ArgumentTypeError(f"{name}: use {flag}, which is held against the checkpoint's")
    if name in PINNED and value != PINNED[name][0]:
        raise argparse.ArgumentTypeError(f"{name}: it is {PINNED[name][0]}: {PINNED[name][1]}")
    return name, value


def _queries(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in QUERIES:
            raise argparse.ArgumentTypeError(f"{name!r} is no query; there are {', '.join(QUERIES)}")
    return tuple(name for name in QUERIES if name in names)


def _sink(text: str) -> tuple[str, str]:
    query, _, sink = text.partition("=")
    if query not in QUERIES or sink not in SINKS:
        raise argparse.ArgumentTypeError(f"{text!r} is not QUERY=SINK with a sink of {', '.join(SINKS)}")
    return query, sink


def _interval(text: str) -> int:
    found = re.fullmatch(rf"(\d{{1,{DIGITS_MAX}}}) ?(?:(ms|milliseconds?)|(s|seconds?)|minutes?)", text, re.ASCII)
    ms = int(found[1]) * (1 if found[2] else 1000 if found[3] else 60_000) if found else DAY_MS + 1
    if ms > DAY_MS:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval such as '1500 ms' or '10 seconds', of a day at most")
    return ms


def _memory(text: str) -> str:
    """As Spark writes sizes, in the one form that Java reads alike: to Java a number alone is bytes, and 1gb nothing."""
    found = re.fullmatch(rf"(\d{{1,{DIGITS_MAX}}})(?:([kmgt])b?|(b))?", text.lower(), re.ASCII)
    size = int(found[1]) * MEMORY[found[2] or found[3] or "m"] if found else 0
    if not MEMORY["m"] <= size < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of memory such as 512m or 2g")
    return f"{size // MEMORY['k']}k"


def _whole(most: int) -> Callable[[str], int]:
    """Whole numbers that Java can hold."""

    def number(text: str) -> int:
        if not re.fullmatch(rf"\d{{1,{DIGITS_MAX}}}", text, re.ASCII) or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more, and of {most} at most")
        return int(text)

    return number
