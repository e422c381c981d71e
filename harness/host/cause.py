"""Why a process died, by its log: the innermost cause in the log of anybody's Spark job.

Java and Scala stack traces, Python tracebacks, both inside each other, log4j's lines and Spark's JSON lines, crashes of
the JVM. A log has several failures, of which most follow from others; each gets a rank, and the last of the highest
rank is the cause. At most the last MiB of a log is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAIL_BYTES = 1024 * 1024
LINE_MAX = 1000
"""Characters of a line that are looked at."""
CAUSE_MAX = 600
"""Characters of a cause."""
NOTHING = "it logged nothing"

CONSEQUENCE, ERROR_LINE, RETOLD, FAILURE, CRASH = range(1, 6)
"""Ranks: an exception that follows from the end of another process or of this one; an ERROR line without an exception;
an exception that wraps one that it does not name; any other; the end of the JVM."""

_CLASS = r"(?:[A-Za-z_$][\w$.]*)?(?:Error|Exception|Interrupt|Failure|Throwable)"
_HEAD = re.compile(rf'^(?:Exception in thread "[^"]*" |: )?({_CLASS}(?:: .*|:)?)$')
_ANY_CLASS = re.compile(r"^(?:[a-z_][\w$]*\.)+[A-Z][\w$]*(?:: .*)?$")
_EMBEDDED = re.compile(r"(?:(?<=[\s(:'\"])|^)[a-z_][\w$.]*\.[A-Z][\w$]*(?:Error|Exception)(?:: |$)")
_FRAME = re.compile(r"^\s*(?:at [\w$.<>/@-]+\(|\.\.\. \d+ |\.\.\.$)")
_PLAN = re.compile(r"^\s*=+ (?:Streaming Query|.*\bPlan) =+\s*$")
_PLAN_LINE = re.compile(r"^[\s:|]*(?:\+-|:-) ")
_LOG_LINE = re.compile(
    r"^\W*(?:\d[\d/:.,TZ+-]*\s+){0,2}(?:\[[^\]]*\]\s+)?\W?(TRACE|DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL)\b\W*(.*)$"
)
_TRACEBACK = "Traceback (most recent call last):"
_DIRECT_CAUSE = "The above exception was the direct cause of the following exception:"
_WORDS_OF_A_PROGRAM = re.compile(r"^(?!make|error|info|warning|warn|debug|fatal|npm)[a-z][\w./-]*(?:\[\d+\])?: \S")
_CRASHES = re.compile(
    r"^#?\s*(Terminating due to java\.lang\.\w+.*|SIG[A-Z]+ \(0x\w+\) at .*|EXCEPTION_\w+ .*|Internal Error \(.*"
    r"|Native memory allocation \(\w+\) failed.*|Out of Memory Error \(.*|(?:Killed|Aborted|Segmentation fault)(?: \(core dumped\))?)$"
)
_FOLLOWS = re.compile(
    r"Py4JNetworkError|Py4JError: Answer from Java|ConnectionRefusedError|ConnectionResetError|BrokenPipeError"
    r"|InterruptedException|ClosedByInterruptException|InterruptedIOException|RejectedExecutionException"
    r"|TaskKilledException|CalledProcessError|KeyboardInterrupt|RpcEnvStoppedException|stopped SparkContext"
    r"|SparkContext was shut down|JAVA_GATEWAY_EXITED|Could not find (?:CoarseGrainedScheduler|HeartbeatReceiver)"
    r"|AsynchronousCloseException|ClosedChannelException"
)
_WRAPS = re.compile(
    r"StreamingQueryException|Py4JJavaError|PythonException|Py4JException|(?:ExecutionException|UndeclaredThrowableException|RuntimeException)$"
    r"|SparkException: (?:\[?[A-Z_.]*\]? ?)?(?:Job aborted|Writing job aborted|Exception thrown in awaitResult|Task failed)"
)


@dataclass(slots=True)
class _Failure:
    """A chain of exceptions, or a line that stands for one: its innermost cause, and whether a warning precedes it."""

    cause: str
    rank: int
    survived: bool = False


def tail(log: Path, most: int = TAIL_BYTES) -> str:
    """The last `most` bytes of a log as text, from the beginning of a line on; empty if there is no log.

    Bytes that are not UTF-8 are replaced.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most))
            data = file.read(most)
    except OSError:
        return ""
    if size > most and b"\n" in data[:-1]:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", errors="replace")


def of_log(log: Path) -> str:
    """The innermost cause in the last MiB of a log; see `of_text`."""
    return of_text(tail(log))


def of_text(text: str) -> str:
    """The innermost cause in the text of a log, at most 600 characters in one line.

    Without any failure: the last line that is not blank, binary, a stack frame or part of a query plan. Without such a
    line: ``it logged nothing``.
    """
    lines = [line for line in _lines(text) if _is_text(line)]
    failures = [failure for failure in _failures(lines) if not failure.survived]
    highest = max((failure.rank for failure in failures), default=0)
    if failures:
        return _short(next(failure.cause for failure in reversed(failures) if failure.rank == highest))
    return _short(next(reversed(list(_outside_plans(lines))), NOTHING))


def last_lines(log: Path, most: int) -> list[str]:
    """The last lines of a log that hold text, each at most 600 characters."""
    lines = [line for line in tail(log).splitlines() if _is_text(line)]
    return [line[:CAUSE_MAX] for line in lines[-most:]]


def _lines(text: str) -> Iterator[str]:
    """The lines of a log; a line of Spark's JSON log becomes the lines that the text log would have."""
    for line in text.splitlines():
        entry = _json(line)
        if entry is None:
            yield line[:LINE_MAX].rstrip()
            continue
        yield f"{entry['level']} {entry.get('logger', '')}: {entry.get('msg', '')}"[:LINE_MAX]
        thrown = entry.get("exception")
        if isinstance(thrown, dict):
            for part in f"{thrown.get('class')}: {thrown.get('msg')}".splitlines():
                yield part[:LINE_MAX].rstrip()


def _json(line: str) -> dict[str, Any] | None:
    if not line.startswith("{") or '"level"' not in line:
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("level"), str) else None


def _is_text(line: str) -> bool:
    """Whether a line holds letters, and mostly printable characters."""
    odd = sum((not character.isprintable() and character != "\t") or character == "\ufffd" for character in line)
    return any(character.isalnum() for character in line) and odd * 5 <= len(line)


def _outside_plans(lines: list[str]) -> Iterator[str]:
    """The lines that are neither stack frames nor parts of a query plan."""
    plan = False
    for line in lines:
        if _PLAN.match(line):
            plan = True
        elif plan and _ends_a_plan(line):
            plan = False
        if not (plan or _FRAME.match(line) or _PLAN_LINE.match(line)):
            yield line.strip()


def _ends_a_plan(line: str) -> bool:
    patterns = (_LOG_LINE, _HEAD, _WORDS_OF_A_PROGRAM, _FRAME, _CRASHES)
    return _TRACEBACK in line or line.startswith("Caused by: ") or any(pattern.match(line) for pattern in patterns)


def _failures(lines: list[str]) -> Iterator[_Failure]:
    """Each failure in the order of the log; the last words of a program count as one."""
    yield from _Reader().read(lines)
    words = [line for line in _outside_plans(lines) if not _LOG_LINE.match(line)]
    if words and _WORDS_OF_A_PROGRAM.match(words[-1]) and not (_HEAD.match(words[-1]) or _ANY_CLASS.match(words[-1])):
        yield _Failure(words[-1], FAILURE)


class _Reader:
    """Reads a log line by line, and puts what belongs to one chain of exceptions together."""

    def __init__(self) -> None:
        self.found: list[_Failure] = []
        self.level = ""
        self.in_traceback = False
        self.keeps_cause = False
        self.chain: _Failure | None = None

    def read(self, lines: list[str]) -> list[_Failure]:
        """The failures of a whole log."""
        for line, following in zip(lines, [*lines[1:], ""], strict=False):
            self._take(line, bool(_FRAME.match(following)))
        return self.found

    def _take(self, line: str, has_frames: bool) -> None:
        if self.in_traceback and line[:1].isspace():
            return
        if crash := _CRASHES.match(line):
            self._begin(crash[1], CRASH)
        elif line.strip() == _DIRECT_CAUSE:
            self.keeps_cause = self.chain is not None
        elif line.startswith("Caused by: "):
            self._cause(line.removeprefix("Caused by: "))
            self.in_traceback = _TRACEBACK in line
        elif entry := _LOG_LINE.match(line):
            self._entry(entry[1], entry[2])
            self.in_traceback = _TRACEBACK in line
        elif self.in_traceback:
            self._end_of_traceback(line)
        elif (head := _HEAD.match(line)) or (has_frames and _ANY_CLASS.match(line)):
            if line.startswith("Exception in thread"):
                self.level = ""  # the thread has ended of it, and no logger has printed it
            self._head(head[1] if head else line, continues=line.startswith(": "))
            self.in_traceback = _TRACEBACK in line
        elif _TRACEBACK in line:
            self.in_traceback = True
            if not self.keeps_cause:
                self._end_chain()
                self.level = ""  # no logger's: Python prints it when nobody has caught it
        elif not _FRAME.match(line) and not line[:1].isspace():
            self.level = "" if self.chain is None else self.level

    def _entry(self, level: str, words: str) -> None:
        """A line of a logger ends the chain before it; one of ERROR is a failure unless an exception follows."""
        self._end_chain()
        self.level = level
        if level in ("ERROR", "FATAL"):
            self.found.append(_Failure(words, ERROR_LINE))

    def _head(self, text: str, continues: bool) -> None:
        """The first line of an exception: of a new one, or after ``: `` of the Java exception within a Python one."""
        if continues and self.chain is not None:
            self._cause(text)
        else:
            self._begin(text)

    def _end_of_traceback(self, line: str) -> None:
        self.in_traceback = _TRACEBACK in line
        text = line.strip().rstrip("'.") if line.endswith("'.") else line.strip()
        if self.keeps_cause:
            self.keeps_cause = False
        elif self.chain is not None:  # the traceback is the message of a Java exception
            self._cause(text)
        else:
            self._begin(text)

    def _begin(self, text: str, rank: int | None = None) -> None:
        self._end_chain()
        innermost = text if rank else _innermost(text)
        self.chain = _Failure(
            innermost, rank or _rank(innermost), self.level.startswith(("WARN", "INFO", "DEBUG", "TRACE"))
        )
        self.found.append(self.chain)

    def _cause(self, text: str) -> None:
        """A deeper cause of the chain; a wrapper that names nothing does not replace what it wraps."""
        if self.chain is None:
            self._begin(text)
            return
        innermost = _innermost(text)
        rank = _rank(innermost)
        if rank >= self.chain.rank or self.chain.rank < RETOLD:
            self.chain.cause, self.chain.rank = innermost, rank

    def _end_chain(self) -> None:
        if self.chain is not None:
            self.level = ""
        self.chain, self.keeps_cause = None, False


def _innermost(text: str) -> str:
    """The last exception that a line names, with its message."""
    found = list(_EMBEDDED.finditer(text))
    text = text[found[-1].start() :] if found else text
    return re.sub(r"\s*SQLSTATE: \w+\s*$", "", text).strip().rstrip(":")


def _rank(cause: str) -> int:
    if _FOLLOWS.search(cause):
        return CONSEQUENCE
    return RETOLD if _WRAPS.search(cause) else FAILURE


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= CAUSE_MAX else text[: CAUSE_MAX - 1] + "…"
