"""Where results are looked for: what of it cannot be, or is not where our own pipeline writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, zip_longest
from pathlib import PurePosixPath

from harness.job.clickstream.contract import INPUT, QUERIES
from harness.scenario.fields import Output, Scenario


def of_outputs(scenario: Scenario) -> Iterator[str]:
    """Whether each result is found in a place of its own, and our own pipeline writes it there."""
    outputs = scenario.pipeline.output
    for at, output in enumerate(outputs):
        if not output.query:
            yield f"pipeline.output[{at}].query is missing: whose result is found there"
            continue
        if output.kafka and output.parquet:
            yield f"pipeline.output[{at}]: kafka and parquet: the result is found in one of the two"
        if output.query in [output.query for output in outputs[:at]]:
            yield f"pipeline.output[{at}].query = {output.query!r}: it stands twice"
        elif output.query not in scenario.queries:
            yield f"pipeline.output[{at}].query = {output.query!r}: the pipeline has {', '.join(scenario.queries)}"
        yield from (f"pipeline.output[{at}].{message}" for message in _of_place(output))
        yield from (f"pipeline.output[{at}].columns: {message}" for message in _of_columns(output))
    if not any(output.query == "" for output in outputs):
        yield from _of_places(scenario)


def _of_place(output: Output) -> Iterator[str]:
    path = PurePosixPath(output.parquet)
    if output.kafka in INPUT:
        yield f"kafka = {output.kafka!r}: that is what the pipeline reads"
    if path.is_absolute() or ".." in path.parts:
        yield f"parquet = {output.parquet!r}: a directory below {{output}}: results of another run may lie elsewhere"


def _of_places(scenario: Scenario) -> Iterator[str]:
    """Of all results together."""
    places = {name: _place(scenario, name) for name in scenario.queries}
    for (name, place), (other, same) in combinations(places.items(), 2):
        if place == same:
            yield f"pipeline.output: {name} and {other} both in {place}: each row must be known for one of them"
    if scenario.pipeline.command:
        return
    sinks = dict(_sinks(scenario.pipeline.flags))
    for name, place in places.items():
        sink = sinks.get(name, QUERIES[name].sink)
        ours = f"parquet {name}" if sink == "parquet" else f"{sink} {QUERIES[name].topic}" if sink == "kafka" else sink
        if place != ours:
            yield (
                f"pipeline.output: the pipeline writes {name} to {ours}, and it is looked for in {place}:"
                " set --sink in pipeline.flags, and in [[pipeline.output]] the place of the result"
            )
        if scenario.output(name).columns:
            yield f"pipeline.output: {name}: columns: our own pipeline has no other names for them"


def _place(scenario: Scenario, query: str) -> str:
    found = scenario.queries[query]
    if found.sink == "parquet":
        return f"parquet {PurePosixPath(scenario.output(query).parquet or query)}"
    return f"kafka {found.topic}"


def _sinks(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(query, sink) of each `--sink QUERY=SINK` or `--sink=QUERY=SINK`, which may be written shorter."""
    for flag, after in zip_longest(flags, flags[1:], fillvalue=""):
        name, equals, value = flag.partition("=")
        if len(name) > 3 and "--sink".startswith(name):
            query, _, sink = (value if equals else after).partition("=")
            yield query, sink


def _of_columns(output: Output) -> Iterator[str]:
    if output.columns and QUERIES[output.query].rejects and not output.parquet:
        yield "the parts of a dead letter in Kafka are its value and its headers, and have no other names"
        return
    ours = (*QUERIES[output.query].identity, *QUERIES[output.query].measures)
    named = [column.partition("=") for column in output.columns]
    for name, _, theirs in named:
        if name not in ours:
            yield f"{name!r} is none of {', '.join(ours)}: OURS=THEIRS"
        elif not theirs:
            yield f"{name!r} has no other name: OURS=THEIRS"
    yield from (f"{name!r} stands twice" for name, count in Counter(name for name, *_ in named).items() if count > 1)
