"""All of one topic, read without a group."""

from __future__ import annotations

import time
from typing import Self

import kafka
from kafka import KafkaConsumer

from streamer.config import KafkaConfig
from streamer.errors import BrokerUnavailableError, TopicMissingError
from streamer.kafka.connection import (
    MAX_REQUEST_BYTES,
    as_record,
    client_options,
    map_kafka_errors,
    open_client,
    poll_client,
)
from streamer.records import Partition, Record


class TopicReader:
    """Reads all partitions of one topic, without a group.

    Args:
        last: Begin so many offsets before the end of each partition; None: at its beginning.

    Raises:
        TopicMissingError: The topic does not exist (yet).
        BrokerUnavailableError: The broker does not answer.
    """

    def __init__(self, config: KafkaConfig, topic: str, *, last: int | None = None) -> None:
        self._servers = config.bootstrap_servers
        with map_kafka_errors(f"reading {topic}", self._servers):
            self._consumer = open_client(
                KafkaConsumer,
                **client_options(config),
                group_id=None,
                metrics_enabled=False,
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # a reader of current state follows retention by itself
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=MAX_REQUEST_BYTES,
            )
            numbers = self._consumer.partitions_for_topic(topic)
            if not numbers:
                self.close()
                raise TopicMissingError(
                    f"Kafka at {self._servers}: there is no topic {topic}; "
                    "create it or start the service that does"
                )
            self._partitions = [kafka.TopicPartition(topic, number) for number in sorted(numbers)]
            self._consumer.assign(self._partitions)
            self._consumer.seek_to_beginning(*self._partitions)
            ends = {} if last is None else self._consumer.end_offsets(self._partitions)
            for partition, end in ends.items():
                if last is not None and end > last:
                    self._consumer.seek(partition, end - last)

    def poll(self, timeout_s: float) -> list[Record]:
        """Returns the next records, an empty list when none came within the time."""
        with map_kafka_errors("polling", self._servers):
            batches = poll_client(self._consumer, timeout_ms=int(timeout_s * 1000))
        return [as_record(record) for batch in batches.values() for record in batch]

    def at_end(self) -> bool:
        """Whether everything that lay in the log at the last fetch has been returned."""
        with map_kafka_errors("reading positions", self._servers):
            ends = [self._consumer.highwater(tp) for tp in self._partitions]
            positions = [self._consumer.position(tp) for tp in self._partitions]
        return all(end is not None and at >= end for end, at in zip(ends, positions, strict=True))

    def positions(self) -> dict[Partition, int]:
        """The next offset of each partition."""
        with map_kafka_errors("reading positions", self._servers):
            return {Partition(*tp): int(self._consumer.position(tp)) for tp in self._partitions}

    def beginnings(self) -> dict[Partition, int]:
        """The oldest offset that each partition still holds."""
        with map_kafka_errors("reading the log's start", self._servers):
            offsets = self._consumer.beginning_offsets(self._partitions)
            return {Partition(*tp): int(offset) for tp, offset in offsets.items()}

    def close(self) -> None:
        """Ends the client."""
        self._consumer.close(autocommit=False, timeout_ms=2_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_tail(
    config: KafkaConfig, topic: str, last: int | None = None, timeout_s: float = 30.0
) -> list[Record]:
    """Reads a topic up to its end: the last so many offsets of each partition, or all of it.

    Returns:
        Its records, none if there is no such topic.

    Raises:
        BrokerUnavailableError: The broker does not answer, or not within the time.
    """
    deadline, found = time.monotonic() + timeout_s, list[Record]()
    try:
        reader = TopicReader(config, topic, last=last)
    except TopicMissingError:
        return []
    with reader:
        while True:
            found += reader.poll(0.2)
            if reader.at_end():
                return found
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(
                    f"Kafka at {config.bootstrap_servers}: {topic} was not read to its end within {timeout_s:g} s"
                )
