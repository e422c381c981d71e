"""A scenario as a test: the fixture `run_scenario`, and every scenario file of a folder named scenarios collected.

    def test_late_data(run_scenario):
        assert run_scenario("late").verdict is Verdict.PASS

A TOML file declares itself a scenario by the field `eps` in a table `[load]`; every other file is left alone. Options
start with `--harness-`. The plugin is installed with the package, so it is loaded in projects that do not use it: it
must not take a name or a file of theirs. A scenario that does not pass fails with the explanation of its first anomalies.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.model import Result
    from harness.scenario import Override

OPTIONS = {"--harness-kafka": "kafka.where", "--harness-seed": "load.seed", "--harness-eps": "load.eps"}
"""Options of pytest, and the field of the scenario that each sets."""
MARK = re.compile(r"^\s*\[load\]\s*(?:#.*)?$(?:(?!^\s*\[)[\s\S])*?^\s*eps\s*=", re.MULTILINE)
"""A table `[load]` with a field `eps`, in a text that is not TOML as a whole."""

TAIL_LINES = 15


class ScenarioFailed(Exception):
    """The scenario did not pass; the text is its story."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """--harness-kafka, --harness-seed and --harness-eps: --kafka, --seed and --eps of `harness run`."""
    group = parser.getgroup("streaming harness")
    group.addoption("--harness-kafka", help="embedded, containers, or HOST:PORT of brokers that run already")
    group.addoption("--harness-seed", type=int, help="of every scenario")
    group.addoption("--harness-eps", type=float, help="events per second of every scenario")


def pytest_configure(config: pytest.Config) -> None:
    """The marker of everything that starts Kafka and Spark."""
    config.addinivalue_line("markers", "e2e: starts Kafka and Spark for real")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Which Kafka scenarios will run on, and why, where they are asked for."""
    if "e2e" not in (config.getoption("markexpr", "") or "") and "drill" not in (
        config.getoption("markexpr", "") or ""
    ):
        return None
    where, why = _kafka(config)
    return f"kafka: {where} ({why})"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A TOML file in a folder named scenarios is a test if it declares itself a scenario."""
    if file_path.suffix == ".toml" and file_path.parent.name == "scenarios" and is_scenario(file_path):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


def is_scenario(path: Path) -> bool:
    """Whether a file declares itself a scenario: it has a table `[load]` with a field `eps`.

    A scenario with a syntax error elsewhere still counts, so that its test fails instead of vanishing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        load = tomllib.loads(text).get("load")
    except tomllib.TOMLDecodeError:
        return MARK.search(text) is not None
    return isinstance(load, dict) and "eps" in load


class ScenarioFile(pytest.File):
    """A scenario file: one test."""

    def collect(self) -> Iterator[pytest.Item]:
        """The scenario, marked e2e."""
        item: pytest.Item = ScenarioItem.from_parent(self, name=self.path.stem)
        item.add_marker("e2e")
        yield item


class ScenarioItem(pytest.Item):
    """A scenario as a test."""

    def runtest(self) -> None:
        """Run it; anything but pass fails."""
        from harness import scenario

        reports = self.config.rootpath / "reports"
        # Other workers run other scenarios there at the same time.
        with _logs_of_what_broke_off(self, reports / scenario.load(str(self.path)).name):
            lines, result = _run(self.config, str(self.path), (), reports)
        if result.verdict.exit_code:
            raise ScenarioFailed("\n".join(lines))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The story alone, without a trace."""
        from harness.errors import HarnessError

        if isinstance(excinfo.value, ScenarioFailed | HarnessError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands."""
        return self.path, None, f"scenario: {self.name}"


@pytest.fixture
def run_scenario(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Result]:
    """`run_scenario(name_or_path, *overrides)` runs, judges and returns the result; a fail raises with its story."""

    def run(name_or_path: str, *overrides: str) -> Result:
        with _logs_of_what_broke_off(request.node, tmp_path / "reports"):
            lines, result = _run(request.config, name_or_path, overrides, tmp_path / "reports")
        if result.verdict.exit_code:
            request.node.add_report_section("call", "scenario", "\n".join(lines))
        return result

    return run


@contextmanager
def _logs_of_what_broke_off(item: pytest.Item, folder: Path) -> Iterator[None]:
    """Add the run directory, and the last log lines of its processes, to the error of a run that broke off.

    A scenario that was never run adds nothing, least of all the directory of another run.
    """
    from harness.errors import ScenarioError

    before = set(folder.glob("**/2*Z-seed*"))
    try:
        yield
    except ScenarioError:
        raise
    except BaseException:
        kept = max(set(folder.glob("**/2*Z-seed*")) - before, default=None, key=lambda path: path.stat().st_mtime)
        if kept is not None:
            tails = [f"{path.name}\n{_tail(path)}" for path in sorted((kept / "logs").glob("*.log"))]
            item.add_report_section("call", "run", "\n\n".join([f"kept in {kept}", *tails]))
        raise


def _tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def _kafka(config: pytest.Config) -> tuple[str, str]:
    """(where, why): the value of --harness-kafka, else containers where a daemon answers and an image is there, else embedded."""
    if asked := config.getoption("--harness-kafka"):
        return asked, "as asked"
    from harness.kafka.containers import why_not

    why = why_not()
    return ("embedded", why) if why else ("containers", "a Docker daemon answers and has an image")


def _run(config: pytest.Config, name: str, overrides: tuple[str, ...], reports: Path) -> tuple[list[str], Result]:
    # Imported here: a plugin is loaded by every pytest, and most of them run no scenario.
    from rich.console import Console

    from harness import scenario
    from harness.experiments import own, single
    from harness.runner.console import Status
    from harness.scenario import own as own_scenario

    options = {option: config.getoption(option) for option in OPTIONS}
    sets: list[str | scenario.Override] = [
        scenario.Override(f"{OPTIONS[option]}={json.dumps(value)}", f"{option} {value}")
        for option, value in options.items()
        if value is not None
    ]
    sets += overrides
    if (path := own_scenario.find(name)) is not None:
        named = [
            scenario.Override(override, f"override {override}") if isinstance(override, str) else override
            for override in sets
        ]
        judged = own.run(own_scenario.load(path, named), reports, Status(Console(stderr=True)), _again(name, sets))
        return own.story(judged), judged.result
    chosen = scenario.load(name, sets)
    if options["--harness-kafka"] is None and not chosen.needs_embedded and chosen.kafka.where == "embedded":
        sets = [f"kafka.where={json.dumps(_kafka(config)[0])}", *sets]
        chosen = scenario.load(name, sets)
    done = single.run(chosen, reports, Status(Console(stderr=True)), _again(name, sets))
    return single.story(done), done.result


def _again(name: str, sets: Iterable[str | Override]) -> list[str]:
    """The arguments of `harness` that do the same again."""
    settings = [setting if isinstance(setting, str) else setting.text for setting in sets]
    return ["run", name, *chain.from_iterable(("--set", setting) for setting in settings)]
