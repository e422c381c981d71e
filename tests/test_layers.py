"""The design as a test: imports point down only, and nothing reaches where it must not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    {"cli", "__main__", "pytest_plugin", "bench"},
    {"drill"},
    {"trial", "selfcheck", "simulate", "shrink"},
    {"doctor", "runner"},
    {"striking"},
    {"rig"},
    {"sampling"},
    {"offering"},
    {
        "report",
        "manifest",
        "faults",
        "kafka",
        "load",
        "system",
        "status",
        "sinks",
        "jars",
        "classes",
        "processes",
        "owners",
        "leftovers",
        "standalone",
        "disks",
        "memory",
    },
    {"verdict"},
    {"findings"},
    {"explain"},
    {"figures", "recovery"},
    {"proofs"},
    {"evidence"},
    {"oracle", "checkers", "measures"},
    {"history"},
    {"scenario"},
    {"workload"},
    {"model", "errors"},
)
"""Highest first. A module may import its own layer and those below it."""


def modules(package: str) -> list[Path]:
    """Every Python file of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Absolute dotted names that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(name: str) -> int:
    """The layer of a harness module, by the first part of its name below the package."""
    part = name.split(".")[1] if "." in name else name
    return next(number for number, members in enumerate(LAYERS) if part in members)


def part(path: Path) -> str:
    """harness/kafka/embedded.py → kafka; harness/cli.py → cli."""
    return path.relative_to(ROOT / "harness").with_suffix("").parts[0]


@pytest.mark.parametrize("path", modules("harness"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path):
    """No module imports from a layer above its own."""
    if path == ROOT / "harness" / "__init__.py":
        return
    own = layer(f"harness.{part(path)}")
    known = set().union(*LAYERS)
    above = {
        name
        for name in imports(path)
        if name.startswith("harness.") and name.split(".")[1] in known and layer(name) < own
    }
    assert set() == above


@pytest.mark.parametrize("path", modules("harness"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_harness_knows_of_the_pipeline_its_schema_alone(path):
    """Nothing but names and numbers is shared."""
    assert set() == {
        name for name in imports(path) if name.startswith("pipeline") and not name.startswith("pipeline.schema")
    }


@pytest.mark.parametrize("path", modules("harness/oracle"), ids=lambda path: path.name)
def test_the_oracle_shares_nothing_with_the_pipeline(path):
    """An oracle that reused the pipeline's code would agree with its bugs."""
    assert set() == {name for name in imports(path) if name.startswith("pipeline")}


@pytest.mark.parametrize("path", modules("pipeline"), ids=lambda path: path.name)
def test_the_pipeline_never_imports_the_harness(path):
    """The system under test does not know that it is tested."""
    assert set() == {name for name in imports(path) if name.startswith("harness")}
