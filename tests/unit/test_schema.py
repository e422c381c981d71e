"""The JSON Schema of scenario files: it takes what the parser takes, and refuses what it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from harness import cli, scenario
from harness.errors import ScenarioError
from harness.scenario.schema import schema

SCENARIOS = sorted((Path(__file__).parent.parent.parent / "scenarios").glob("*.toml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    """The schema, itself valid."""
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_shipped_scenarios_are_valid(validator, path):
    """As files, and in full as they are run."""
    validator.validate(tomllib.loads(path.read_text()))
    validator.validate(tomllib.loads(scenario.dump(scenario.load(path.stem))))


@pytest.mark.parametrize(
    "table",
    [
        pytest.param({"lode": {}}, id="unknown table"),
        pytest.param({"load": {"epss": 1}}, id="unknown field"),
        pytest.param({"load": {"eps": "fast"}}, id="type"),
        pytest.param({"load": {"eps": 0}}, id="below"),
        pytest.param({"load": {"eps": 1e9}}, id="above"),
        pytest.param({"load": {"acks": "none"}}, id="choice"),
        pytest.param({"judged": ["speed"]}, id="choice of many"),
        pytest.param({"fault": {"at": 1}}, id="one table for many"),
        pytest.param({"fault": [{"at": 1, "on": "nobody"}]}, id="inside a list"),
        pytest.param({"pipeline": {"output": [{"query": "views"}]}}, id="two deep"),
    ],
)
def test_schema_and_parser_refuse_alike(validator, table):
    """Neither may be laxer."""
    assert list(validator.iter_errors(table))
    with pytest.raises(ScenarioError):
        scenario.parse({"name": "x"} | table, "x.toml")


def test_every_field_is_described(validator):
    """An editor shows the meaning of what it completes."""
    pipeline = validator.schema["properties"]["pipeline"]["properties"]
    missing = [name for name, field in pipeline.items() if not field.get("description")]
    assert [] == missing


def test_the_command_prints_it():
    """On standard output, as JSON."""
    assert schema() == json.loads(CliRunner().invoke(cli.app, ["schema"]).output)
