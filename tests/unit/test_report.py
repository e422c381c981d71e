"""The page is one file, says everything in words, and cannot be broken by what it shows."""

from __future__ import annotations

import re

from harness.report import Chart, Page, Series, Table, render

NASTY = "</script><b>&\"'"


def page(points: int = 20, **changes: object) -> Page:
    """A page with everything on it."""
    chart = Chart(
        id="latency",
        title="Latency",
        unit="s",
        x=tuple(float(at) for at in range(points)),
        series=(
            Series("page_views", tuple(float(at % 7) for at in range(points))),
            Series("lag", (None,) * points, right=True),
        ),
        summary="Nothing took longer than 6 s.",
        right_unit="records",
    )
    target = {
        "name": "latency",
        "value": 2.4,
        "limit": 10.0,
        "sign": "below",
        "unit": "s",
        "headroom": 0.76,
        "verdict": "pass",
    }
    fields = {
        "scenario": "load",
        "about": "",
        "seed": 7,
        "started": "2026-01-01",
        "again": "harness run load",
        "verdict": "pass",
        "why": "all rows are right",
        "targets": (target,),
        "anomalies": None,
        "charts": (chart,),
        "shaded": ({"to": 0, "label": "warm-up"},),
        "tables": (Table("Counts", "", ("count", "number"), (("sent", 1234567),)),),
    }
    return Page(**(fields | changes))


def test_it_asks_nothing_of_any_other_place():
    """No link, no source, no import that leads out of the file."""
    html = render(page())

    assert [] == re.findall(r"(?:src|href|action)\s*=\s*[\"']?(?!data:)[a-z]+:", html)
    assert [] == re.findall(r"url\(|@import", html)


def test_it_stays_below_a_megabyte_whatever_the_length_of_the_run():
    """Long series are thinned, and spikes survive it."""
    spiked = Series("s", tuple(99.0 if at == 12_345 else 0.0 for at in range(20_000)))
    chart = Chart("c", "C", "s", tuple(map(float, range(20_000))), (spiked,) * 6, "words")

    html = render(page(charts=(chart,) * 5))
    assert len(html.encode()) < 1_000_000
    assert "99.0" in html


def test_every_chart_stands_there_in_words_and_as_a_table():
    """Complete without a script."""
    html = render(page())

    assert html.count("Nothing took longer than 6 s.") >= 2
    assert "The same as a table" in html


def test_anomalies_are_listed_with_what_was_expected_and_seen():
    """A failing page says what is wrong before it draws anything."""
    anomalies = Table("Anomalies", "1 in all", ("kind", "expected", "seen"), (("wrong value", "3", "4"),))
    html = render(page(verdict="fail", anomalies=anomalies))

    assert html.index("wrong value") < html.index("Over time")
    assert "✗ FAIL" in html


def test_no_text_can_break_out_of_its_place():
    """Neither into the page nor into the script."""
    html = render(page(why=NASTY, shaded=({"to": 0, "label": NASTY},)))

    assert "</script><b>" not in html
