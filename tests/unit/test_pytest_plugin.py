"""What a run leaves for whoever reads the test's failure."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness import scenario
from harness.errors import ScenarioError, Stalled
from harness.experiments import single
from harness.pytest_plugin import TAIL_LINES, _logs_of_what_broke_off, _run, is_scenario

pytest_plugins = ["pytester"]

RUN = "late/20260101T000000.000Z-seed7"


class Item:
    """A test that keeps what is added to its report."""

    def __init__(self) -> None:
        self.sections: list[tuple[str, str, str]] = []

    def add_report_section(self, when: str, name: str, text: str) -> None:
        """Kept."""
        self.sections.append((when, name, text))


def logged(reports):
    """A run directory with the logs of two processes."""
    logs = reports / RUN / "logs"
    logs.mkdir(parents=True)
    (logs / "pipeline.log").write_text("".join(f"line {number}\n" for number in range(100)))
    (logs / "kafka-broker-1-broker.log").write_text("started\n")


def break_off(reports, error):
    """A run that begins, and does not come to its end."""
    logged(reports)
    raise error


@pytest.mark.parametrize(
    "error", [Stalled("drain"), pytest.fail.Exception("Timeout >600.0s")], ids=["error", "time-out"]
)
def test_broken_run_names_directory_and_log(tmp_path, error):
    """Of every process, and the error goes on."""
    item = Item()
    with pytest.raises(type(error)), _logs_of_what_broke_off(item, tmp_path):
        break_off(tmp_path, error)

    [(_, _, text)] = item.sections
    assert f"kept in {tmp_path / RUN}" in text
    assert "started" in text
    assert "line 99" in text
    assert f"line {99 - TAIL_LINES}\n" not in text


def test_unstarted_run_names_no_other(tmp_path):
    """Which lies there from before."""
    logged(tmp_path)
    item = Item()
    with pytest.raises(Stalled), _logs_of_what_broke_off(item, tmp_path):
        raise Stalled("no broker")

    assert [] == item.sections


def test_other_workers_run_is_ignored(tmp_path):
    """Both write below one folder."""
    item = Item()
    with pytest.raises(Stalled), _logs_of_what_broke_off(item, tmp_path / "burst"):
        break_off(tmp_path, Stalled("no broker"))

    assert [] == item.sections


def test_bad_usage_shows_no_logs(tmp_path):
    """Not even those of a run that another test began in the meantime."""
    item = Item()
    with pytest.raises(ScenarioError), _logs_of_what_broke_off(item, tmp_path):
        break_off(tmp_path, ScenarioError("unknown field"))

    assert [] == item.sections


def test_good_run_adds_nothing(tmp_path):
    """Its story is told elsewhere."""
    logged(tmp_path)
    item = Item()
    with _logs_of_what_broke_off(item, tmp_path):
        pass

    assert [] == item.sections


def test_repeat_line_has_the_settings(monkeypatch, tmp_path):
    """Those of pytest's options, and those of the test."""
    asked = {"--harness-kafka": "embedded", "--harness-seed": 3}
    repeated: list[str] = []

    def run(chosen, reports, status, command):
        repeated.extend(command)
        return SimpleNamespace(result=chosen)

    monkeypatch.setattr(single, "run", run)
    monkeypatch.setattr(single, "story", lambda done: [])
    _run(SimpleNamespace(getoption=asked.get), "late", ("load.eps=50",), tmp_path)

    sets = ["--set", 'kafka.where="embedded"', "--set", "load.seed=3", "--set", "load.eps=50"]
    assert ["run", "late", *sets] == repeated


@pytest.mark.parametrize(
    ("option", "value"), [("--harness-eps", -1.0), ("--harness-seed", -5), ("--harness-kafka", "nowhere")]
)
def test_option_errors_name_the_option(option, value, tmp_path):
    """Not a `--set` that nobody has typed."""
    with pytest.raises(ScenarioError, match=f"^{option} {value}: ") as error:
        _run(SimpleNamespace(getoption={option: value}.get), "late", (), tmp_path)

    assert "--set" not in str(error.value)


def test_foreign_options_do_not_collide(pytester):
    """A project may have options --seed, --kafka and --eps of its own."""
    pytester.makeconftest(
        "def pytest_addoption(parser):\n    for name in ('seed', 'kafka', 'eps'):\n        parser.addoption(f'--{name}')\n"
    )
    pytester.makepyfile("def test_seed(pytestconfig):\n    assert '5' == pytestconfig.getoption('--seed')\n")

    pytester.runpytest("--seed", "5", "--harness-seed", "6").assert_outcomes(passed=1)


FOREIGN = {
    "project": "[project]\nname = 'x'\n[tool.pytest]\nstrict = true\n",
    "users": "[load]\nusers = 5\n",
    "value": "load = 'eps'\n",
    "template": "{% if x %}\n[load]\nusers = 5\n[other]\neps = 5\n",
    "binary": "\xff",
    "empty": "",
}


def collected(pytester, files):
    """Names of the tests that pytest collects from a folder scenarios with these files."""
    folder = pytester.mkdir("scenarios")
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, encoding="latin-1")
    items, _ = pytester.inline_genitems()
    return [item.name for item in items]


def test_foreign_toml_is_not_collected(pytester):
    """It is another tool's."""
    assert [] == collected(pytester, FOREIGN)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[load]\neps = 50\n", id="a rate alone"),
        pytest.param("[load]\neps = 50\n[[falut]]\nat = 5\n", id="a misspelt table"),
        pytest.param("[load] # steady\nseed = 3\neps = 50\n[workload]\nlate = 0.1.2\n", id="not TOML elsewhere"),
    ],
)
def test_scenario_file_is_collected(pytester, text):
    """A mistake elsewhere in it makes its test fail, not vanish."""
    assert ["mine"] == collected(pytester, {"mine": text, **FOREIGN})


def test_shipped_scenarios_declare_themselves():
    """None of them is left out of `pytest scenarios`."""
    assert [] == [name for name in scenario.names() if not is_scenario(scenario.folder() / f"{name}.toml")]
