"""The few exceptions.

HarnessError            no verdict can be given
├── ScenarioError       the scenario file or a flag is wrong; the message names the field
├── StackError          Kafka or the pipeline could not be started, or died; the message ends with its last log line
│   ├── PipelineDied    the pipeline had worked, and ended by itself: the verdict decides what that means
│   ├── Unreachable     nothing answers at an address in time; the message names the address
│   └── Unready         a broker or a master answers, and does not know yet what it was asked
├── RunError            a run directory is incomplete, unreadable or of another version; the message names the file
│   └── NoRun           a path that was named is not a run directory
└── Stalled             the run stopped making progress; the message names what it waited for

ScenarioError and NoRun are bad usage, exit code 2: the command line names what does not exist. All others are 3.

A wrong answer is data (an Anomaly), never an exception.
"""

from __future__ import annotations

from pathlib import Path


class HarnessError(Exception):
    """No verdict can be given; the message is one sentence for a person."""

    exit_code = 3


class ScenarioError(HarnessError):
    """The scenario or a flag is wrong: bad usage, exit code 2."""

    exit_code = 2


class StackError(HarnessError):
    """Kafka or the pipeline could not be started, or died."""


class PipelineDied(StackError):
    """The pipeline ended by itself after its queries had started.

    `last` is the last line of its log, `cause` the innermost cause that the log names.
    """

    def __init__(self, code: int, last: str, log: Path, cause: str = "") -> None:
        super().__init__(f"the pipeline ended by itself with code {code}: {cause or last}; see {log}")
        self.code = code
        self.last = last
        self.cause = cause or last
        self.log = log


class Unreachable(StackError):
    """Nothing answers at an address in time."""


class Unready(StackError):
    """A broker or a master answers, and does not know yet what it was asked."""


class RunError(HarnessError):
    """A run directory cannot be read: incomplete, damaged or of another version."""


class NoRun(RunError):
    """A path that was named is not a run directory: bad usage, exit code 2."""

    exit_code = 2


class Stalled(HarnessError):
    """The run stopped making progress before its deadline."""
