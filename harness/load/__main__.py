"""The engine as a process of its own: a plan as input, status lines as output.

Standard output carries JSON lines (`ready` where the plan has no start time, `status` twice a second, `settled` when
all of the plan is acknowledged, then `done`). On standard input it takes `start SECOND` where the plan has no start
time, `enough`, after which it sends nothing more of the plan, and `flush` or `flush MS`, after which it sends the flush
events (later than MS of event time) and ends; after any other word it ends without them, and at the end of its input it
sends nothing more at all. Whatever happens to the brokers, sent.parquet is written. Exit code 0, 1 when a record failed,
130 or 143 when it was stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from types import FrameType
from typing import Any

import confluent_kafka
import msgspec

from harness.job.clickstream.events import Workload
from harness.load.engine import ACKNOWLEDGED_S, Engine, Plan, producer_settings, settle_s

STATUS_EVERY_S = 0.5
SPEAKING = threading.Lock()
STOP_S = 1.5


def main() -> int:
    """Send the plan, wait for the word to flush, write the journal."""
    args = _arguments()
    plan: dict[str, Any] = json.loads(Path(args.plan).read_text(encoding="utf-8"))
    if plan.get("start_at") is None and not _started(plan):
        return 0
    engine = _engine(args, plan)
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        engine.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # Reference counts free everything here; a collection would only stop the pace.
    gc.freeze()
    gc.disable()
    threading.Thread(target=_report, args=(engine, args.delays), daemon=True).start()
    commands: Queue[str] = Queue()
    threading.Thread(target=_listen, args=(engine, commands), daemon=True).start()
    engine.run()
    patience_s = settle_s(args.acknowledged_s)
    settled = engine.settle(STOP_S if engine.broken else patience_s, lambda: stopped)
    # Without an acknowledgement of each record no flush can help: the run ends here, with the message.
    word, newest_ms = "", "0"
    if not stopped and not engine.broken and not engine.unacknowledged:
        _say(engine, "settled", newest_ms=engine.newest_ms)
        word, _, newest_ms = _word(commands, stopped).partition(" ")
    if word == "flush":
        engine.flush_events(int(newest_ms or 0))
        settled = engine.settle(STOP_S if engine.broken else patience_s, lambda: stopped)
    if stopped:
        settled = engine.settle(STOP_S)
    engine.journal.write(Path(args.sent))
    _say(engine, "done")
    return 128 + stopped[0] if stopped else _failures(engine, settled, args.bootstrap)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.load", description=__doc__)
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of a broker")
    parser.add_argument("--prefix", default="", help="what topic names begin with")
    parser.add_argument("--plan", required=True, help="JSON file: workload, seed, eps, acks, events, start_at")
    parser.add_argument("--sent", required=True, help="where sent.parquet is written")
    parser.add_argument(
        "--acknowledged-s",
        type=float,
        default=ACKNOWLEDGED_S,
        help="how long a record may be unanswered; default %(default)s",
    )
    parser.add_argument(
        "--delays", action="store_true", help="each status line has the generator delays of the events since the last"
    )
    return parser.parse_args()


def _started(plan: dict[str, Any]) -> bool:
    """Wait for the word `start SECOND`, and put the second into the plan; false if the input ends first.

    Signals still have their default effect: nothing was sent, and there is nothing to write.
    """
    print(json.dumps({"event": "ready"}), flush=True)
    word, _, second = sys.stdin.readline().strip().partition(" ")
    if word == "start":
        plan["start_at"] = float(second)
    return word == "start"


def _engine(args: argparse.Namespace, plan: dict[str, Any]) -> Engine:
    plan["segments"] = tuple(map(tuple, plan.get("segments", ())))
    plan["share"] = tuple(plan.get("share", (0, 1)))
    plan["workload"] = msgspec.convert(plan["workload"], Workload)
    eps = None if plan["eps"] is None else plan["eps"] / plan["share"][1]
    settings = producer_settings(eps, plan.pop("acks"), args.acknowledged_s)
    producer = confluent_kafka.Producer({"bootstrap.servers": args.bootstrap, **settings})
    return Engine(Plan(**plan), producer, args.prefix, time.time, time.sleep)


def _listen(engine: Engine, commands: Queue[str]) -> None:
    """Read the input until the command that follows the plan; its end means that the harness is gone."""
    while (line := sys.stdin.readline()) == "enough\n":
        engine.stop()
    if not line:
        engine.stop()
    commands.put(line.strip())


def _word(commands: Queue[str], stopped: list[int]) -> str:
    """The word after the plan; a signal ends the wait."""
    while not stopped:
        with suppress(Empty):
            return commands.get(timeout=0.1)
    return ""


def _report(engine: Engine, delays: bool) -> None:
    reported = 0
    while True:
        time.sleep(STATUS_EVERY_S)
        if delays:
            reported, counted = engine.delays_ms(reported)
            _say(engine, "status", delays_ms=counted)
        else:
            _say(engine, "status")


def _say(engine: Engine, event: str, **more: object) -> None:
    journal = engine.journal
    figures = {
        "flush_ms": engine.flush_ms,
        "sent": journal.sent,
        "acked": journal.acknowledged,
        "failed": journal.failed,
        "cpu_s": round(time.process_time(), 3),
    }
    line = json.dumps({"event": event, **figures, "delay_ms_p99": engine.delay_ms_p99(), **more})
    # Two threads speak here, and print() writes a line and its end apart.
    with SPEAKING:
        print(line, flush=True)


def _failures(engine: Engine, settled: bool, bootstrap: str) -> int:
    journal = engine.journal
    if engine.broken:
        print(f"{bootstrap}: after {journal.sent} records no more could be sent: {engine.broken}", file=sys.stderr)
        return 1
    if settled and not journal.failed:
        return 0
    print(
        f"{engine.unacknowledged} of {journal.sent} records were not acknowledged by {bootstrap}: {journal.first_error or 'no answer'}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
