"""Live traffic for a person who tries the pipeline: the contract's catalogue, at the time of day.

It is not the load engine of a measurement; kafka-python is enough for what a person wants to watch.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from pipeline.schema import ACTIONS, CLICKSTREAM, PAYMENT_METHODS, SESSION_GAP_S, TRANSACTIONS
from pipeline.settings import OneLine

PRODUCTS = (
    ("prod_001", "electronics", Decimal("299.99")),
    ("prod_002", "electronics", Decimal("499.99")),
    ("prod_003", "clothing", Decimal("49.99")),
    ("prod_004", "books", Decimal("19.99")),
    ("prod_005", "home", Decimal("79.99")),
)
USERS = 100
CLICKSTREAM_SHARE = 0.8
BROKER_TIMEOUT_MS = 5_000


def main() -> int:
    """Send for a while; 1 if any record was not acknowledged."""
    args = _arguments()
    producer, trouble = _producer(args.bootstrap, [args.topic_prefix + topic for topic in (CLICKSTREAM, TRANSACTIONS)])
    if producer is None:
        print(f"generator: {trouble}", file=sys.stderr)
        return 1
    tally: dict[str, Any] = {"sent": 0, "acknowledged": 0, "failed": 0, "error": ""}
    try:
        for topic, key, value in _paced(args.eps, args.duration, random.Random(args.seed)):
            _send(producer, args.topic_prefix + topic, key, value, tally)
    except KeyboardInterrupt:
        print("generator: stopped", file=sys.stderr)
    producer.flush()
    producer.close()
    print(f"sent {tally['sent']}, acknowledged {tally['acknowledged']}, failed {tally['failed']}")
    if tally["failed"]:
        print(
            f"generator: {tally['failed']} records were not acknowledged by {args.bootstrap}: {tally['error']}",
            file=sys.stderr,
        )
    return 1 if tally["failed"] else 0


def _producer(bootstrap: str, topics: Sequence[str]) -> tuple[KafkaProducer | None, str]:
    """A producer, or None and what is not there: with a topic missing, each record would wait a while and fail."""
    try:
        producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            linger_ms=5,
            compression_type="lz4",
            bootstrap_timeout_ms=BROKER_TIMEOUT_MS,
            max_block_ms=BROKER_TIMEOUT_MS,
        )
    except (KafkaError, ValueError) as error:
        return None, f"no broker answers at {bootstrap}: {error}"
    for topic in topics:
        try:
            producer.partitions_for(topic)
        except KafkaError:
            producer.close(timeout=0)
            return None, f"no topic {topic} at {bootstrap}: create it first"
    return producer, ""


def _arguments() -> argparse.Namespace:
    parser = OneLine(
        prog="python -m pipeline.generator", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", metavar="HOST:PORT")
    parser.add_argument("--eps", type=_positive, default=100.0, help="events per second")
    parser.add_argument("--duration", type=_positive, default=120.0, help="seconds")
    parser.add_argument("--seed", type=int, default=None, help="for the same users and products again")
    parser.add_argument("--topic-prefix", default="")
    return parser.parse_args()


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and below 1e9")
    return value


def _paced(eps: float, duration_s: float, rng: random.Random) -> Iterator[tuple[str, str, dict[str, Any]]]:
    start = time.time()
    for number in range(round(eps * duration_s)):
        time.sleep(max(0.0, start + number / eps - time.time()))
        yield event(rng)


def event(rng: random.Random) -> tuple[str, str, dict[str, Any]]:
    """Topic, key and fields of a random event of this moment."""
    now = datetime.now(UTC)
    user = f"user_{rng.randint(1, USERS)}"
    product, category, price = rng.choice(PRODUCTS)
    common = {
        "user_id": user,
        "session_id": f"sess_{user}_{int(now.timestamp()) // SESSION_GAP_S}",
        "product_id": product,
        "category": category,
        "timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    identity = f"{rng.getrandbits(48):012x}"
    if rng.random() < CLICKSTREAM_SHARE:
        own: dict[str, Any] = {
            "event_id": f"evt_{identity}",
            "action": rng.choice(ACTIONS),
            "page_url": f"/product/{product}",
            "referrer": "google.com",
        }
        return CLICKSTREAM, user, common | own
    quantity = rng.randint(1, 3)
    own = {
        "transaction_id": f"txn_{identity}",
        "amount": float(price * quantity),
        "quantity": quantity,
        "payment_method": rng.choice(PAYMENT_METHODS),
    }
    return TRANSACTIONS, user, common | own


def _send(producer: KafkaProducer, topic: str, key: str, value: dict[str, Any], tally: dict[str, Any]) -> None:
    def acknowledged(metadata: Any) -> None:
        tally["acknowledged"] += 1

    def failed(error: BaseException) -> None:
        tally["failed"] += 1
        tally["error"] = tally["error"] or str(error)

    tally["sent"] += 1
    try:
        future = producer.send(topic, key=key.encode(), value=json.dumps(value).encode())
    except KafkaError as error:
        failed(error)
        return
    future.add_callback(acknowledged)
    future.add_errback(failed)


if __name__ == "__main__":
    sys.exit(main())
