"""The documentation points at what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    """Each relative link of a page names a file of the repository."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [] == [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_readme_fits_150_lines():
    """The first page stays short; details are in docs."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_readme_python_examples_compile():
    """Each indented Python example of the README compiles and imports what it uses."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"(?:^    .*\n|^\n)+", text[text.index("    from harness import Verdict") :], re.MULTILINE)[
        :1
    ]
    code = "\n".join(line[4:] for line in example.splitlines())
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["Verdict"].PASS.exit_code == 0
