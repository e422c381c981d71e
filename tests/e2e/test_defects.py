"""Pipelines with a defect in one or two of their queries: every one fails, in a scenario that names each cause."""

from __future__ import annotations

import json

import pytest

from harness.model import Verdict

pytestmark = pytest.mark.e2e

LATE, MALFORMED, EDGES, SESSIONS = ("run", "late"), ("run", "malformed"), ("run", "edges"), ("run", "sessions")
SHORT = ("--warm-up", "4", "--duration", "12")


@pytest.mark.parametrize(
    ("run", "anomalies"),
    [
        (
            (*LATE, *SHORT),
            {
                "pairs": ("wrong_value", "conversions", "counted once per purchase"),
                "written_twice": ("duplicated_row", "page_views", "wrote it twice"),
            },
        ),
        (
            (*LATE, *SHORT),
            {
                "short_watermark": ("wrong_watermark", "page_views", "60 s ahead of"),
                "doubles": ("wrong_value", "revenue", "doubles stand for decimals"),
            },
        ),
        (
            (*MALFORMED, *SHORT),
            {
                "swallowed": ("dead_letter_missing", "dead_letter", "never came out"),
                "state_kept": ("state_not_released", "page_views", "still holds"),
            },
        ),
        (
            (*EDGES, *SHORT),
            {
                "open_boundary": ("wrong_value", "conversions", "< stands for <="),
                "approximate": ("wrong_value", "page_views", "approximate count"),
            },
        ),
        (
            (*SESSIONS, *SHORT),
            {
                "short_sessions": ("invented_row", "sessions", "a gap of 30 minutes; the gap is 30"),
                "shifted_window": ("invented_row", "page_views", "1 ms off the grid"),
            },
        ),
        # One session in 5,000 takes the whole length to be missing.
        (SESSIONS, {"missing": ("lost_row", "sessions", "never came out")}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else value[1],
)
def test_a_defect_fails_by_its_cause(harness, broken, run, anomalies):
    """The verdict is fail, and for each defect an anomaly of its kind, of its query, names the cause."""
    queries = sorted({query for _, query, _ in anomalies.values()})
    command = json.dumps(broken(",".join(anomalies), "--queries", ",".join(queries)))
    only = ("--set", f"pipeline.command={command}", "--set", f"pipeline.queries={json.dumps(queries)}")
    done = harness(*run, *only, "--json")

    assert 1 == done.returncode, done.stderr
    result = json.loads(done.stdout)
    said = {(one["kind"], one["query"], one["why"]) for one in result["examples"]}
    for defect, (kind, query, cause) in anomalies.items():
        assert result["anomalies"][kind], (defect, result["why"])
        assert any((kind, query) == one[:2] and cause in one[2] for one in said), (defect, sorted(said)[:5])


def test_a_pipeline_that_dies_fails(harness, broken, tmp_path):
    """Of a malformed record: the verdict names its last words, and the directory says the same at any time."""
    done = harness("run", "malformed", *SHORT, "--set", f"pipeline.command={json.dumps(broken('brittle'))}", "--json")

    assert 1 == done.returncode, done.stderr
    result = json.loads(done.stdout)
    assert result["why"].startswith("the pipeline ended by itself in phase ")
    assert "cannot be parsed: " in result["why"]
    assert 1 == harness("check", str(tmp_path / "reports" / "malformed" / "latest")).returncode
    assert (tmp_path / "reports" / "malformed" / "latest" / "report.html").is_file()


@pytest.mark.parametrize(
    ("acks", "verdict"), [("leader", Verdict.FAIL), ("all", Verdict.PASS)], ids=["the leader alone", "all replicas"]
)
def test_acks_1_loses_a_dead_leaders_records(run_scenario, tmp_path, acks, verdict):
    """The brokers lost it, and the pipeline is accused of nothing: every row is that of the records that are left."""
    scenario = (
        'judged = ["state_size", "success"]\n'
        f'[load]\neps = 1000\nacks = "{acks}"\nwarm_up_s = 10\nduration_s = 5\nstretch_s = 120\n'
        "[workload]\ntime_scale = 60\nmalformed = 0.001\n[kafka]\nnodes = 3\n"
        '[pipeline]\nquick_start = true\nqueries = ["page_views", "dead_letter"]\n'
        '[[fault]]\nkind = "fail_over"\non = "leader"\nat = 12_000\nfor_s = 2\n'
    )
    (tmp_path / "fail_over.toml").write_text(scenario)
    result = run_scenario(str(tmp_path / "fail_over.toml"))

    assert verdict is result.verdict, result.why
    assert result.faults[0]["proved"]
    lost = {"record_lost"} if verdict is Verdict.FAIL else set()
    assert lost == {one.kind for one in result.anomalies}
    assert all("that brokers lost: another has its offset now" in one.why for one in result.anomalies)


APPENDED = (
    ("append_sink", "--sink", "page_views=parquet"),
    '[[pipeline.output]]\nquery = "page_views"\nparquet = "page_views"\n',
    'kind = "crash"\npoint = "after sink"\nquery = "page_views"',
)
# Of queries with results in Parquet the second life would soon find no state, and die.
FORGOTTEN = (
    ("forgetful", "--queries", "page_views"),
    'queries = ["page_views"]\n',
    'kind = "kill"\non = "pipeline"',
)


@pytest.mark.parametrize(
    ("unprotected", "kind"),
    [
        pytest.param(APPENDED, "duplicated_row", id="appended"),
        pytest.param(FORGOTTEN, "record_read_twice", id="forgotten"),
    ],
)
def test_unprotected_jobs_fail_under_faults(harness, broken, tmp_path, unprotected, kind):
    """The same fault that the right pipeline survives makes these wrong: append for exactly once, no checkpoint."""
    defect, pipeline, fault = unprotected
    scenario = (
        'judged = ["state_size", "success"]\n'
        "[load]\neps = 500\nwarm_up_s = 10\nduration_s = 20\nstretch_s = 120\n[workload]\ntime_scale = 60\nmalformed = 0.001\n"
        f"[pipeline]\ncommand = {json.dumps(broken(*defect))}\n{pipeline}[[fault]]\nat = 6_000\n{fault}\n"
    )
    (tmp_path / "unprotected.toml").write_text(scenario)
    run = harness("run", "unprotected.toml", "--json")

    assert 1 == run.returncode, run.stderr
    result = json.loads(run.stdout)
    assert result["anomalies"][kind], result["why"]
