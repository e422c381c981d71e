"""The watchdog: a process that outlives its owner, and ends what the owner has left.

After a SIGKILL nobody else does. Its standard input is a pipe whose other end the owner alone holds, so that the end of
the pipe is the end of the owner. It bears no mark itself: no sweep ends it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from harness.host import cleanup
from harness.host.ownership import Owner

DIES_S = 10.0
"""A process closes its pipes some moments before it is dead."""


def main() -> None:
    """Wait for the end of standard input, then end what the owner has left; arguments are its mark and its TMPDIR."""
    mark, temporary = sys.argv[1:]
    owner = Owner.parse(mark)
    assert owner is not None
    sys.stdin.buffer.read()
    deadline = time.monotonic() + DIES_S
    while not owner.is_dead() and time.monotonic() < deadline:
        time.sleep(0.01)
    cleanup.bury(owner, Path(temporary))


if __name__ == "__main__":
    main()
