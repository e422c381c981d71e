"""The five queries: pure functions from the records of Kafka to result rows.

Records are DataFrames with the columns of Spark's Kafka source.
Every query reads a record by the same strict rules: `from_json` alone turns a number into a string and a
string into a number, so a record must be shown to have the right types as well. Of one that is compact and has
its fields in order it is shown by writing them again and comparing the bytes, of any other flat one by a
regular expression, and of the rest, the slow way, through a variant.

With `once` the records of one event id count as one. With `one_task` a batch is read and grouped in one task,
without a shuffle; the state must then have one partition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from operator import and_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.schema import (
    CLICKSTREAM,
    CONVERSION_HORIZON_S,
    CONVERSIONS_WINDOW_S,
    EVENT_TIME_MS_MAX,
    EVENT_TIME_MS_MIN,
    INPUT,
    NESTING_MAX,
    PAGE_VIEWS_WINDOW_S,
    RECORD_BYTES_MAX,
    REVENUE_WINDOW_S,
    SESSION_GAP_S,
    TRANSACTIONS,
    WATERMARK_DELAY_S,
    Field,
)

COLUMNS = "key binary, value binary, topic string, partition int, offset long"
CONVERSION_HORIZON_MS = CONVERSION_HORIZON_S * 1000
DELAY = f"{WATERMARK_DELAY_S} seconds"
JSON_OPTIONS = {
    "mode": "PERMISSIVE",
    "allowSingleQuotes": "false",
    "allowUnquotedFieldNames": "false",
    "allowNonNumericNumbers": "false",
}
SPARK_TYPE = {"string": "string", "timestamp": "string", "integer": "int", "decimal(12,2)": "double"}
"""Any decimal(12,2) comes back exactly from a double; for a decimal, Spark would write out the zeros of 1e100000000, for hours."""
VARIANT_TYPE = {
    "string": "STRING",
    "timestamp": "STRING",
    "integer": "BIGINT",
    "decimal(12,2)": r"BIGINT|DOUBLE|DECIMAL\(\d+,\s*\d+\)",
}
NUMBER = {"integer": r"-?(?:0|[1-9]\d{0,8})", "decimal(12,2)": r"-?(?:0|[1-9]\d{0,9})(?:\.\d{1,2})?"}
TIMESTAMP = r"^(?!0000)\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})?\z"
ESCAPE = (
    r"\\(?:[^u]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"
    r"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
"""One escape in a JSON string; half of a surrogate pair is none."""
SPACE = r"[ \t\r\n]*"
"""All that may stand between the parts of JSON; Java's \\s is more, and its $ matches before a last line's end."""


def page_views(records: DataFrame, once: bool = False, one_task: bool = False) -> DataFrame:
    """Events and distinct users per minute, product and category; the users are exact."""
    window = F.window("timestamp", f"{PAGE_VIEWS_WINDOW_S} seconds")
    return (
        _watermarked(records, CLICKSTREAM, once, one_task)
        .groupBy(window, "product_id", "category")
        .agg(F.count("*").alias("view_count"), F.size(F.collect_set("user_id")).alias("unique_users"))
        .select(*_bounds(), "product_id", "category", "view_count", "unique_users")
    )


def revenue(records: DataFrame, once: bool = False, one_task: bool = False) -> DataFrame:
    """Transactions, their sum and their mean per five minutes and category, in decimals."""
    mean = F.col("total_revenue") / F.col("transaction_count").cast("decimal(12,0)")
    return (
        _watermarked(records, TRANSACTIONS, once, one_task)
        .groupBy(F.window("timestamp", f"{REVENUE_WINDOW_S} seconds"), "category")
        .agg(F.count("*").alias("transaction_count"), F.sum("amount").alias("total_revenue"))
        .select(
            *_bounds(),
            "category",
            "transaction_count",
            "total_revenue",
            mean.cast("decimal(24,4)").alias("avg_transaction"),
        )
    )


def sessions(records: DataFrame, once: bool = False, one_task: bool = False) -> DataFrame:
    """Periods of activity of one session id, closed by 30 minutes without an event."""
    start, end = F.min("timestamp").alias("session_start"), F.max("timestamp").alias("session_end")
    duration = (F.unix_millis("session_end") - F.unix_millis("session_start")) / 1000.0
    return (
        _watermarked(records, CLICKSTREAM, once, one_task)
        .groupBy(F.session_window("timestamp", f"{SESSION_GAP_S} seconds"), "session_id")
        .agg(start, end, F.count("*").alias("event_count"))
        .select(
            "session_id",
            "session_start",
            "session_end",
            "event_count",
            duration.alias("duration_seconds"),
            F.lit("completed").alias("status"),
        )
    )


def conversions(
    clickstream: DataFrame, transactions: DataFrame, form: str, once: bool = False, one_task: bool = False
) -> DataFrame:
    """Clicks and how many of them led to a purchase, per five minutes of the click's time and product.

    `form` is ``linear`` or ``join``; both give the same rows for records that are not late.
    """
    record = F.col("event_id") if once else F.concat_ws(":", "partition", "offset")
    clicks = valid(clickstream, CLICKSTREAM).select("user_id", "product_id", "timestamp", record.alias("record"))
    purchases = valid(transactions, TRANSACTIONS).select("user_id", "product_id", "timestamp")
    counted = _join(clicks, purchases, one_task) if form == "join" else _linear(clicks, purchases, once, one_task)
    rate = F.col("purchases") / F.col("clicks")
    return counted.select(
        "window_start", "window_end", "product_id", "clicks", "purchases", rate.cast("double").alias("conversion_rate")
    )


def dead_letter(clickstream: DataFrame, transactions: DataFrame, one_task: bool = False) -> DataFrame:
    """Every record that the contract rejects, its bytes untouched, and the first reason in the order of its fields."""
    return _gathered(_rejected(clickstream, CLICKSTREAM).unionByName(_rejected(transactions, TRANSACTIONS)), one_task)


def _rejected(records: DataFrame, topic: str) -> DataFrame:
    rejected = _typed(records, topic).where(~_is_valid(topic))
    too_long = F.when(~_is_short(), F.lit("too long"))
    reason = too_long.otherwise(_interpreted(partial(_reason, topic)))
    return rejected.select("key", "value", "topic", "partition", "offset", reason.alias("reason"))


def rejections(prefix: str) -> list[Column]:
    """How many dead letters there are of each topic and reason, named ``topic|reason``; `prefix` is what topics begin with."""
    return [
        F.count_if((F.col("topic") == prefix + topic) & (F.col("reason") == reason)).alias(f"{prefix}{topic}|{reason}")
        for topic in INPUT
        for reason in reasons(topic)
    ]


def reasons(topic: str) -> list[str]:
    """Every reason that a record of a topic can be rejected for."""
    found = ["too long", "too deep", "not json"]
    for field in INPUT[topic]:
        has_range = field.allowed or field.type != "string"
        found += [f"missing {field.name}"] if field.required else []
        found += [f"type {field.name}", *([f"value {field.name}"] if has_range else [])]
    return found


def valid(records: DataFrame, topic: str) -> DataFrame:
    """The valid records of a topic, a column a field, with their partition and offset."""
    fields = [_read(field, F.col(f"d.{field.name}")).alias(field.name) for field in INPUT[topic]]
    return _typed(records, topic).where(_is_valid(topic)).select(*fields, "partition", "offset")


def _bounds() -> tuple[Column, Column]:
    return F.col("window.start").alias("window_start"), F.col("window.end").alias("window_end")


def _gathered(events: DataFrame, one_task: bool) -> DataFrame:
    """Events in one partition, where one task is to group them; after the watermark, which hides from Spark that it is one."""
    return events.coalesce(1) if one_task else events


def _watermarked(records: DataFrame, topic: str, once: bool, one_task: bool) -> DataFrame:
    """Valid records under the watermark; with `once` those of one event id count as one until it has passed them."""
    events = _gathered(valid(records, topic).withWatermark("timestamp", DELAY), one_task)
    return events.dropDuplicatesWithinWatermark([INPUT[topic][0].name]) if once else events


def _linear(clicks: DataFrame, purchases: DataFrame, once: bool, one_task: bool) -> DataFrame:
    """One aggregation over the union of both streams; no click ever meets more than its next purchase.

    A purchase is put into each of the three click windows whose clicks it can convert. The event time of
    the union is shifted by the horizon, so that a click window stays open until its last possible purchase
    has arrived. Times are kept as 2 × ms, plus 1 for a purchase: in descending order a purchase at the very
    moment of a click then stands before it.
    """
    length, horizon = CONVERSIONS_WINDOW_S, CONVERSION_HORIZON_S
    delay = f"{WATERMARK_DELAY_S + horizon} seconds"
    shifted = F.col("timestamp") + F.expr(f"INTERVAL {horizon} SECONDS")
    identity = F.col("record") if once else F.lit(None).cast("string")
    seen = clicks.select(
        "user_id",
        "product_id",
        shifted.alias("e"),
        (F.unix_millis("timestamp") * 2).alias("mark"),
        identity.alias("id"),
    )
    steps = F.explode(F.array(*(F.lit(step) for step in range(horizon // length + 1))))
    bought = purchases.select("*", steps.alias("step")).select(
        "user_id",
        "product_id",
        F.timestamp_millis(F.unix_millis("timestamp") + (horizon - F.col("step") * length) * 1000).alias("e"),
        (F.unix_millis("timestamp") * 2 + 1).alias("mark"),
        F.lit(None).cast("string").alias("id"),
    )
    both = _gathered(seen.withWatermark("e", delay).unionByName(bought.withWatermark("e", delay)), one_task)
    # A set of (time, id) holds the copies of a click once, and equal purchases too, which change nothing.
    copies_once = F.transform(F.collect_set(F.struct("mark", F.coalesce("id", F.lit("")))), lambda copy: copy["mark"])
    collected = copies_once if once else F.collect_list("mark")
    marks = (
        both.groupBy(F.window("e", f"{length} seconds"), "product_id", "user_id")
        .agg(F.sort_array(collected, asc=False).alias("marks"))
        .select("window", "product_id", _matched("marks").alias("matched"))
    )
    back = F.expr(f"INTERVAL {horizon} SECONDS")
    return (
        marks.groupBy(F.window(F.window_time("window"), f"{length} seconds"), "product_id")
        .agg(F.sum("matched.clicks").alias("clicks"), F.sum("matched.purchases").alias("purchases"))
        .where("clicks > 0")
        .withColumns({"window_start": F.col("window.start") - back, "window_end": F.col("window.end") - back})
    )


def _matched(marks: str) -> Column:
    """Clicks, and those with a purchase within the horizon, from marks in descending order: one step a mark."""
    far = 2**62
    start = F.struct(
        F.lit(far).alias("next"), F.lit(0).cast("long").alias("clicks"), F.lit(0).cast("long").alias("purchases")
    )

    def step(seen: Column, mark: Column) -> Column:
        ms, is_purchase = F.shiftright(mark, 1), mark.bitwiseAND(1) == 1
        converts = (~is_purchase & (seen["next"] - ms <= CONVERSION_HORIZON_MS)).cast("long")
        return F.struct(
            F.when(is_purchase, ms).otherwise(seen["next"]).alias("next"),
            (seen["clicks"] + (~is_purchase).cast("long")).alias("clicks"),
            (seen["purchases"] + converts).alias("purchases"),
        )

    return F.aggregate(marks, start, step)


def _join(clicks: DataFrame, purchases: DataFrame, one_task: bool) -> DataFrame:
    """The left-outer stream-stream join; each click counts once, however many purchases it met."""
    left = clicks.withWatermark("timestamp", DELAY)
    right = purchases.select(
        F.col("user_id").alias("buyer"), F.col("product_id").alias("bought"), F.col("timestamp").alias("bought_at")
    ).withWatermark("bought_at", DELAY)
    within = F.expr(
        "user_id = buyer AND product_id = bought AND bought_at >= timestamp"
        f" AND bought_at <= timestamp + INTERVAL {CONVERSION_HORIZON_S} SECONDS"
    )
    converted = F.collect_set(F.when(F.col("buyer").isNotNull(), F.col("record")))
    return (
        _gathered(left, one_task)
        .join(_gathered(right, one_task), within, "leftOuter")
        .groupBy(F.window("timestamp", f"{CONVERSIONS_WINDOW_S} seconds"), "product_id")
        .agg(
            F.size(F.collect_set("record")).cast("long").alias("clicks"),
            F.size(converted).cast("long").alias("purchases"),
        )
        .withColumns({"window_start": F.col("window.start"), "window_end": F.col("window.end")})
    )


def _typed(records: DataFrame, topic: str) -> DataFrame:
    """The records of a topic and `d`, their fields as far as they can be read, whatever their types were."""
    fields = ", ".join(f"`{field.name}` {SPARK_TYPE[field.type]}" for field in INPUT[topic])
    parsed = F.from_json(F.when(_is_short(), F.col("value")).cast("string"), fields, JSON_OPTIONS)
    # The generator keeps Catalyst from copying the parse into the filter above it: one parse a record.
    return records.select("key", "value", "topic", "partition", "offset", F.explode(F.array(parsed)).alias("d"))


def _is_short() -> Column:
    """Whether a record has at most `RECORD_BYTES_MAX` bytes; null for a record without a value."""
    return F.octet_length("value") <= RECORD_BYTES_MAX


def _text() -> Column:
    """A record's value as text, empty if it is null or too long to be read."""
    return F.coalesce(F.when(_is_short(), F.col("value")), F.lit(b"")).cast("string")


def _is_valid(topic: str) -> Column:
    """Never null. Small on purpose: the plan of every batch carries it, and Spark compiles it anew."""
    right_types = F.when(_is_as_written(topic), F.lit(True)).otherwise(_interpreted(partial(_has_right_types, topic)))
    present = [F.col(f"d.{field.name}").isNotNull() for field in INPUT[topic] if field.required]
    in_range = [
        F.coalesce(check, F.lit(False)) for field in INPUT[topic] for check in _checks(field, F.col(f"d.{field.name}"))
    ]
    return reduce(and_, [F.is_valid_utf8(_text()), F.coalesce(right_types, F.lit(False)), *present, *in_range])


def _is_as_written(topic: str) -> Column:
    """A record that is, byte for byte, what Spark writes of its fields, compact and in their order: the types are right."""
    return F.coalesce(_text() == F.to_json(F.struct(*map(_written, INPUT[topic]))), F.lit(False))


def _written(field: Field) -> Column:
    value = F.col(f"d.{field.name}")
    return (_read(field, value) if field.type in NUMBER else value).alias(field.name)


def _is_plain(topic: str, text: Column) -> Column:
    """A flat record without a backslash whose types are right: every pair is text, but for the numbers.

    Java runs a greedy class in a loop of its own, and a possessive one a virtual call a character. No class
    here can give anything back: what follows it is never in it, so that a record that does not match costs no more.
    """
    numbers = [field for field in INPUT[topic] if field.type in NUMBER]
    names = "|".join(field.name for field in numbers)
    string = r'"[^"\\\x00-\x1f]*"'
    colon, comma = f"{SPACE}:{SPACE}", f"{SPACE},{SPACE}"
    of_text = (f'(?!"(?:{names})")' if names else "") + f"{string}{colon}{string}"
    pair = "|".join([of_text, *(f'"{field.name}"{colon}{NUMBER[field.type]}' for field in numbers)])
    pair = f"(?:{pair})" if numbers else pair
    return text.rlike(rf"^{SPACE}\{{{SPACE}{pair}(?:{comma}{pair}){{0,30}}{SPACE}\}}{SPACE}\z")


def _interpreted(rule: Callable[[Column, Column], Column]) -> Column:
    """A rule of (text, fields) that few records need, evaluated without generated code.

    Spark generates no code for higher-order functions. Inline, these rules come to more than the
    64 KB that a Java method may have, and the compiler gives up on the whole stage, batch after batch.
    """
    record = F.struct(_text().alias("text"), F.col("d").alias("d"))
    return F.transform(F.array(record), lambda field: rule(field["text"], field["d"]))[0]


def _let(value: Column, rule: Callable[[Column], Column]) -> Column:
    """A rule of a value that is computed once, however often the rule uses it."""
    return F.transform(F.array(value), rule)[0]


def _has_right_types(topic: str, text: Column, d: Column) -> Column:
    types = ";".join(f"(?:{VARIANT_TYPE[field.type]}{'' if field.required else '|-'})" for field in INPUT[topic])

    def by_variant(parsed: Column) -> Column:
        exact = [
            _is_exact(field, text, parsed, d[field.name]) for field in INPUT[topic] if field.type == "decimal(12,2)"
        ]
        same = [d[field.name] == _integer(field, parsed) for field in INPUT[topic] if field.type == "integer"]
        return reduce(and_, [_kinds(topic, parsed).rlike(f"^{types}$"), *exact, *same])

    is_readable = _bounds_fault(text).isNull() & _is_object(text)
    slow = F.when(is_readable, _let(F.try_parse_json(text), by_variant)).otherwise(F.lit(False))
    return F.when(_is_plain(topic, text), F.lit(True)).otherwise(slow)


def _bounds_fault(text: Column) -> Column:
    """The reason not to parse a record: ``too deep`` or ``not json``; null if it is safe to parse.

    Parsers of variants recurse, and Java's stack is small while its code is cold. This looks at the text
    alone and never recurses: a record's brackets, without all else, lose their innermost pairs in each round.
    """
    pair = r"[\[{][\]}]"

    def of_brackets(brackets: Column) -> Column:
        rounds = F.sequence(F.lit(1), F.lit(NESTING_MAX))
        left = F.aggregate(rounds, brackets, lambda left, _: _without(left, pair))
        has_room = F.length(brackets) <= NESTING_MAX
        is_run = brackets.rlike(rf"[\[{{]{{{NESTING_MAX + 1}}}")
        return F.when(has_room, F.lit(None)).when(is_run | left.rlike(pair), F.lit("too deep"))

    def of_text(without_escapes: Column) -> Column:
        brackets = F.regexp_replace(F.regexp_replace(without_escapes, r'"[^"]*"', ""), r"[^\[\]{}]+", "")
        return F.when(without_escapes.contains("\\"), F.lit("not json")).otherwise(_let(brackets, of_brackets))

    return _let(F.regexp_replace(text, ESCAPE, "x"), of_text)


def _without(text: Column, pattern: str) -> Column:
    return F.when(text == "", text).otherwise(F.regexp_replace(text, pattern, ""))


def _is_object(text: Column) -> Column:
    """Parsers stop at the end of the first value; nothing that follows it can fit into an array and an object both."""
    in_array = F.try_parse_json(F.concat(F.lit("["), text, F.lit("]")))
    in_object = F.try_parse_json(F.concat(F.lit('{"r":'), text, F.lit("}")))
    is_object = text.rlike(rf"^{SPACE}\{{") & in_array.isNotNull() & in_object.isNotNull()
    return F.coalesce(F.is_valid_utf8(text) & is_object, F.lit(False))


def _kinds(topic: str, parsed: Column) -> Column:
    """The JSON types of all fields as one text, such as ``STRING;BIGINT;-``; ``-`` is absent or null.

    Only a scalar is asked for its schema: that of an array of objects takes the square of their number.
    """

    def kind(value: Column) -> Column:
        nested = F.to_json(value).rlike(r"^[\[{]")
        return F.when(value.isNull(), F.lit("-")).when(nested, F.lit("NESTED")).otherwise(F.schema_of_variant(value))

    kinds = [_let(F.try_variant_get(parsed, f"$.{field.name}", "variant"), kind) for field in INPUT[topic]]
    return F.regexp_replace(F.concat_ws(";", *(F.coalesce(kind, F.lit("-")) for kind in kinds)), r"\bVOID\b", "-")


def _integer(field: Field, parsed: Column) -> Column:
    """An integer as JSON has it last; `from_json` keeps an earlier one where the last does not fit."""
    return F.try_variant_get(parsed, f"$.{field.name}", "bigint")


def _is_exact(field: Field, text: Column, parsed: Column, value: Column) -> Column:
    """Whether a number in JSON is what was read of it.

    A variant keeps one with an exponent, or of more than 38 digits, as a double: that distinguishes all values of a
    decimal(12,2). With more digits than that, or so near 0 that a double is 0, its text decides.
    """
    decimal = _read(field, value)

    def is_long(written: Column) -> Column:
        not_0 = r"^-?[0.]*[1-9]"
        return written.rlike(rf"{not_0}[\d.]{{12,}}[1-9]") | ((decimal == 0) & written.rlike(not_0))

    number = F.try_variant_get(parsed, f"$.{field.name}", "variant")
    is_scalar = ~F.to_json(number).rlike(r"^[\[{]")
    short = F.schema_of_variant(number).rlike(r"^(?:BIGINT|DECIMAL\((?:\d|1[0-2]),)")
    same = is_scalar & (decimal.cast("double") == F.try_variant_get(number, "$", "double"))
    exact = F.when(same, F.when(short, F.lit(True)).otherwise(~_let(_as_in_text(field, text), is_long)))
    return F.coalesce(exact, F.lit(False))


def _as_in_text(field: Field, text: Column) -> Column:
    """A number's own characters: of the last field of that name, and not of one inside another value."""
    name = "".join(f"(?:{letter}|{_escaped(letter)})" for letter in field.name)
    simple = F.regexp_replace(F.regexp_replace(text, r"\\\\", "x"), r"\\[^u]", "x")
    names = F.regexp_replace(simple, rf'("{name}"{SPACE}:)|"[^"]*"', "$1")
    inside = F.regexp_replace(names, r"^[^{]*\{|\}[^}]*\z", "")
    rounds = F.sequence(F.lit(1), F.lit(NESTING_MAX))
    flat = F.aggregate(
        rounds,
        inside,
        lambda left, _: F.when(left.rlike(r"[\[{]"), _without(left, r"[\[{][^\[\]{}]*[\]}]")).otherwise(left),
    )
    return F.regexp_extract(flat, rf'(?s).*"{SPACE}:{SPACE}([-+.0-9eE]*)', 1)


def _escaped(letter: str) -> str:
    """A regular expression for what JSON may write instead of a letter."""
    digits = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{ord(letter):04x}")
    return rf"\\u{digits}"


def _checks(field: Field, value: Column) -> list[Column]:
    """What must hold of a value that is there and has the right type; null counts as not."""
    if field.type == "timestamp":
        moment = _read(field, value)
        first, last = F.timestamp_millis(F.lit(EVENT_TIME_MS_MIN)), F.timestamp_millis(F.lit(EVENT_TIME_MS_MAX))
        return [value.rlike(TIMESTAMP) & moment.between(first, last)]
    if field.type == "decimal(12,2)":
        return [_read(field, value) >= field.minimum]
    if field.type == "integer":
        return [value >= field.minimum]
    return [value.isin(*field.allowed)] if field.allowed else []


def _reason(topic: str, text: Column, d: Column) -> Column:
    """The first reason, in the order of the fields, why a record that is not valid was rejected."""

    def first(kinds: Column, parsed: Column) -> Column:
        faults = [
            fault
            for at, field in enumerate(INPUT[topic])
            for fault in _faults(field, kinds[at], text, parsed, d[field.name])
        ]
        return F.coalesce(*faults, F.lit("not json"))

    # Bound once: written out, every fault would carry the kinds of all fields, and so the plan of every batch.
    among = _let(
        F.try_parse_json(text),
        lambda parsed: _let(F.split(_kinds(topic, parsed), ";"), lambda kinds: first(kinds, parsed)),
    )
    of_object = F.when(~_is_object(text), F.lit("not json")).otherwise(among)
    return _let(_bounds_fault(text), lambda fault: F.when(fault.isNotNull(), fault).otherwise(of_object))


def _faults(field: Field, kind: Column, text: Column, parsed: Column, value: Column) -> list[Column]:
    wrong_type, wrong_value = F.lit(f"type {field.name}"), F.lit(f"value {field.name}")
    faults = [F.when(kind == "-", F.lit(f"missing {field.name}"))] if field.required else []
    faults.append(F.when(~kind.rlike(f"^(?:{VARIANT_TYPE[field.type]}|-)$"), wrong_type))
    if field.type == "timestamp":
        is_moment = F.coalesce(value.rlike(TIMESTAMP) & _read(field, value).isNotNull(), F.lit(False))
        return [*faults, F.when(~is_moment, wrong_type), F.when(~_checks(field, value)[0], wrong_value)]
    if field.type == "decimal(12,2)":
        too_low = ~_checks(field, value)[0]
        return [*faults, F.when(~_is_exact(field, text, parsed, value), wrong_type), F.when(too_low, wrong_value)]
    if field.type == "integer":
        last = _integer(field, parsed)
        fits = F.coalesce(last.between(-(2**31), 2**31 - 1), F.lit(False))
        return [*faults, F.when(~fits, wrong_type), F.when(last < field.minimum, wrong_value)]
    return [*faults, *(F.when(~check, wrong_value) for check in _checks(field, value))]


def _read(field: Field, value: Column) -> Column:
    if field.type == "timestamp":
        return F.date_trunc("MILLISECOND", value.try_cast("timestamp"))
    if field.type == "decimal(12,2)":
        return value.try_cast(field.type)
    return value
