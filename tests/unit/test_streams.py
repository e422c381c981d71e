"""No terminal, no closed output and no full disk under it ends a command in a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harness import cli, scenario
from harness.experiments.simulate import simulate

DRIVER = """
import json, sys
from harness import cli
from harness.experiments.selfcheck import Tally
cli.selfcheck.prove = lambda seeds, run: {"lost_row": Tally(1, 1)}  # which takes ten seconds
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["harness", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        print("ended", json.dumps([arguments, ended.code]), file=sys.stderr)
"""
NAMES = [
    command.name or command.callback.__name__.rstrip("_") for command in cli.app.registered_commands if command.callback
]
DRILLS = [command.name or command.callback.__name__ for command in cli.drills.registered_commands if command.callback]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A right run, in a folder with an umlaut."""
    directory = tmp_path_factory.mktemp("läufe") / "run"
    simulate(directory, scenario.load("late", ["load.eps=60"]))
    return str(directory)


def test_every_command_works_in_ascii(run):
    """What the encoding lacks is written as its escape; file names too."""
    helps = [["--help"], *([name, "--help"] for name in NAMES), *(["drill", name, "--help"] for name in DRILLS)]
    found = [["doctor"], ["selfcheck", "--run", run, "--seeds", "1"]]
    works = [["list"], ["show", "late"], ["schema"], ["check", run], ["check", run, "--json"]]
    works += [["explain", run]]
    errors = [["run", "spät"], ["shrink", run], ["show", "late", "--set", "löad.eps=1"], ["explain", run, "--row", "ö"]]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "LANG": "C"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([*helps, *found, *works, *errors])],
        capture_output=True, encoding="ascii", env=environment, check=False,
    )  # fmt: skip
    ended = [json.loads(line.removeprefix("ended ")) for line in done.stderr.splitlines() if line.startswith("ended ")]
    codes = {json.dumps(arguments): code for arguments, code in ended}

    assert "Traceback" not in done.stderr
    assert len(codes) == len(helps) + len(found) + len(works) + len(errors)
    assert {0} == {codes[json.dumps(arguments)] for arguments in (*helps, *works)}, codes
    assert {2} == {codes[json.dumps(arguments)] for arguments in errors}, codes
    assert {codes[json.dumps(arguments)] for arguments in found} <= {0, 1, 3}, codes
    assert "no scenario 'sp\\xe4t'" in done.stderr


def called(arguments, stdout, stderr=subprocess.PIPE):
    """A command with its standard output at a file descriptor: (exit code, standard error)."""
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, stdout=stdout, stderr=stderr, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [["schema"], ["show", "late"], ["doctor"], ["check", "RUN", "--json"]])
def test_closed_output_is_silent(run, arguments):
    """As by `| head -1`; no verdict was delivered, and 1 would read as one."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:
        code, said = called([run if part == "RUN" else part for part in arguments], unread)

    assert 3 == code
    assert not any(word in said for word in ("Traceback", "Exception", "Error", "Broken pipe"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full is Linux's")
@pytest.mark.parametrize("arguments", [["list"], ["check", "RUN", "--json"]])
def test_full_output_is_one_line(run, arguments):
    """Unknown, whatever the verdict: nobody has read it."""
    with open("/dev/full", "w") as full:
        code, said = called([run if part == "RUN" else part for part in arguments], full)

    assert 3 == code
    assert "harness: standard output cannot be written: No space left on device" == said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full is Linux's")
def test_lost_terminal_keeps_the_verdict(run):
    """What is for people cannot be written; the result is, and standard output holds it alone."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "harness", "check", run, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)

    assert (0, "pass") == (done.returncode, json.loads(done.stdout)["verdict"])


def test_absent_streams_are_no_error(run):
    """Closed before the start, as a daemon's are; what is for people does not go to standard output."""
    code = "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, '-m', 'harness', *sys.argv[1:]])"
    command = [sys.executable, "-c", code, "check", run, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)

    assert (0, "pass") == (done.returncode, json.loads(done.stdout)["verdict"])
