"""Topics: made when they are missing, listed, and where they end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import kafka
import kafka.errors
from kafka import KafkaAdminClient, KafkaConsumer

from streamer.config import KafkaConfig
from streamer.kafka.connection import (
    MAX_REQUEST_BYTES,
    client_options,
    map_kafka_errors,
    open_client,
    poll_client,
)
from streamer.records import Partition


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is created when it is missing."""

    num_partitions: int
    replication_factor: int = 1
    compacted: bool = False


def ensure_topics(config: KafkaConfig, topics: Mapping[str, TopicSpec]) -> None:
    """Creates the topics that are missing; leaves existing ones as they are.

    Raises:
        BrokerUnavailableError: The broker does not answer.
    """
    with _admin(config, "creating topics") as admin:
        for name in sorted(set(topics) - set(admin.list_topics())):
            _create_topic(admin, name, topics[name])


def missing_topics(config: KafkaConfig, topics: Iterable[str]) -> list[str]:
    """Those of the topics that the broker does not have, sorted.

    Raises:
        BrokerUnavailableError: The broker does not answer.
    """
    with _admin(config, "listing topics") as admin:
        return sorted(set(topics) - set(admin.list_topics()))


@contextmanager
def _admin(config: KafkaConfig, action: str) -> Iterator[Any]:
    with map_kafka_errors(action, config.bootstrap_servers):
        admin = open_client(KafkaAdminClient, **client_options(config))
        try:
            yield admin
        finally:
            admin.close()


def _create_topic(admin: Any, name: str, spec: TopicSpec) -> None:
    options: dict[str, Any] = {
        "num_partitions": spec.num_partitions,
        "replication_factor": spec.replication_factor,
        # The compacted topic holds models; brokers take records of 1 MiB unless they are told otherwise.
        "configs": {"cleanup.policy": "compact", "max.message.bytes": str(MAX_REQUEST_BYTES)}
        if spec.compacted
        else {},
    }
    try:
        admin.create_topics({name: options})
    except kafka.errors.TopicAlreadyExistsError:
        return  # another process of ours was faster


def end_offsets(config: KafkaConfig, topics: Sequence[str], timeout_s: float = 5.0) -> dict[Partition, int]:
    """The end of each partition of these topics; a topic that does not exist has none.

    Raises:
        BrokerUnavailableError: The broker does not answer.
    """
    with map_kafka_errors("reading the ends of topics", config.bootstrap_servers):
        consumer = open_client(
            KafkaConsumer,
            **client_options(config),
            group_id=None,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            partitions = [
                kafka.TopicPartition(topic, number)
                for topic in topics
                for number in consumer.partitions_for_topic(topic) or ()
            ]
            ends = consumer.end_offsets(partitions) if partitions else {}
            # Some brokers answer with the start of the last batch; what a fetch says is the end.
            consumer.assign(partitions)
            for partition, end in ends.items():
                consumer.seek(partition, end)
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline and any(consumer.highwater(tp) is None for tp in partitions):
                consumer.poll(timeout_ms=100)
            return {Partition(*tp): max(end, consumer.highwater(tp) or 0) for tp, end in ends.items()}
        finally:
            consumer.close(autocommit=False, timeout_ms=2_000)


def hold_records(
    config: KafkaConfig, begin: Mapping[Partition, int], end: Mapping[Partition, int], timeout_s: float = 5.0
) -> frozenset[Partition]:
    """The partitions that hold a record between two offsets; markers of transactions and holes are none.

    One of which that cannot be said within the time counts as if it held one.

    Raises:
        BrokerUnavailableError: The broker does not answer.
    """
    left = {kafka.TopicPartition(*each) for each, offset in begin.items() if offset < end.get(each, offset)}
    found: set[Partition] = set()
    if not left:
        return frozenset()
    with map_kafka_errors("looking for records", config.bootstrap_servers):
        consumer = open_client(
            KafkaConsumer,
            **client_options(config),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # retention may have passed
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            consumer.assign(list(left))
            for each in left:
                consumer.seek(each, begin[Partition(*each)])
            deadline = time.monotonic() + timeout_s
            while left and time.monotonic() < deadline:
                with suppress(kafka.errors.CorruptRecordError):  # it is one
                    polled = poll_client(consumer, timeout_ms=100)
                    first = {Partition(*each): records[0].offset for each, records in polled.items()}
                    found |= {each for each, offset in first.items() if offset < end[each]}
                left -= {kafka.TopicPartition(*each) for each in found}
                consumer.pause(*(set(consumer.assignment()) - left))
                left = {each for each in left if consumer.position(each) < end[Partition(*each)]}
            return frozenset(found | {Partition(*each) for each in left})
        finally:
            consumer.close(autocommit=False, timeout_ms=2_000)
