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


def test_every_import_is_declared():
    """A dependency of a dependency may go with its next version."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    declared = {normal(re.split(r"[^\w.-]", line)[0]) for line in asked}
    of_name = packages_distributions()
    names = (imported("harness") | imported("pipeline")) - OF_ITS_USER

    assert {"requests", "markupsafe", "py4j"} <= names
    assert set() == {name for name in names if not declared & {normal(found) for found in of_name.get(name, [])}}
