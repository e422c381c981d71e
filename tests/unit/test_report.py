"""The page is one file, says everything in words, and cannot be broken by what it shows."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from history_events import healed
from msgspec import structs

from harness import scenario
from harness.experiments.simulate import START_S, simulate
from harness.judge import anomalies as checkers
from harness.judge import timeline, verdict
from harness.judge.assessment import Assessment
from harness.judge.recovery import written
from harness.model import Anomaly, Result, Target, Verdict
from harness.report import Chart, Page, Series, Table, render
from harness.report import page as pages
from harness.rundir import history
from harness.rundir.events import Commit, FaultHealed, LoadWorker, LoadWorkers, Progress, Sample

NASTY = "</script><b>&\"'"


def page_of(run, result):
    """The page of a run, with a result that a test may have changed."""
    return pages.of_run(Assessment(run, result, timeline.gather(run)))


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
        "of": "p99 of durable latency, revenue",
    }
    fields = {
        "heading": "load · seed 7 · 2026-01-01",
        "about": "",
        "again": "harness run load",
        "verdict": "pass",
        "why": "all rows are right",
        "targets": (target,),
        "anomalies": None,
        "charts": (chart,),
        "shaded": ({"to": 0, "label": "warm-up"},),
        "measured_s": None,
        "tables": (Table("Counts", "", ("count", "number"), (("sent", 1234567),)),),
    }
    return Page(**(fields | changes))


def test_page_requests_nothing():
    """No link, no source, no import that leads out of the file."""
    html = render(page())

    assert [] == re.findall(r"(?:src|href|action)\s*=\s*[\"']?(?!data:)[a-z]+:", html)
    assert [] == re.findall(r"url\(|@import", html)


def test_page_stays_below_a_megabyte():
    """Long series are thinned, and spikes survive it."""
    spiked = Series("s", tuple(99.0 if at == 12_345 else 0.0 for at in range(20_000)))
    chart = Chart("c", "C", "s", tuple(map(float, range(20_000))), (spiked,) * 6, "words")

    html = render(page(charts=(chart,) * 5))
    assert len(html.encode()) < 1_000_000
    assert "99.0" in html


def test_every_chart_has_words_and_table():
    """Complete without a script."""
    html = render(page())

    assert html.count("Nothing took longer than 6 s.") >= 2
    assert "The same as a table" in html


def test_anomalies_show_expected_and_seen():
    """A failing page says what is wrong before it draws anything."""
    anomalies = Table("Anomalies", "1 in all", ("kind", "expected", "seen"), (("wrong value", "3", "4"),))
    html = render(page(verdict="fail", anomalies=anomalies))

    assert html.index("wrong value") < html.index("Over time")
    assert "✗ FAIL" in html


def test_all_text_is_escaped():
    """Neither into the page nor into the script."""
    html = render(page(why=NASTY, shaded=({"to": 0, "label": NASTY},)))

    assert "</script><b>" not in html


def test_table_keeps_the_spike():
    """A row has the largest value of its points, and says so."""
    spiked = Series("s", (1.0,) * 62 + (99.0,) + (1.0,) * 63)
    gaps = Series("gaps", (None,) * 126)
    chart = Chart("c", "C", "s", tuple(map(float, range(126))), (spiked, gaps), "words")

    assert 26 == len(chart.rows())
    assert (60.0, 99.0, None) in chart.rows()
    assert "Each row stands for 5 points, from its second on: of each column the largest value" in render(
        page(charts=(chart,))
    )


def test_thinning_keeps_dips_and_parts():
    """An outage of a rate lies low, and a burst high; the longest parts of two batches are those of none."""
    x = tuple(map(float, range(60)))
    rate = Series("rate", (5.0,) * 31 + (0.0,) + (5.0,) * 18 + (9.0,) * 2 + (5.0,) * 8, dips=True)
    assert {(30.0, 0.0), (50.0, 9.0)} < set(Chart("c", "C", "s", x, (rate,), "words").rows())
    assert "of rate the least usual" in Chart("c", "C", "s", x, (rate,), "words").about_rows

    parts = Series("a", (5.0, 1.0) * 30), Series("b", (1.0, 6.0) * 30)
    batches = Chart("c", "C", "s", x, parts, "words", stacked=True)
    assert {(1.0, 6.0)} == {values for _, *values in map(tuple, batches.rows()) for values in [tuple(values)]}


def test_short_chart_is_its_table():
    """Nothing is put together, and nothing is left out."""
    chart = Chart("c", "C", "s", (0.0, 1.0), (Series("s", (3.0, None)),), "words")

    assert [(0.0, 3.0), (1.0, None)] == chart.rows()
    assert "Each row is a point of the chart." == chart.about_rows


@pytest.mark.parametrize(
    ("sign", "headroom", "width"),
    [
        pytest.param("above", 4.0, "100", id="far above a minimum"),
        pytest.param("above", -0.25, "75.0", id="three quarters of a minimum"),
        pytest.param("below", 0.76, "24.0", id="far below a maximum"),
        pytest.param("below", -3.0, "100", id="far above a maximum"),
    ],
)
def test_bar_length_is_share_of_limit(sign, headroom, width):
    """Whether the target is judged or only shown."""
    target = page().targets[0] | {"sign": sign, "headroom": headroom, "verdict": "shown"}

    assert [width] == re.findall(r'<i style="width: ([\d.]+)%">', render(page(targets=(target,))))


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A run without faults, 5 s of warm-up and 15 s measured, and its result."""
    directory = tmp_path_factory.mktemp("right") / "run"
    simulate(directory, scenario.load("late", ["load.eps=100"]))
    run = history.read(directory)
    return run, verdict.judge(run)


def shown(made: Page, title: str) -> dict:
    """The rows of a table by their first column."""
    [table] = [one for one in made.tables if one.title == title]
    return {first: rest for first, *rest in table.rows}


def said(made: Page, chart: str) -> str:
    """What a chart says in words."""
    return next(one.summary for one in made.charts if one.id == chart)


def struck(at_s: float, healed_s: float | None) -> FaultHealed:
    """A fault as a run writes it down, at seconds of the load."""
    return healed(START_S + at_s, None if healed_s is None else START_S + healed_s)


def with_faults(right, *faults) -> Page:
    """The page of the same run, had it been struck."""
    run, result = right
    run = replace(run, events=(*run.events, *faults))
    return page_of(run, replace(result, faults=tuple(map(written, faults))))


def test_fault_seconds_are_in_words(right):
    """As in the charts, which begin to count 5 s after the load."""
    made = with_faults(right, struck(9.5, 12))

    assert ["kill pipeline", 4.5, 7.0] == shown(made, "Faults")[1][:3]
    assert {"from": 4.5, "to": 7.0, "label": "kill pipeline"} == made.shaded[1]
    assert "the table of faults has the seconds" in render(made)


def test_unhealed_fault_has_no_end(right):
    """And is called that, in the charts and in words."""
    made = with_faults(right, struck(9.5, None))

    assert ["kill pipeline", 4.5, "not healed"] == shown(made, "Faults")[1][:3]
    assert {"from": 4.5, "to": None, "label": "kill pipeline, not healed"} == made.shaded[1]


@pytest.mark.parametrize(
    ("value", "limit", "words"),
    [
        pytest.param(1.0, 0.999, ("100", "99.9"), id="all"),
        pytest.param(1 - 1 / 100_000, 0.999, ("99.999", "99.9"), id="one wrong in 100,000"),
        pytest.param(1 - 1 / 5_000_000, 0.999999, ("99.9999", "99.9999"), id="one wrong in 5,000,000"),
        pytest.param(-11.0, 1, ("-1,100", "100"), id="more wrong rows than expected"),
        pytest.param(None, 0.999, ("–", "99.9"), id="not measured"),
    ],
)
def test_wrong_row_is_never_rounded_away(right, value, limit, words):
    """Success is 100 % only where all rows are right."""
    run, result = right
    target = Target("success", value, limit, "share of rows", Verdict.PASS, at_least=True)
    sign = "at least" if limit == 1 else "above"
    html = render(page_of(run, replace(result, targets=(target,))))

    assert f'<span class="value">{words[0]} <small>% of rows' in html
    assert f"{sign} {words[1]} % of rows" in html


def test_chart_words_match_tables(right):
    """One largest lag and one slowest event on a page."""
    run, result = right
    durable = dict.fromkeys(result.figures["durable_latency_ms"])
    durable["sessions"] = {"p50": 1.0, "p90": 1.0, "p99": 1.0, "p999": 1.0, "max": 8340.0}
    figures = {**result.figures, "lag_records_max": 1111, "durable_latency_ms": durable}
    made = page_of(run, replace(result, figures=figures))

    assert (
        "In the median second of the measured part 100 events were acknowledged; the largest lag was 1,111 records."
        == (said(made, "rates"))
    )
    assert "that were committed none took longer than 8.34 s" in said(made, "latency")
    assert "the slowest query was sessions" in said(made, "latency")


def test_negative_latencies_are_counted_and_shown(right):
    """Commits dated a second early, of events that take 0.5 s to 2 s: a third of 1,200 clicks. Else nothing is said."""
    run, result = right
    early = [
        structs.replace(event, committed_s=event.committed_s - 1, begun_s=event.begun_s - 1)
        if isinstance(event, Commit)
        else event
        for event in run.events
    ]
    skewed = replace(run, events=tuple(early))
    found = verdict.judge(skewed)
    counted = found.figures["negative_latencies"]
    clicks = counted["durable_latency"]["page_views"]

    assert (400, 0) == (pytest.approx(clicks, rel=0.2), counted["ack_latency"])
    said = f"SOME ARE NEGATIVE, as where clocks disagree: durable latency of page_views {clicks}, "
    assert said in render(page_of(skewed, found))
    assert "NEGATIVE" not in render(page_of(run, result))


def test_uncommitted_events_have_no_latency(right):
    """Nor of a lag that was not measured."""
    run, result = right
    none = dict.fromkeys(result.figures["durable_latency_ms"])
    figures = {**result.figures, "lag_records_max": None, "lag_slope_eps": None, "durable_latency_ms": none}
    made = page_of(run, replace(result, figures=figures))

    assert "No event of the measured part was committed." == said(made, "latency")
    assert "In the median second of the measured part 100 events were acknowledged." == said(made, "rates")


def test_words_cover_only_measured_batches(right):
    """The flush and the drain take as long as they take."""
    run, result = right
    slow = {"durationMs": {"triggerExecution": 70_000}}
    drain = [structs.replace(last, t=START_S + 90, progress=last.progress | slow) for last in run.of(Progress)[-8:]]
    made = page_of(replace(run, events=(*run.events, *drain)), result)

    assert "its batches took 0.50 s in the median and 0.50 s at most." in said(made, "batches")


def test_no_measured_batches_is_stated(right):
    """Rather than that they took 0.00 s."""
    run, result = right
    events = [structs.replace(event, t=START_S + 90) if isinstance(event, Progress) else event for event in run.events]

    assert "No batch ended in the measured part." == (
        said(page_of(replace(run, events=tuple(events)), result), "batches")
    )


@pytest.mark.parametrize(
    ("count", "note"),
    [
        pytest.param(3, "3 in all.", id="few"),
        pytest.param(1000, "1,000 in all, the first 50 here, all in result.json.", id="many"),
        pytest.param(1001, "1,001 in all, the first 50 here, the first 1,000 in result.json.", id="too many"),
    ],
)
def test_page_promises_only_listed_anomalies(count, note):
    """result.json has as many as this says."""
    anomaly = Anomaly(checkers.KINDS[0], "revenue", ("a",), "3", "no row", "why")
    result = Result(Verdict.FAIL, "why", (), {}, {}, (anomaly,) * count)
    made = pages._anomalies(result)

    assert note == made.note
    assert min(count, 50) == len(made.rows)
    assert min(count, pages.EXAMPLES_MAX) == len(verdict.as_json(result)["examples"])


def test_configuration_is_shown_as_written(right):
    """Quotes stay where they belong, and each fault has its number."""
    run, result = right
    about = 'say "x"\u2028and = "y"'
    fault = ["fault=[{kind='kill', at=100}, {kind='pause', at=200, for_s=2}]"]
    made = page_of(replace(run, scenario=scenario.load("late", [f"about={json.dumps(about)}", *fault])), result)
    fields = shown(made, "Configuration")

    assert [about] == fields["about"]
    assert (["kill"], ["100"]) == (fields["fault 1.kind"], fields["fault 1.at"])
    assert (["pause"], ["200"]) == (fields["fault 2.kind"], fields["fault 2.at"])
    assert ["1000.0"] == fields["load.eps"]


def test_clocks_of_load_workers_are_shown(right):
    """By whose clock the load was sent, and how far it was off."""
    run, result = right
    workers = tuple(
        LoadWorker(index=index, host="there", pid=11, skew_ms=2.04 * index, round_trip_ms=0.6) for index in (0, 1)
    )
    versions = shown(
        page_of(replace(run, events=(*run.events, LoadWorkers(workers=workers))), result), "Machine and versions"
    )

    assert ["there, clock +2.0 ms (± 0.3 ms)"] == versions["load worker 1"]


def test_external_brokers_have_no_line(right):
    """It would lie at 0, and nobody knows it."""
    run, _ = right
    events = tuple(
        structs.replace(event, brokers_cpu_s=None) if isinstance(event, Sample) else event for event in run.events
    )
    without = replace(run, events=events)
    [cpu] = [chart for chart in page_of(without, verdict.judge(without)).charts if chart.id == "cpu"]

    assert ["pipeline", "generator", "harness", "machine"] == [series.label for series in cpu.series]
    assert None is verdict.judge(without).figures["brokers_cores"]


def test_unknown_figures_are_dashes(right):
    """Its lag and what it has read are known to nobody."""
    run, result = right
    black = replace(run, scenario=replace(run.scenario, pipeline=replace(run.scenario.pipeline, checkpoint="")))
    figures = {**result.figures, "lag_records_max": None, "lag_slope_eps": None, "durable_latency_ms": {}}
    made = page_of(black, replace(result, figures=figures, counts={**result.counts, "read": None}))
    html = render(made)

    assert [None, "records"] == shown(made, "Resources")["largest lag"]
    assert [None] == shown(made, "Counts")["read"]
    for name in ("largest lag", "slope of the lag", "read"):
        assert re.search(rf"<td[^>]*>{name}</td><td[^>]*>–</td>", html)
    assert "RECONCILE" not in html


def test_anomalies_with_one_cause_are_one_line():
    """With their number and some of their rows; those without a known cause by kind and query."""
    known = [
        Anomaly("wrong_value", "revenue", (f"a{number}",), "3", "2", "why", cause="no event of user_3 is counted")
        for number in range(5)
    ]
    other = Anomaly("lost_row", "revenue", ("b",), "3", "no row", "why")
    table = pages._causes(Result(Verdict.FAIL, "why", (), {}, {}, (*known, other)))

    assert [5, 1] == [row[0] for row in table.rows]
    assert ("no event of user_3 is counted", "wrong value in revenue", "a0; a1; a2") == table.rows[0][1:]
    assert "no cause found" == table.rows[1][1]
    assert "no event of user_3 is counted" in render(page(verdict="fail", causes=table))
