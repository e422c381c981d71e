"""Awkward events: valid records that a pipeline with a single defect handles wrongly, and records spoiled in one field.

A tenth of the events is awkward: `SLOTS` of each block of `BLOCK` consecutive events, side by side. The blocks of a cycle
hold *scenes*, events that belong together (a purchase in the click's own millisecond, a late event that joins two
sessions), or *forms*, ways to write a valid record (escapes, offsets, another order of fields). Tables alone: events.py
draws from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.job.clickstream.contract import CONVERSION_HORIZON_S, SESSION_GAP_S, WATERMARK_DELAY_S

Array = npt.NDArray[Any]
Write = Callable[[bytes, int], bytes]
"""Rewrites a compact record; the second argument is its event time in epoch ms, or bits of a draw."""

BLOCK, SLOTS = 80, 8
SHARE_MAX = SLOTS / BLOCK
ACTORS, OWNERS = 512, 4
"""Users that only scenes have, four a block; and the sessions that many of them share."""
GAP_MS, HORIZON_MS, MINUTE_MS = SESSION_GAP_S * 1000, CONVERSION_HORIZON_S * 1000, 60_000
LONG_MS = 4 * 3_600_000
"""Shared sessions have a new id each four hours: they last longer than 75 minutes where event time does."""
CLICK, SALE = 0, 1
VARIANTS = (
    ("prod_pair", "left", 1999),
    ("prod_pair", "right", 1999),
    ("prod_scene", "scenes", 4999),
    ("prod_tie", "tie of 1 cent", 1),
    ("prod_tie", "tie of 3 cents", 3),
    ("prod_huge", "huge", 999_999_996_012),
    ("prod_edge", "edge", 7999),
)
"""Products that only scenes have: name, category and price in cents. 170 prices of `prod_huge` or more add up to
something else in doubles, to the cent."""
PAIR_LEFT, PAIR_RIGHT, SCENE, TIE_1, TIE_3, HUGE, EDGE = range(len(VARIANTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What an awkward event is about, where it differs from a plain one; None is as drawn.

        `at_ms` is relative to the event time of the block's first event. `user` and `owner` (of the session) count the block's
        four actors; owners −1 and below are shared sessions. `minute_ms` rounds the time up to the next full minute and adds so much; as
    `watermark_at` has it, each second minute is a millisecond short.
        `copy` repeats the event before, byte for byte. With `after` the block is the one so many before. A form floors the drawn time to `grain_ms`, or has the time `moment_ms`,
        and is written by `write`, with `key` as its user where it changes that.
    """

    topic: int
    at_ms: int | None = None
    user: int = 0
    owner: int = 0
    product: int = SCENE
    cents: int | None = None
    minute_ms: int | None = None
    copy: bool = False
    after: int = 0
    grain_ms: int = 1
    moment_ms: int | None = None
    write: Write | None = None
    key: bytes | None = None


def _click(at_ms: int, user: int = 0, owner: int | None = None, product: int = SCENE) -> Role:
    return Role(topic=CLICK, at_ms=at_ms, user=user, owner=user if owner is None else owner, product=product)


def _sale(at_ms: int, user: int = 0, cents: int | None = None, product: int = SCENE) -> Role:
    return Role(topic=SALE, at_ms=at_ms, user=user, owner=3 - user, product=product, cents=cents)


def _edge(topic: int, user: int, at_ms: int = 0, minute_ms: int | None = None) -> Role:
    return Role(topic=topic, at_ms=at_ms, minute_ms=minute_ms, user=user, owner=user, product=EDGE)


SESSION_LATE_MS = GAP_MS + WATERMARK_DELAY_S * 1000
SCENES: dict[str, list[Role]] = {
    "in the click's own millisecond": [
        _click(0), _sale(0), _click(0, 1), _sale(-1, 1), _click(0, 2), _sale(1, 2), _click(-1, 3), _sale(-1, 3),
    ],
    "at the bounds of the join": [
        _click(-HORIZON_MS), _click(-HORIZON_MS + 2_000, 2), _click(-HORIZON_MS - 45_000, 3), _click(-HORIZON_MS - 1, 1),
        *(_sale(0, user) for user in range(4)),
    ],
    "two categories of a product": [
        _click(0, product=PAIR_LEFT), _click(0, product=PAIR_RIGHT), _sale(1, product=PAIR_RIGHT),
        _click(0, 1, product=PAIR_LEFT), _sale(5, 1, product=PAIR_RIGHT), _click(7, 2, 1, PAIR_RIGHT),
    ],
    "sessions, users and products not one to one": [
        _click(0), _click(0, 0, 1), _click(1, 1, 0), _click(1, 1, 2), _click(-90_000, 2, 1), _sale(2), _click(3, 3, 0, EDGE),
    ],
    "gaps at 30 minutes": [
        _click(-GAP_MS), _click(0), _click(-GAP_MS - 1, 1), _click(0, 1),
        _click(-GAP_MS - 30_000, 2), _click(0, 2), _click(-GAP_MS + 30_000, 3), _click(0, 3),
    ],
    "copies": [
        _click(0), Role(topic=CLICK, copy=True), _sale(9), Role(topic=SALE, copy=True), _click(4, 1), _click(4, 1),
        Role(topic=CLICK, copy=True),
    ],
    "a tie that rounds to even": [_sale(0, at % 4, int(at == 0), TIE_1) for at in range(SLOTS)],
    "a tie below in doubles": [_sale(0, at % 4, 3 * (at == 0), TIE_3) for at in range(SLOTS)],
    "long sessions of many users": [_click(at, at, -1 - at) for at in range(OWNERS)],
    "two sessions and no event between": [_click(-1_900_000), _click(0), _click(-1_890_000, 1), _click(-10, 2, 1)],
}  # fmt: skip
"""Events that belong together, by what they show; times in ms after the event time at which the block begins."""
JOINED = [_click(-900_000), _click(-880_000, 3, 1)]
"""Late events that join the sessions of the last of the scenes, `JOINED_AFTER` blocks later: by then another batch has read those."""
JOINED_AFTER = 16
EDGES = [
    [
        _edge(CLICK, 3, minute_ms=0), _edge(SALE, 3, minute_ms=0), _edge(SALE, 0, -375_000), _edge(SALE, 1, -480_000),
        _edge(CLICK, 0, -330_000), _edge(CLICK, 1, -1_080_000), _edge(CLICK, 2, minute_ms=-SESSION_LATE_MS),
        _edge(CLICK, 3, minute_ms=-SESSION_LATE_MS - MINUTE_MS),
    ],
    [
        _edge(CLICK, 3, minute_ms=0), _edge(SALE, 1, -299_999), _edge(SALE, 0, -420_000), _edge(CLICK, 0, -375_000),
        _edge(CLICK, 1, -420_000), _edge(CLICK, 2, minute_ms=-SESSION_LATE_MS), _edge(CLICK, 3, -1_260_000),
    ],
    [
        _edge(SALE, 3, minute_ms=0), _edge(SALE, 0, -540_000), _edge(SALE, 1, -660_000), _edge(CLICK, 0, -480_000),
        _edge(CLICK, 1, -960_000), _edge(CLICK, 2, minute_ms=-SESSION_LATE_MS - MINUTE_MS),
        _edge(CLICK, 3, minute_ms=-SESSION_LATE_MS - 2 * MINUTE_MS), _edge(SALE, 2, -1_080_000),
    ],
]  # fmt: skip
"""The watermark of a topic at the end of a window, or a millisecond before it, and late events whose windows end about there."""


def _span(value: bytes, name: bytes) -> tuple[int, int]:
    """Where the text of a field's value lies in a compact record without escapes."""
    start = value.index(b'"' + name + b'":') + len(name) + 3
    end = value.find(b',"', start)
    return start, end if end >= 0 else len(value) - 1


def replaced(name: bytes, raw: bytes, value: bytes, _: int = 0) -> bytes:
    """The record with other text as the value of a field."""
    start, end = _span(value, name)
    return value[:start] + raw + value[end:]


def _prefix(name: bytes, raw: bytes, value: bytes, _: int = 0) -> bytes:
    start, _ = _span(value, name)
    return value[: start + 1] + raw + value[start + 1 :]


def without(name: bytes, value: bytes, _: int = 0) -> bytes:
    """The record without a field."""
    start, end = _span(value, name)
    begin = start - len(name) - 3
    return value[:begin] + value[end + 1 :] if begin == 1 else value[: begin - 1] + value[end:]


def _first(raw: bytes, value: bytes, _: int = 0) -> bytes:
    return b"{" + raw + value[1:]


def _spaced(value: bytes, _: int) -> bytes:
    return value.replace(b'":', b'" : ').replace(b',"', b', "')


def _lines(value: bytes, _: int) -> bytes:
    return b"\n{\r\n\t" + value[1:-1].replace(b',"', b',\n\t"').replace(b'":', b'": ') + b"\n}\n"


def _reversed(value: bytes, _: int) -> bytes:
    return b"{" + b",".join(value[1:-1].split(b",")[::-1]) + b"}"


def _clock(offset_s: int, form: str, value: bytes, ms: int) -> bytes:
    """The same moment by a clock that is ahead; `form` takes the date, the time to the second and the ms."""
    local = np.datetime64(ms + offset_s * 1000, "ms").astype(str)
    text = form.format(day=local[:10], clock=local[11:19], ms=local[20:])
    return replaced(b"timestamp", f'"{text}"'.encode(), value)


ODD_FIELDS = b'"USER_ID":"x","items":[{"amount":1e2,"quantity":-1,"user_id":7},[]],"note":"}{][,\\"amount\\":1","n":null,"t":true,"f":-1.5e-3,'
TEXTS: dict[str, tuple[Write, bytes | None]] = {
    "spaces": (_spaced, None),
    "line breaks": (_lines, None),
    "the reverse order": (_reversed, None),
    "an escaped letter": (partial(_prefix, b"session_id", b"\\u0073\\u00e9\\/"), None),
    "an escaped name": (lambda value, _: value.replace(b'"category"', b'"\\u0063ategory"'), None),
    "an escaped quote": (partial(_prefix, b"session_id", b'\\"\\\\\\t'), None),
    "a surrogate pair": (partial(_prefix, b"category", b"\\ud83d\\ude00"), None),
    "further fields": (partial(_first, ODD_FIELDS), None),
    "a field twice": (partial(_first, b'"user_id":"first","amount":-1,"action":5,'), None),
    "an accent": (partial(_prefix, b"category", "é".encode()), None),
    "a user beyond ASCII": (partial(replaced, b"user_id", '"usér_😀"'.encode()), "usér_😀".encode()),
    "brackets in a text": (partial(_prefix, b"session_id", b"{[}],:"), None),
    "5,000 bytes more": (partial(_first, b'"filler":"' + b"x" * 5_000 + b'",'), None),
    "no user": (partial(replaced, b"user_id", b'""'), b""),
    "no session": (partial(replaced, b"session_id", b'""'), None),
    "no product": (partial(replaced, b"product_id", b'""'), None),
    "no category": (partial(replaced, b"category", b'""'), None),
    "a user in capitals": (partial(replaced, b"user_id", b'"User_1"'), b"User_1"),
    "a session in capitals": (partial(_prefix, b"session_id", b"S"), None),
    "a product in capitals": (partial(_prefix, b"product_id", b"P"), None),
    "a category in capitals": (partial(_prefix, b"category", b"C"), None),
    "a user in spaces": (partial(replaced, b"user_id", b'" user_1 "'), b" user_1 "),
    "a session in spaces": (partial(_prefix, b"session_id", b" "), None),
    "a product in spaces": (partial(_prefix, b"product_id", b" "), None),
    "a category in spaces": (partial(_prefix, b"category", b"  "), None),
}
"""Ways to write either record, with the user where that changes."""
CLOCKS: dict[str, tuple[int, str]] = {
    "+02:00": (7_200, "{day}T{clock}.{ms}+02:00"),
    "-05:30": (-19_800, "{day}T{clock}.{ms}-05:30"),
    "+05:45": (20_700, "{day} {clock}.{ms}+05:45"),
    "+18:00": (64_800, "{day}T{clock}.{ms}+18:00"),
    "-18:00": (-64_800, "{day}T{clock}.{ms}-18:00"),
    "-00:00": (0, "{day}T{clock}.{ms}-00:00"),
    "no offset": (0, "{day}T{clock}.{ms}"),
    "a space": (0, "{day} {clock}.{ms}Z"),
    **{f"{digits} digits": (0, f"{{day}}T{{clock}}.{{ms}}{'987654'[: digits - 3]}Z") for digits in range(4, 10)},
}
"""Ways to write an event time: seconds ahead of UTC, and the text."""
COARSE: dict[str, tuple[int, str]] = {
    "no fraction": (1000, "{day}T{clock}Z"),
    "1 digit": (100, "{day}T{clock}.{ms:.1}+00:00"),
    "2 digits": (10, "{day}T{clock}.{ms:.2}"),
}
"""Fractions of fewer digits than three: the grain of the event time in ms, and the text."""
OF_CLICKS: dict[str, Write] = {
    "page_url null": partial(replaced, b"page_url", b"null"),
    "referrer null": partial(replaced, b"referrer", b"null"),
    "no page_url": partial(without, b"page_url"),
    "no referrer": partial(without, b"referrer"),
    "an empty page_url": partial(replaced, b"page_url", b'""'),
    "an empty referrer": partial(replaced, b"referrer", b'""'),
    "an escaped action": partial(replaced, b"action", b'"v\\u0069ew"'),
}
OF_SALES: dict[str, Write] = {
    "an escaped payment method": partial(replaced, b"payment_method", b'"payp\\u0061l"'),
    **{
        f"an amount of {raw.decode()}": partial(replaced, b"amount", raw)
        for raw in (
            b"1.5e2", b"7E0", b"12", b"12.5", b"12.340", b"0", b"0.00", b"10000.07", b"1234567.89", b"123456789.01", b"9999999999.99",
        )
    },
    **{
        f"a quantity of {raw.decode()}": partial(replaced, b"quantity", raw)
        for raw in (b"4", b"11", b"128", b"32768", b"2147483647")
    },
}  # fmt: skip
ANCIENT: dict[str, tuple[int, Write]] = {
    "a 29 February": (1_709_208_000_123, partial(_clock, 0, "{day}T{clock}.{ms}Z")),
    "the day before 1970": (1_800_500, partial(_clock, -3_600, "{day}T{clock}.{ms}-01:00")),
}
"""Moments long ago that are written oddly: event time in epoch ms. They count in a first batch alone."""


def _forms() -> Iterator[Role]:
    for topic in (CLICK, SALE):
        for write, key in TEXTS.values():
            yield Role(topic=topic, write=write, key=key)
        for ahead_s, form in CLOCKS.values():
            yield Role(topic=topic, write=partial(_clock, ahead_s, form))
        for grain_ms, form in COARSE.values():
            yield Role(topic=topic, grain_ms=grain_ms, write=partial(_clock, 0, form))
        yield from (Role(topic=topic, write=write) for write in (OF_SALES if topic else OF_CLICKS).values())


FORMS = tuple(_forms())
FIRST = [
    *(Role(topic=topic, moment_ms=ms, write=write) for ms, write in ANCIENT.values() for topic in (CLICK, SALE)),
    Role(topic=CLICK, write=partial(replaced, b"event_id", b'""')),
    Role(topic=SALE, write=partial(replaced, b"transaction_id", b'""')),
]
"""The first block of a run. It has the only empty ids: two events of one id that are no copies have no right answer
where each id counts once."""
HUGE_SALES = [_sale(at, at % 4, product=HUGE) for at in range(SLOTS)]
PLAIN = Role(topic=CLICK)
"""Stands for every event that is not awkward: number 0 of `ROLES`."""


def _blocks() -> list[list[Role]]:
    """The blocks of a cycle: forms, edges and scenes in turn."""
    forms = [list(FORMS[at :: -(-len(FORMS) // SLOTS)]) for at in range(-(-len(FORMS) // SLOTS))]
    edges = [EDGES[at % len(EDGES)] for at in range(len(forms))]
    scenes = list(SCENES.values())
    # Twice a cycle, far apart: a long session has no gap of 30 minutes.
    scenes.insert(2, SCENES["long sessions of many users"])
    blocks = [some[at] for at in range(len(forms)) for some in (forms, edges, scenes) if at < len(some)]
    joining = (blocks.index(SCENES["two sessions and no event between"]) + JOINED_AFTER) % len(blocks)
    blocks[joining] = [*blocks[joining][: SLOTS - len(JOINED)], *(replace(role, after=JOINED_AFTER) for role in JOINED)]
    return blocks


CYCLE = _blocks()
HUGE_EVERY, HUGE_AT = 5, 3
"""Of so many cycles that one has nothing but `HUGE_SALES`: only many in one window show what doubles lose."""
ROLES: tuple[Role, ...] = (PLAIN, *(role for block in (*CYCLE, HUGE_SALES, FIRST) for role in block))


def _table() -> Array:
    """Number of the role by block of the cycle (then `HUGE_SALES` and `FIRST`) and slot; 0 where a slot has none."""
    table = np.zeros((len(CYCLE) + 2, SLOTS), dtype=np.int64)
    number = 1
    for row, block in enumerate((*CYCLE, HUGE_SALES, FIRST)):
        table[row, : len(block)] = range(number, number + len(block))
        number += len(block)
    return table


ROLE_AT = _table()
OF_HUGE, OF_FIRST = len(CYCLE), len(CYCLE) + 1
TOPIC = np.array([role.topic for role in ROLES], dtype=np.uint8)
IS_SCENE = np.array([role.at_ms is not None for role in ROLES])
IS_COPY = np.array([role.copy for role in ROLES])
IS_FORM = np.array([role.write is not None for role in ROLES])
USER = np.array([role.user for role in ROLES])
OWNER = np.array([role.owner for role in ROLES])
PRODUCT = np.array([role.product for role in ROLES])
CENTS = np.array([-1 if role.cents is None else role.cents for role in ROLES])
AT_MS = np.array([role.at_ms or 0 for role in ROLES])
MINUTE_MS_OF = np.array([role.minute_ms or 0 for role in ROLES])
IS_AT_MINUTE = np.array([role.minute_ms is not None for role in ROLES])
AFTER = np.array([role.after for role in ROLES], dtype=np.uint64)
GRAIN_MS = np.array([role.grain_ms for role in ROLES])
MOMENT_MS = np.array([-1 if role.moment_ms is None else role.moment_ms for role in ROLES])
IS_SALES_ALONE = np.array([role.topic == SALE and role.product in (TIE_1, TIE_3, HUGE, EDGE) for role in ROLES])
KEYS: Mapping[int, bytes] = {number: role.key for number, role in enumerate(ROLES) if role.key is not None}
"""The columns of `ROLES`, an element a role."""


def watermark_at(times: Array, role: Array) -> Array:
    """Event times, with those of roles at a minute moved there.

    The watermark of a batch whose newest event is at an even minute is at the end of a window, at an odd one a millisecond
    before it; an event that is late by its session comes where it meets such a watermark.
    """
    minutes = -(-times // MINUTE_MS) * MINUTE_MS + MINUTE_MS_OF[role]
    newest = minutes + np.where(MINUTE_MS_OF[role] < 0, SESSION_LATE_MS, 0)
    moved: Array = np.where(IS_AT_MINUTE[role], minutes - newest // MINUTE_MS % 2, times)
    return moved


def shares() -> tuple[float, float]:
    """Of all events, those that are awkward clicks and awkward purchases, over whole cycles."""
    usual = ROLE_AT[: len(CYCLE)]
    sales = (HUGE_EVERY - 1) * int((TOPIC[usual] == SALE).sum()) + len(CYCLE) * SLOTS
    taken = (HUGE_EVERY - 1) * int((usual > 0).sum()) + len(CYCLE) * SLOTS
    events = HUGE_EVERY * len(CYCLE) * BLOCK
    return (taken - sales) / events, sales / events
