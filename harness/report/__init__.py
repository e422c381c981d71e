"""A result for a person: one HTML file that asks nothing of any other place.

`Page` is all that the template sees. Everything that a chart shows stands in words and in a table
too, so that the page is complete without a script.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

POINTS_MAX = 1500
ROWS_MAX = 30


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart; None is a gap. `right` is the second axis; thinning a series that `dips` keeps low values."""

    label: str
    values: tuple[float | None, ...]
    right: bool = False
    dips: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Figures over seconds since the start of the measured part, and a sentence that sums them up."""

    id: str
    title: str
    unit: str
    x: tuple[float, ...]
    series: tuple[Series, ...]
    summary: str
    right_unit: str = ""
    stacked: bool = False

    def rows(self) -> list[tuple[float | None, ...]]:
        """The chart with at most 30 points, for the table below it."""
        few = _thinned(self, ROWS_MAX)
        return list(zip(few.x, *(series.values for series in few.series), strict=True))

    @property
    def about_rows(self) -> str:
        """What a row of that table is."""
        if (step := _step(self, ROWS_MAX)) == 1:
            return "Each row is a point of the chart."
        start = f"Each row stands for {step} points, from its second on: "
        if self.stacked:
            return start + "the one with the largest sum among them."
        dip = [series.label for series in self.series if series.dips]
        return (
            start
            + "of each column the largest value among them"
            + (f", of {' and '.join(dip)} the least usual." if dip else ".")
        )


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption; numbers are formatted by the template."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The report of one run."""

    heading: str
    about: str
    again: str
    verdict: str
    why: str
    targets: tuple[dict[str, Any], ...]
    anomalies: Table | None
    charts: tuple[Chart, ...]
    shaded: tuple[dict[str, Any], ...]
    measured_s: float | None
    """Where the measured part ends, if the load goes on after it."""
    tables: tuple[Table, ...]
    causes: Table | None = None
    """The causes of the anomalies, each with its number and examples."""


def write_whole(target: Path, text: str) -> None:
    """Write a file whole, or not at all; through no link and into no pipe that somebody has left there."""
    temporary = target.with_name(target.name + ".tmp")
    temporary.unlink(missing_ok=True)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, target)


def render(page: Page) -> str:
    """The page as HTML."""
    vendor = resources.files("harness.report") / "vendor"
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            page=page,
            data=_embedded(
                [asdict(_thinned(chart, POINTS_MAX)) for chart in page.charts], page.shaded, page.measured_s
            ),
            uplot=Markup((vendor / "uPlot.iife.min.js").read_text(encoding="utf-8")),
            uplot_css=Markup((vendor / "uPlot.min.css").read_text(encoding="utf-8")),
        )
    )


def render_drill(**shown: Any) -> str:
    """The page of a drill: `cells` by (fault, state), `links` from run directories to their reports."""
    return _templates().get_template("drill.html.j2").render(**shown)


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure
    return environment


def figure(value: Any) -> str:
    """A number as a person reads it: separators, and no more digits than matter."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _step(chart: Chart, most: int) -> int:
    """How many points of a chart become one, for there to be so many at most."""
    return max(1, -(-len(chart.x) // most))


def _thinned(chart: Chart, most: int) -> Chart:
    """The chart with at most so many points: each bucket keeps its most extreme value, so that no spike or dip is lost."""
    step = _step(chart, most)
    buckets = [slice(at, at + step) for at in range(0, len(chart.x), step)]
    if chart.stacked:  # of parts that belong together
        sums = [sum(part or 0 for part in parts) for parts in zip(*(line.values for line in chart.series), strict=True)]
        tallest = [max(range(len(sums))[bucket], key=sums.__getitem__) for bucket in buckets]
        series = tuple(replace(line, values=tuple(line.values[at] for at in tallest)) for line in chart.series)
    else:
        series = tuple(replace(line, values=_telling(line, buckets)) for line in chart.series)
    return replace(chart, x=chart.x[::step], series=series)


def _telling(series: Series, buckets: Iterable[slice]) -> tuple[float | None, ...]:
    """Of each bucket the largest value, or with `dips` the value farthest from the median."""
    usual = statistics.median([value for value in series.values if value is not None] or [0])

    def distance(value: float) -> float:
        return abs(value - usual) if series.dips else value

    known = ([value for value in series.values[bucket] if value is not None] for bucket in buckets)
    return tuple(max(values, key=distance, default=None) for values in known)


def _embedded(charts: list[dict[str, Any]], shaded: tuple[dict[str, Any], ...], measured_s: float | None) -> Markup:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps({"charts": charts, "shaded": shaded, "measured": measured_s}, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))
