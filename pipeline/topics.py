"""Make the topics that the pipeline reads and writes: `python -m pipeline.topics --bootstrap HOST:PORT`.

Topics that exist are left as they are, so it may run at every deployment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from pipeline.schema import INPUT, QUERIES, RESULT_BYTES_MAX
from pipeline.settings import OneLine

BROKER_TIMEOUT_MS = 5_000


def main() -> int:
    """Make what is missing and print it; 1 with one line where no broker answers or refuses."""
    args = _arguments()
    try:
        made = create(args.bootstrap, args.topic_prefix, args.partitions, args.replication)
    except (KafkaError, ValueError) as error:
        print(f"topics: {args.bootstrap}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    print(f"made {', '.join(made)}" if made else "every topic exists")
    return 0


def wanted(prefix: str, partitions: int, replication: int) -> Mapping[str, NewTopic]:
    """Topic name → the topic: inputs with `partitions`, results with one partition and room for the largest record."""
    layout = {prefix + topic: (partitions, {"message.timestamp.type": "CreateTime"}) for topic in INPUT}
    of_results = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(RESULT_BYTES_MAX)}
    layout |= {prefix + query.topic: (1, of_results) for query in QUERIES.values()}
    return {
        name: NewTopic(name, number, replication, topic_configs=configs) for name, (number, configs) in layout.items()
    }


def create(bootstrap: str, prefix: str, partitions: int, replication: int) -> list[str]:
    """Make the topics that are missing, and return their names. Raises KafkaError where brokers do not answer or refuse."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=BROKER_TIMEOUT_MS)
    try:
        there = set(admin.list_topics())
        missing = [topic for name, topic in wanted(prefix, partitions, replication).items() if name not in there]
        made = [topic.name for topic in missing if _made(admin, topic)]
    finally:
        admin.close()
    return made


def _made(admin: KafkaAdminClient, topic: NewTopic) -> bool:
    """Whether it was made now; another deployment may have made it meanwhile."""
    try:
        admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return False
    return True


def _arguments() -> argparse.Namespace:
    parser = OneLine(
        prog="python -m pipeline.topics",
        description="Make the topics that the pipeline reads and writes; those that exist are left as they are.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", metavar="HOST:PORT", help="Kafka brokers")
    parser.add_argument("--topic-prefix", default="", metavar="P", help="what every topic's name begins with")
    parser.add_argument("--partitions", type=_positive, default=2, metavar="N", help="of each input topic")
    parser.add_argument("--replication", type=_positive, default=1, metavar="N", help="copies of each partition")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
