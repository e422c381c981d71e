"""Every third-party import of the packages is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN = {"harness", "pipeline"}
OF_ITS_USER = {"pytest"}
"""The plugin is loaded by pytest, and by nothing else."""


def imported(package: str) -> set[str]:
    """The top-level names that a package imports, its own and the standard library's left out."""
    found: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - OWN - set(sys.stdlib_module_names)


def normal(name: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def importers(*names: str) -> set[str]:
    """The files of the harness that import any of these."""
    found = set()
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {module.split(".")[0] for module in modules} & set(names):
                found.add(str(path.relative_to(ROOT)))
    return found


def test_locust_is_imported_in_its_own_process_alone():
    """Its import patches the process; no module imports the file that does."""
    assert {"harness/load/locustfile.py"} == importers("locust", "gevent")
    assert not [path for path in (ROOT / "harness").rglob("*.py") if "import locustfile" in path.read_text()]


def test_the_plugin_of_locust_is_not_loaded():
    """It would patch the process of the tests."""
    assert "locust" not in sys.modules
    assert "gevent" not in sys.modules


def test_every_import_is_declared():
    """A dependency of a dependency may go with its next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["load"]]
    declared = {normal(re.split(r"[^\w.-]", line)[0]) for line in asked}
    of_name = packages_distributions()
    names = (imported("harness") | imported("pipeline")) - OF_ITS_USER

    assert {"requests", "markupsafe", "py4j"} <= names
    assert set() == {name for name in names if not declared & {normal(found) for found in of_name.get(name, [])}}
