"""What a pipeline is started with: one frozen value, from flags and a profile."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.schema import QUERIES

SINKS = ("kafka", "parquet", "console")
FAST_CHECKPOINTS = "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
PROFILES: dict[str, dict[str, Any]] = {
    "default": {
        "partitions": 1,
        "trigger": "1400 milliseconds",
        "conversions": "linear",
        "checkpoint_manager": FAST_CHECKPOINTS,
        "java_options": "-XX:+UseParallelGC",
        "codegen_cache": 2000,
        "hashed_groups": 100_000,
    },
    "specification": {
        "partitions": 50,
        "trigger": "10 seconds",
        "conversions": "join",
        "checkpoint_manager": "",
        "java_options": "",
        "codegen_cache": 100,
        "hashed_groups": 128,
    },
}
"""`default` is tuned for two cores; `specification` is what the specification says, to measure it against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that the job needs to know. Folders are paths or URLs that Spark understands."""

    bootstrap: str
    checkpoint: str
    output: str
    jars: str | None
    topic_prefix: str
    queries: tuple[str, ...]
    sinks: dict[str, str]
    master: str
    trigger: str
    partitions: int
    state_store: str
    starting_offsets: str
    max_offsets_per_trigger: int | None
    accept_loss: bool
    conversions: str
    deduplicate: bool
    checkpoint_manager: str
    java_options: str
    codegen_cache: int
    hashed_groups: int
    driver_memory: str
    conf: tuple[tuple[str, str], ...]

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
    args = _parser().parse_args(argv)
    profile = PROFILES[args.profile]
    sinks = {name: str(query.sink) for name, query in QUERIES.items()} | dict(args.sink)
    queries = tuple(args.queries)
    values = {name: profile[name] if getattr(args, name, None) is None else getattr(args, name) for name in profile}
    plain = ("bootstrap", "checkpoint", "output", "jars", "topic_prefix", "master", "state_store", "starting_offsets")
    values |= {
        name: getattr(args, name)
        for name in (*plain, "deduplicate", "max_offsets_per_trigger", "accept_loss", "driver_memory")
    }
    return Settings(**values, queries=queries, sinks=sinks, conf=tuple(args.conf))


class _OneLine(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        print(f"pipeline: {message}; see --help", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _OneLine(
        prog="python -m pipeline", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--bootstrap", required=True, metavar="HOST:PORT", help="Kafka brokers")
    add("--checkpoint", required=True, metavar="DIR", help="where each query keeps its checkpoint")
    add("--output", required=True, metavar="DIR", help="where Parquet results go, a folder a query")
    add(
        "--jars",
        metavar="DIR",
        help="folder with Spark's Kafka connector; without it Spark fetches the connector itself",
    )
    add("--topic-prefix", default="", metavar="P", help="what every topic's name begins with")
    add("--queries", type=_queries, default=tuple(QUERIES), metavar="A,B", help=f"of {', '.join(QUERIES)}")
    add(
        "--sink",
        type=_sink,
        action="append",
        default=[],
        metavar="QUERY=SINK",
        help=f"{', '.join(SINKS)}; may be repeated",
    )
    add(
        "--profile",
        choices=sorted(PROFILES),
        default="default",
        help="where the flags below that are not given come from",
    )
    add("--trigger", type=_interval, metavar="T", help="such as '1500 ms' or '10 seconds'; 0 ms is as fast as can be")
    add("--partitions", type=_positive, metavar="N", help="shuffle partitions, and so of the state")
    add("--conversions", choices=("linear", "join"), help="form of the conversions query; both give the same rows")
    add("--deduplicate", action="store_true", help="count an event id once, as long as the watermark has not passed it")
    add("--master", default="local[2]", help="Spark's master")
    add("--state-store", choices=("memory", "rocksdb"), default="memory", help="rocksdb bounds memory and costs time")
    add("--starting-offsets", choices=("earliest", "latest"), default="earliest", help="without a checkpoint")
    add("--max-offsets-per-trigger", type=_positive, metavar="N", help="rate limit, records a batch and query")
    add(
        "--accept-loss",
        action="store_true",
        help="go on after records that Kafka deleted before they were read, at the start (which says how many) and"
        " later; the default refuses, or ends",
    )
    add("--driver-memory", default="1g", help="heap of the driver")
    add(
        "--conf",
        type=_conf,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of Spark; may be repeated",
    )
    return parser


def _conf(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("spark."):
        raise argparse.ArgumentTypeError(f"{text!r} is not spark.NAME=VALUE")
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


def _interval(text: str) -> str:
    if not re.fullmatch(r"\d+ ?(ms|milliseconds?|s|seconds?|minutes?)", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no interval such as '1500 ms' or '10 seconds'")
    return re.sub(r"(?<=\d) ?s$", " seconds", re.sub(r"(?<=\d) ?ms$", " milliseconds", text))


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
