"""Standard output and standard error of a command: no encoding, no reader that is gone and no full disk ends in a trace.

A run goes on without a standard error that can be written. Without a standard output its command has not done what it
was asked for, and raises Unwritable.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO


class Unwritable(Exception):
    """Standard output cannot be written. `is_closed` where its reader has gone, as after ``| head -1``."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror}")
        self.is_closed = error.errno == errno.EPIPE


class _Stream:
    """A text stream with other errors; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; the number of its characters."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Nothing depends on what is written here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output(_Stream):
    def _failed(self, error: OSError) -> None:
        # What is buffered would fail again while Python ends, and change the exit code.
        _discard(self._stream)
        raise Unwritable(error) from error


def guard() -> None:
    """Replace the standard streams; a character that the terminal's encoding lacks is written as its escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is not None and not isinstance(sys.stdout, _Stream):
        sys.stdout = _Output(sys.stdout)
    if sys.stderr is None:  # print would take standard output in its place
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open until Python ends
    if not isinstance(sys.stderr, _Stream):
        sys.stderr = _Stream(sys.stderr)


def flush() -> None:
    """Write what is buffered. Raises Unwritable."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard(stream: TextIO) -> None:
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
