"""The alert rules and dashboards of `deploy/`: each alert is seen to fire and not to, each expression is one."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
REFERENCE = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
GROUPS = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
CASES = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
PANEL = {"id", "type", "title", "description", "datasource", "gridPos", "targets", "fieldConfig", "options"}
TARGET = {"refId", "expr", "legendFormat", "datasource", "instant", "format"}
NAME = r"\b(?:\w+:)?(?:pipeline|harness|kafka)_\w+(?::\w+)?"
"""What a metric or a recorded series is called in an expression."""

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus"
)


def promtool(*args: str, folder: Path = PROMETHEUS) -> None:
    """Run promtool, and fail with what it prints."""
    done = subprocess.run(["promtool", *args], cwd=folder, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard that show something."""
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions(path: Path) -> list[str]:
    """Every expression of a dashboard, as Grafana would send it."""
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    found = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    return [expression.replace("$__rate_interval", "1m").replace("$instance", ".*") for expression in found]


def known_names() -> set[str]:
    """Every series that the pipeline, the harness or a recording rule makes."""
    listed = set(re.findall(r"^\| `(\w+)` \|", REFERENCE, re.MULTILINE))
    histograms = set(re.findall(r"^\| `(\w+)` \| histogram", REFERENCE, re.MULTILINE))
    parts = {name + part for name in histograms for part in ("_bucket", "_sum", "_count")}
    exporter = {rule["expr"] for rule in RULES if "kafka_" in rule["expr"]}
    of_brokers = {name for expression in exporter for name in re.findall(r"kafka_\w+", expression)}
    return listed | parts | of_brokers | {rule["record"] for rule in RULES if "record" in rule}


@needs_promtool
def test_prometheus_takes_configuration_and_rules():
    """The files that are named in it included."""
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_alerts_fire_when_they_should():
    """By Prometheus' own engine, over series that are made up; and not on what resembles the fault."""
    promtool("test", "rules", "rules_test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_that_fires_and_a_quiet_one(alert):
    """An alert that is never seen to fire proves nothing by its silence, nor the other way round."""
    looks = [look for case in CASES for look in case["alert_rule_test"] if look["alertname"] == alert]

    assert {True, False} == {bool(look.get("exp_alerts")) for look in looks}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_names_severity_summary_and_runbook(alert):
    """The page exists, names the alert, and begins with what to look at."""
    rule = ALERTS[alert]
    page = ROOT / rule["annotations"]["runbook"]

    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"].strip("'").endswith((".", ". "))
    assert RUNBOOKS / f"{alert}.md" == page
    assert page.read_text(encoding="utf-8").startswith(f"# {alert}\n")
    assert "\n## Look first\n" in page.read_text(encoding="utf-8")
    assert f"]({alert}.md)" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")


def test_every_runbook_has_its_alert():
    """No page of an alert that is gone."""
    assert set(ALERTS) == {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}


def test_rules_and_dashboards_use_metrics_that_exist():
    """A metric that is renamed would make an alert silent and a panel empty."""
    texts = [rule["expr"] for rule in RULES] + [text for path in DASHBOARDS for text in expressions(path)]
    used = {name for text in texts for name in re.findall(NAME, re.sub(r'"[^"]*"', "", text))}

    assert "pipeline_lag_records" in used
    assert set() == used - known_names()


@needs_promtool
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_expression_of_a_dashboard_is_one(path, tmp_path):
    """By Prometheus' own parser."""
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions(path))]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))

    assert rules
    promtool("check", "rules", "panels.yml", folder=tmp_path)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_has_the_parts_that_grafana_requires(path):
    """By the schema of grafana/grafana-foundation-sdk (Apache-2.0): required fields, and no unknown ones in panels."""
    dashboard = json.loads(path.read_text(encoding="utf-8"))

    assert path.stem == dashboard["uid"]
    assert dashboard["title"]
    assert isinstance(dashboard["schemaVersion"], int)
    assert [] == dashboard["annotations"]["list"]
    assert {"datasource"} <= {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels(dashboard):
        assert PANEL >= set(panel), panel["title"]
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert {"type": "prometheus", "uid": "${datasource}"} == panel["datasource"]
        assert panel["targets"]
        assert all(TARGET >= set(target) and target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_of_a_dashboard_have_a_place_of_their_own(path):
    """Unique ids, within 24 columns, none on another."""
    every = json.loads(path.read_text(encoding="utf-8"))["panels"]
    places = [panel["gridPos"] for panel in every]

    assert len(every) == len({panel["id"] for panel in every})
    assert all(0 <= at["x"] and 0 < at["w"] and at["x"] + at["w"] <= 24 and at["h"] > 0 for at in places)
    assert [] == [pair for pair in itertools.combinations(places, 2) if overlap(*pair)]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    """Whether two places share a cell."""
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


def test_grafana_finds_its_files():
    """The provider's folder holds the dashboards, and the data source has the name that they ask for."""
    provisioning = GRAFANA / "provisioning"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "dashboards.yml").read_text())["providers"]
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]

    assert ("file", "prometheus") == (provider["type"], source["type"])
    assert provider["options"]["path"].endswith("/dashboards")
    assert ["harness-run", "pipeline"] == [path.stem for path in DASHBOARDS]
