"""The design as a test: imports point down only, and nothing reaches where it must not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from harness.job.clickstream.contract import INPUT, QUERIES

ROOT = Path(__file__).parent.parent
LAYERS = (
    {"__main__"},
    {"cli", "pytest_plugin"},
    {"experiments"},
    {"report"},
    {"judge", "runner"},
    {"load", "engines"},
    {"rundir"},
    {"scenario"},
    {"faults", "kafka"},
    {"job", "host"},
    {"model", "errors"},
)
"""Highest first. A module may import its own package, and those of the layers below it."""


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


def package(name: str) -> str:
    """The part of a dotted name below `harness`: harness.kafka.embedded → kafka."""
    return name.split(".")[1]


def layer(name: str) -> int:
    """The number of the layer that a harness module is in."""
    return next(number for number, members in enumerate(LAYERS) if package(name) in members)


def dotted(path: Path) -> str:
    """harness/kafka/embedded.py → harness.kafka.embedded."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", modules("harness"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path):
    """A module imports from its own package and from lower layers, never sideways or up."""
    own = dotted(path)
    if own == "harness.__init__":
        return
    imported = {name for name in imports(path) if name.startswith("harness.") and package(name) != package(own)}
    assert set() == {name for name in imported if layer(name) <= layer(own)}


def test_the_listing_is_the_data_flow():
    """At most 12 packages and 6 modules stand directly in `harness`."""
    inside = [path for path in (ROOT / "harness").iterdir() if path.name != "__pycache__"]
    assert len([path for path in inside if path.is_dir()]) <= 12
    assert len([path for path in inside if path.suffix == ".py"]) <= 6


@pytest.mark.parametrize("path", modules("harness"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_harness_never_imports_the_pipeline(path):
    """An oracle that reused the pipeline's code would agree with its bugs."""
    assert set() == {name for name in imports(path) if name.split(".")[0] == "pipeline"}


@pytest.mark.parametrize("path", modules("pipeline"), ids=lambda path: path.name)
def test_the_pipeline_never_imports_the_harness(path):
    """The system under test does not know that it is tested."""
    assert set() == {name for name in imports(path) if name.startswith("harness")}


# Packages that work with any job: they use the facts of a query, and have no name of one.
JOBLESS = ("runner", "experiments", "faults", "engines", "scenario", "report", "judge")
# A count of the result, which has the name of a query.
COUNTS = {
    ("harness/report/page.py", "dead_letter"),
    ("harness/judge/summary.py", "dead_letter"),
    ("harness/judge/verdict.py", "dead_letter"),
}


def names_of_the_job(source: str) -> set[str]:
    """The names of topics and queries that a module has: as strings of their own, or by the topics' constants."""
    words = {*INPUT, *QUERIES, *(query.topic for query in QUERIES.values())}
    nodes = list(ast.walk(ast.parse(source)))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    constants = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return (strings & words) | (constants & {"CLICKSTREAM", "TRANSACTIONS"})


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param('windowed = query != "dead_letter"', {"dead_letter"}, id="comparison"),
        pytest.param('OF_ROWS = ("page_views", "revenue")', {"page_views", "revenue"}, id="table"),
        pytest.param('match topic:\n    case "transactions":\n        pass', {"transactions"}, id="case"),
        pytest.param("from contract import CLICKSTREAM", {"CLICKSTREAM"}, id="constant"),
        pytest.param('"""Of page_views, as clickstream has them."""\ndropped_late_sessions = 1', set(), id="prose"),
    ],
)
def test_names_of_the_job_are_found(source, found):
    """In any expression, and not in a docstring."""
    assert found == names_of_the_job(source)


@pytest.mark.parametrize("package", JOBLESS)
def test_no_topic_or_query_is_named(package):
    """A job of one's own has others: what they differ in is a fact of `Query`."""
    paths = modules(f"harness/{package}")
    assert paths
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in paths
        for name in names_of_the_job(path.read_text(encoding="utf-8"))
    }
    assert set() == found - COUNTS


ABOVE = ("runner", "load", "kafka", "engines")


def strings_below(source: str) -> list[int]:
    """The lines of strings that are statements, and no docstrings of a module, class or function."""
    found = []
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and statement is not body[0]:
                found.append(statement.lineno)
    return sorted(found)


def test_string_below_a_constant_is_found():
    """After the docstring, and in a class too."""
    assert [3, 7] == strings_below(
        '"""Module."""\nA = 1\n"""Of A."""\nclass B:\n    """B."""\n    a: int\n    """Of a."""\n'
    )


@pytest.mark.parametrize("package", ABOVE)
def test_comments_stand_above_what_they_explain(package):
    """A string below a constant soon documents its neighbour."""
    found = {str(path): lines for path in modules(f"harness/{package}") if (lines := strings_below(path.read_text()))}
    assert {} == found
