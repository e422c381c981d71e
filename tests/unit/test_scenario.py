"""A scenario reads back as written, and a wrong one names its field."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from harness import scenario
from harness.errors import ScenarioError

OTHER = 'pipeline={command=["engine", "{bootstrap}"], '
"""Another pipeline, with what follows."""


def problems(**table) -> list[str]:
    """Why a scenario of these tables would not be run."""
    return list(scenario.contradictions(scenario.parse({"name": "x"} | table, "x.toml")))


def test_shipped_scenarios_parse():
    """Each file is valid and says what it is about."""
    assert "load" in scenario.names()
    assert all(scenario.load(name).about for name in scenario.names())


def test_a_dumped_scenario_reads_back_equal():
    """The file in the run directory does the same again."""
    one = scenario.load("load", ["load.eps=123.5", 'pipeline.flags=["--partitions", "2"]'])

    assert one == scenario.parse(tomllib.loads(scenario.dump(one)), "dump")


@pytest.mark.parametrize("name", ["network", "load", str(Path(__file__).parents[1] / "e2e" / "other_engine.toml")])
def test_shown_scenario_documents_each_field(name):
    """What it can be set to is known from there."""
    one = scenario.load(name)
    text = scenario.described(one)

    assert one == scenario.parse(tomllib.loads(text), "shown")
    assert [] == [line for line in text.splitlines() if " = " in line and "  # " not in line]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        pytest.param("load.eps=0", "load.eps = 0: must lie between 0.1 and 1,000,000", id="a rate of 0"),
        pytest.param("load.epps=1", "unknown field load.epps (did you mean eps?)", id="a misspelt field"),
        pytest.param("load.eps=fast", "load.eps = 'fast': Expected `float`, got `str`", id="not a number"),
        pytest.param("load=1", "load must be a table, not 1", id="not a table"),
        pytest.param("pipeline.profile=quick", "must be one of default, specification", id="not a choice"),
        pytest.param("load.eps=nan", "must lie between", id="not a finite number"),
        pytest.param("nonsense", "expected FIELD=VALUE", id="not an assignment"),
        pytest.param("=3", "expected FIELD=VALUE", id="of no field"),
        pytest.param(
            "name=../x", "name = '../x': its runs have a folder of that name", id="a name that leads elsewhere"
        ),
        pytest.param('name=""', "name = '': its runs have a folder of that name", id="no name"),
        pytest.param(
            "fault=[{at = 900_000}]",
            "fault[0].at = 900,000: the load has 725,000 events; inject it sooner, or lengthen the load",
            id="a fault behind the end",
        ),
    ],
)
def test_a_wrong_field_is_named(override, said):
    """File, field, value and what is allowed."""
    with pytest.raises(ScenarioError) as error:
        scenario.load("load", [override])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("fault", "workers", "said"),
    [
        pytest.param({"on": "executor"}, 0, "it needs pipeline.workers of 1 or more", id="no cluster"),
        pytest.param({"on": "master", "kind": "latency"}, 2, "latency acts on one of leader", id="a network"),
        pytest.param({"on": "worker", "kind": "pause"}, 2, None, id="right"),
        pytest.param({"on": "pipeline"}, 0, None, id="the pipeline itself"),
    ],
)
def test_cluster_fault_needs_a_cluster(fault, workers, said):
    """Executors, workers and masters are there with pipeline.workers alone, and are hit as processes."""
    found = problems(fault=[{"at": 1, **fault}], pipeline={"workers": workers, "cores": max(1, workers)})

    assert said is None or said in found[0]
    assert (said is None) is (not found)


@pytest.mark.parametrize(
    ("faults", "pipeline", "said"),
    [
        ([{"kind": "kill"}], {}, None),
        ([{"kind": "stop"}], {}, None),
        ([{"kind": "pause"}], {}, "for one fault, which must be kill or stop of the pipeline"),
        ([{"kind": "kill", "on": "leader"}], {}, "for one fault, which must be kill or stop of the pipeline"),
        ([{"kind": "kill"}, {"kind": "kill"}], {}, "for one fault, which must be kill or stop of the pipeline"),
        ([], {}, "for one fault, which must be kill or stop of the pipeline"),
        ([{"kind": "kill"}], {"command": ["engine"]}, "for our own pipeline alone, on a local master"),
        ([{"kind": "kill"}], {"workers": 2}, "for our own pipeline alone, on a local master"),
    ],
)
def test_a_standby_takes_over_once(faults, pipeline, said):
    """After that none stands by."""
    found = problems(fault=[{"at": 1, **fault} for fault in faults], pipeline={"standby": True, **pipeline})

    assert found == ([] if said is None else [f"pipeline.standby: {said}"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        pytest.param('judged=["success", "cpu"]', "not where cpu is judged", id="a target"),
        pytest.param("limits.recovery_s=15", "not where recovery_s is judged", id="a limit"),
        pytest.param("limits.latency_s=1", None, id="a limit that is not judged"),
    ],
)
def test_quick_start_excludes_speed_targets(override, said):
    """Such a start is slower later."""
    if said is None:
        assert scenario.load("late", [override]).pipeline.quick_start
        return
    with pytest.raises(ScenarioError, match=f"pipeline.quick_start: {said}: set it to false"):
        scenario.load("late", [override])


def test_an_unknown_scenario_offers_the_nearest(tmp_path):
    """A name, a missing path, and a file that is not TOML."""
    with pytest.raises(ScenarioError, match="did you mean load"):
        scenario.load("lod")
    with pytest.raises(ScenarioError, match="a directory: name a scenario"):
        scenario.load(str(tmp_path))
    with pytest.raises(ScenarioError, match="no such scenario file"):
        scenario.load(str(tmp_path / "none.toml"))
    with pytest.raises(ScenarioError, match="cannot be looked at: File name too long"):
        scenario.load("x" * 300)
    (tmp_path / "bad.toml").write_text("= 3")
    with pytest.raises(ScenarioError, match="not TOML"):
        scenario.load(str(tmp_path / "bad.toml"))


def test_query_fault_needs_its_query():
    """A change of settings has none."""
    pipeline = {"queries": ["sessions"]}
    wrong = "fault[0].query = 'page_views': the pipeline has sessions"

    assert [wrong] == problems(pipeline=pipeline, fault=[{"kind": "crash", "at": 1}])
    assert [] == problems(pipeline=pipeline, fault=[{"kind": "change", "at": 1}])


@pytest.mark.parametrize("start", ["foo", "1812-01-01T00:00:00Z", "9999-12-31T00:00:00Z"])
def test_bad_start_time_is_named(start):
    """Years of other lengths are not what a run is about."""
    with pytest.raises(ScenarioError, match=rf"workload.start = '{start}': a time in ISO 8601"):
        scenario.load("late", [f'workload.start="{start}"'])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        pytest.param({"fault": [{"kind": "kill"}]}, "fault[0].at is missing", id="where a fault strikes"),
        pytest.param({"pipeline": {"output": [{"kafka": "t"}]}}, "output[0].query is missing", id="whose result"),
    ],
)
def test_field_without_default_is_required(table, said):
    """Before anything is started, and not when the run directory is read back."""
    [one] = problems(**table)

    assert said in one


@pytest.mark.parametrize(
    ("override", "said"),
    [
        pytest.param("load.silence_s=10", "load.burst_s = 0: there is no burst", id="a silence after no burst"),
        pytest.param("load.burst_s=500", "load.burst_at_s = 0: the load lasts", id="a burst beyond the load"),
        pytest.param("workload.late=0.995", "1 at most together", id="more than all events"),
        pytest.param("workload.session_gaps=true", "workload.late: session_gaps has times", id="times twice"),
        pytest.param("pipeline.workers=4", "pipeline.cores must be 4 too", id="workers that are not counted"),
        pytest.param('pipeline.flags=["--dedup"]', "set pipeline.deduplicate", id="a flag that changes the rows"),
        pytest.param('pipeline.flags=["--output=x"]', "the harness gives it", id="a flag that is the harness's"),
        pytest.param('pipeline.flags=["--sink", "revenue=kafka"]', "the place of the result", id="another sink"),
        pytest.param('pipeline.flags=["--sink=revenue=kafka"]', "the place of the result", id="with an equals sign"),
        pytest.param('pipeline.flags=["--conf", "spark.a=b"]', None, id="a flag"),
        pytest.param(
            'fault=[{kind="change", at=9, flags=["--output=x"]}]', "fault[0].flags: --output is not", id="moved"
        ),
        pytest.param('fault=[{kind="change", at=9, flags=["--dedup"]}]', "refused = true", id="other rows on the way"),
        pytest.param('fault=[{kind="change", at=9, flags=["--dedup"], refused=true}]', None, id="a change to refuse"),
        pytest.param("kafka.where=elsewhere", "embedded, containers, or HOST:PORT", id="no place of brokers"),
        pytest.param("kafka.where=host:99999", "embedded, containers, or HOST:PORT", id="no port"),
        pytest.param("kafka.where=a host:1", "embedded, containers, or HOST:PORT", id="no host"),
        pytest.param("kafka.where=host:9092", None, id="brokers elsewhere"),
        pytest.param('pipeline.output=[{query="revenue", columns=["sum=total"]}]', "'sum' is none of", id="a column"),
        pytest.param('pipeline.output=[{query="revenue", columns=["=n"]}]', "'' is none of", id="none of our columns"),
        pytest.param(
            'pipeline.output=[{query="page_views", columns=["view_count"]}]',
            "output[0].columns: 'view_count' has no other name: OURS=THEIRS",
            id="a column of no other name",
        ),
        pytest.param(
            'pipeline.output=[{query="page_views", columns=["view_count="]}]',
            "output[0].columns: 'view_count' has no other name: OURS=THEIRS",
            id="a column of an empty name",
        ),
        pytest.param(
            'pipeline.output=[{query="page_views", columns=["view_count=a", "view_count=b"]}]',
            "output[0].columns: 'view_count' stands twice",
            id="a column twice",
        ),
        pytest.param(f'{OTHER}output=[{{query="revenue", columns=["total_revenue=a=b"]}}]}}', None, id="a name with ="),
        pytest.param(
            'pipeline.output=[{query="revenue", columns=["total_revenue=a"]}]',
            "revenue: columns: our own pipeline has no other names",
            id="a column of ours",
        ),
        pytest.param(
            'pipeline.output=[{query="page_views", parquet="views"}]',
            "writes page_views to kafka page-views, and it is looked for in parquet views",
            id="a result where ours is not",
        ),
        pytest.param(
            'pipeline={flags=["--sink", "revenue=kafka"], output=[{query="revenue", kafka="revenue"}]}',
            None,
            id="a result where ours is",
        ),
        pytest.param(
            'pipeline.flags=["--sink", "page_views=console"]', "writes page_views to console", id="on the screen"
        ),
        pytest.param(
            f'{OTHER}output=[{{query="dead_letter", kafka="dlq", columns=["reason=why"]}}]}}',
            "output[0].columns: the parts of a dead letter in Kafka are its value and its headers",
            id="a header of another name",
        ),
        pytest.param(
            f'{OTHER}output=[{{query="page_views", kafka="all"}}, {{query="sessions", kafka="all"}}]}}',
            "page_views and sessions both in kafka all",
            id="two results in one topic",
        ),
        pytest.param(
            f'{OTHER}output=[{{query="page_views", kafka="clickstream"}}]}}', "what the pipeline reads", id="an input"
        ),
        pytest.param(f'{OTHER}output=[{{query="revenue", parquet="/r"}}]}}', "below {output}", id="a place elsewhere"),
        pytest.param(f'{OTHER}output=[{{query="revenue", parquet="../r"}}]}}', "below {output}", id="a way out"),
        pytest.param(
            'pipeline={queries=["page_views"], output=[{query="sessions"}]}',
            "output[0].query = 'sessions': the pipeline has page_views",
            id="a result of no query",
        ),
        pytest.param('pipeline.flags=["--starting-offsets", "latest"]', "all that is sent must be read", id="latest"),
        pytest.param(
            'pipeline.command=["e", "{bootstrapp}"]', "command: {bootstrapp} is no placeholder", id="misspelt"
        ),
        pytest.param('pipeline.command=["e", "{print} {asctime} {args} {query}"]', None, id="braces of another kind"),
        pytest.param(
            'fault=[{kind="change", at=9, command=["e", "{prefx}"]}]', "fault[0].command: {prefx}", id="later misspelt"
        ),
        pytest.param(
            'pipeline.checkpoint="{checkpoints}/{query}"', "{checkpoints} is no placeholder", id="a checkpoint"
        ),
        pytest.param(
            'pipeline.checkpoint="{checkpoint}"', "it has no {query}, and the pipeline has 5", id="one for all"
        ),
        pytest.param(
            'kafka.where="h:1"\npipeline.command=["e", "{bootstrap}"]',
            "pipeline.command: it has no {prefix}, with which the run's topics at h:1 begin",
            id="somebody's topics",
        ),
        pytest.param('kafka.where="h:1"\npipeline.command=["e", "--p={prefix}"]', None, id="topics of its own"),
        pytest.param(
            'kafka.where="h:1"\npipeline.command=["e"]\npipeline.flags=["{prefix}"]', None, id="by a flag of its own"
        ),
        pytest.param(
            'kafka.where="h:1"\nfault=[{kind="change", at=9, command=["e"]}]', "fault[0].command: it has no", id="later"
        ),
        pytest.param('pipeline.output=[{query="revenue"}, {query="revenue"}]', "it stands twice", id="a query twice"),
        pytest.param('pipeline.queries=["sessions"]', "dropped_late is counted by page_views", id="nobody counts it"),
        pytest.param('pipeline.queries=["revenue", "sessions"]', None, id="one of two counts it"),
        pytest.param('fault=[{at=5, on="two brokers"}]', "it needs kafka.nodes of 2", id="two brokers of one"),
        pytest.param('fault=[{at=5, on="broker 2"}]', "kafka.nodes is 1", id="a broker that is not there"),
        pytest.param('fault=[{at=5, kind="crash", point="in state", query="dead_letter"}]', "no state", id="no state"),
        pytest.param('fault=[{at=5, kind="older"}]', "must be in Parquet", id="no log of results"),
        pytest.param("fault=[{at=5, refused=true}]", "it is for change", id="a field that kill has not"),
        pytest.param('fault=[{at=5, kind="crash", point="in state"}]', None, id="a field that crash has"),
    ],
)
def test_contradictions_are_refused(override, said):
    """Before anything is started, and naming the field."""
    overrides = override.split("\n")
    if said is None:
        scenario.load("late", overrides)
        return
    with pytest.raises(ScenarioError, match=re.escape(said)):
        scenario.load("late", overrides)


def test_only_stale_checkpoint_needs_folder():
    """With that, what is copied is the folder in which it lies."""
    alone = {"checkpoint": "{checkpoint}", "queries": ["revenue"]}

    assert [] == problems(pipeline=alone)
    [one] = problems(pipeline=alone, fault=[{"kind": "older", "query": "revenue", "at": 5}])
    assert "for a fault of kind older it must lie below {checkpoint}" in one


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        pytest.param("latency_s=10.5", "10.5: looser than the target's own: 10 at most", id="latency"),
        pytest.param("throughput_eps=999", "999: looser than the target's own: 1000 at least", id="throughput"),
        pytest.param(
            "state_bytes=1_000_000_001", "1000000001: looser than the target's own: 1000000000 at most", id="state"
        ),
        pytest.param("cpu_share=1", "1: looser than the target's own: 0.8 at most", id="cpu"),
        pytest.param("success_share=0.99", "0.99: looser than the target's own: 0.999 at least", id="success"),
        pytest.param("success_share=1", None, id="stricter"),
        pytest.param("latency_s=10", None, id="the target's own"),
    ],
)
def test_limits_only_tighten_targets(limit, said):
    """A run that passes has reached the five targets that it is judged on, whatever its scenario says."""
    if said is None:
        scenario.load("late", [f"limits.{limit}"])
        return
    with pytest.raises(ScenarioError, match=re.escape(f"limits.{limit.partition('=')[0]} = {said}")):
        scenario.load("late", [f"limits.{limit}"])


@pytest.mark.parametrize("limit", ["recovery_s", "gap_s"])
def test_fault_limit_needs_a_fault(limit):
    """Nothing else would be held to it."""
    assert [f"limits.{limit} = 15: there is no fault to recover from"] == problems(limits={limit: 15})
    assert [] == problems(limits={limit: 15}, fault=[{"at": 1}])


@pytest.mark.parametrize("where", ["containers", "host:9092"])
def test_network_faults_need_own_brokers(where):
    """Containers and brokers elsewhere have no relay, and no disks of ours."""
    with pytest.raises(ScenarioError, match=r"fault\[0\].kind = 'latency': .* --kafka embedded"):
        scenario.load("late", [f"kafka.where={where}", 'fault=[{at=5, kind="latency", on="leader"}]'])
