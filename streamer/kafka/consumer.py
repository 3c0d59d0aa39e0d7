"""A member of a consumer group: batches in, positions and commits decided by the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

import kafka
import kafka.errors
import structlog
from kafka import KafkaConsumer, OffsetAndMetadata
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor

from streamer.config import ConsumerConfig, KafkaConfig
from streamer.errors import FencedError, OffsetGoneError
from streamer.kafka import seam
from streamer.kafka.connection import (
    as_batch,
    client_options,
    map_kafka_errors,
    open_client,
    poll_client,
    topic_partition,
)
from streamer.kafka.quiet import QuietLogs
from streamer.kafka.rebalance import Rebalance, RebalanceNotes
from streamer.kafka.record_set import join
from streamer.records import Partition, RecordBatch

# Halves a fast consumer at the client's default of 500; below 10 an idle consumer spins.
FETCH_MAX_WAIT_MS = 10
# Bounds the consumer's memory; the client's own default is 50 MiB.
FETCH_MAX_BYTES = 4 * 1024 * 1024

log = structlog.get_logger()

ASSIGNORS = {"range": RangePartitionAssignor, "cooperative-sticky": CooperativeStickyAssignor}

ReadPath = Literal["seam", "public"]


class GroupConsumer:
    """A member of a consumer group that decides positions itself.

    A newly assigned partition is paused until the caller has taken the rebalance, sought and resumed; the
    client never resets an offset by itself. All methods belong to one thread.

    Args:
        clock: Monotonic seconds, of `quiet_s`.
    """

    def __init__(
        self,
        config: KafkaConfig,
        consumer: ConsumerConfig,
        topics: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = config.bootstrap_servers
        self._timeout_ms = consumer.poll_timeout_ms
        self._notes = RebalanceNotes()
        # A poll may be faster than the listener that pauses a new partition: its records wait for the caller's seek.
        self._resumed: set[Partition] = set()
        with map_kafka_errors("joining the consumer group", self._servers):
            self._consumer = open_client(
                KafkaConsumer,
                **client_options(config),
                group_id=consumer.group_id,
                metrics_enabled=False,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                session_timeout_ms=consumer.session_timeout_ms,
                heartbeat_interval_ms=consumer.heartbeat_interval_ms,
                max_poll_interval_ms=consumer.max_poll_interval_ms,
                max_poll_records=consumer.max_poll_records,
                partition_assignment_strategy=[ASSIGNORS[consumer.assignment]],
                fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
                fetch_max_bytes=FETCH_MAX_BYTES,
                max_partition_fetch_bytes=FETCH_MAX_BYTES,
            )
            self._notes.consumer = self._consumer
            self._path: ReadPath = "seam" if consumer.fast_path == "auto" and seam.is_tested() else "public"
            if self._path == "seam":
                seam.install(self._consumer)
            self._quiet = QuietLogs(clock)
            if not self._quiet.watch(self._consumer._fetcher):
                log.warning("casts are not ended by waiting", why=f"unknown kafka-python {kafka.__version__}")
            self._attach(topics)

    def _attach(self, topics: Sequence[str]) -> None:
        self._consumer.subscribe(list(topics), listener=self._notes)

    @property
    def path(self) -> ReadPath:
        """How records are read: in columns past the client's public API, or one by one through it."""
        return self._path

    def poll(self) -> list[RecordBatch]:
        """Returns at most one batch a partition, `max_poll_records` in all; also keeps the membership alive.

        Raises:
            BrokerUnavailableError: The broker does not answer, or what it answers is damaged. The position stays
                before the damage.
            OffsetGoneError: The log no longer holds the next offset of a partition.
        """
        with map_kafka_errors("polling", self._servers):
            try:
                batches = poll_client(self._consumer, timeout_ms=self._timeout_ms)
            except kafka.errors.NoOffsetForPartitionError:
                return []  # just assigned; the caller seeks once it has taken the rebalance
            except kafka.errors.OffsetOutOfRangeError as exc:
                (offsets,) = exc.args
                raise OffsetGoneError(f"Kafka at {self._servers}: {exc}", offsets) from exc
        read = join if self._path == "seam" else as_batch
        return [read(batch) for tp, batch in batches.items() if batch and Partition(*tp) in self._resumed]

    def take_rebalance(self) -> Rebalance | None:
        """Returns what changed since the last call, None if nothing did."""
        rebalance = self._notes.take()
        if rebalance:
            self._resumed -= rebalance.revoked | rebalance.assigned
        return rebalance

    def assignment(self) -> frozenset[Partition]:
        """Partitions that this member holds now."""
        return frozenset(Partition(*tp) for tp in self._consumer.assignment())

    def seek(self, partition: Partition, offset: int) -> None:
        """Sets the next offset to read.

        Raises:
            FencedError: The partition went to another member.
        """
        with _still_ours(partition):
            self._consumer.seek(topic_partition(partition), offset)

    def pause(self, *partitions: Partition) -> None:
        """Stops fetching; polling goes on. A partition that went to another member is left out."""
        for partition in partitions:
            with suppress(KeyError):
                self._consumer.pause(topic_partition(partition))

    def resume(self, partition: Partition) -> None:
        """Fetches again.

        Raises:
            FencedError: The partition went to another member.
        """
        with _still_ours(partition):
            self._consumer.resume(topic_partition(partition))
        self._resumed.add(partition)

    def committed(self, partition: Partition) -> int | None:
        """The group's committed offset, None if there is none."""
        with map_kafka_errors("reading committed offsets", self._servers):
            offset: int | None = self._consumer.committed(topic_partition(partition))
            return offset

    def beginning_offset(self, partition: Partition) -> int:
        """The oldest offset that the log still holds."""
        with map_kafka_errors("reading the log's start", self._servers):
            return int(
                self._consumer.beginning_offsets([topic_partition(partition)])[topic_partition(partition)]
            )

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commits next offsets.

        Raises:
            BrokerUnavailableError: Not committed; the caller may read these records again.
        """
        with map_kafka_errors("committing offsets", self._servers):
            self._consumer.commit(
                {topic_partition(tp): OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items()}
            )

    def highwater(self, partition: Partition) -> int | None:
        """End of the partition as the last fetch saw it, None before the first fetch or once it is not ours."""
        with suppress(kafka.errors.IllegalStateError, KeyError):
            end: int | None = self._consumer.highwater(topic_partition(partition))
            return end
        return None

    def read_to(self, partition: Partition, offset: int) -> int:
        """Where reading goes on once all before an offset was taken: markers and holes behind it give no record."""
        with suppress(kafka.errors.KafkaError, KeyError):  # it went to another member, or is about to
            position: int | None = self._consumer.position(topic_partition(partition), timeout_ms=0)
            return max(offset, position or 0)
        return offset

    def quiet_s(self, partition: Partition, offset: int) -> float | None:
        """For how long the log is known to have held no record from an offset on, None if it is not.

        Args:
            offset: All records before it were taken.
        """
        quiet = self._quiet.get(partition)
        if quiet is None or quiet.offset not in (offset, self.read_to(partition, offset)):
            return None
        return quiet.until - quiet.since

    def close(self) -> None:
        """Leaves the group."""
        self._consumer.close(autocommit=False, timeout_ms=5_000)


@contextmanager
def _still_ours(partition: Partition) -> Iterator[None]:
    """The client's I/O thread may give a partition away at any moment, also between two of our calls."""
    try:
        yield
    except (ValueError, KeyError) as exc:
        raise FencedError(f"{partition} went to another member") from exc
