"""The one adapter to Kafka: kafka-python behind types of our own, its errors mapped to ours.

Nothing else in the product imports kafka. Values travel as bytes; decoding is the codec's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import kafka
import kafka.errors
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata

from streamer.config import ConsumerConfig, KafkaConfig
from streamer.errors import BrokerUnavailableError, ConfigError, FencedError, OffsetGoneError, RecordError
from streamer.records import Partition, Record, RecordBatch
from streamer.settings import read_secret

# Halves a fast consumer at the client's default of 500; below 10 an idle consumer spins.
FETCH_MAX_WAIT_MS = 10
# Halves the consumer's memory at the same speed.
FETCH_MAX_BYTES = 1024 * 1024
# A model update is one record; brokers take 1 MiB by default, and a larger limit costs nothing here.
MAX_REQUEST_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rebalance:
    """What changed in the assignment since it was asked for last; a partition may be in both."""

    revoked: frozenset[Partition]
    assigned: frozenset[Partition]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is created when it is missing."""

    num_partitions: int
    replication_factor: int = 1
    compacted: bool = False


@contextmanager
def map_kafka_errors(action: str, servers: str) -> Iterator[None]:
    """Translates every error of kafka-python: credentials to `ConfigError`, the rest to a retriable one."""
    try:
        yield
    except (
        kafka.errors.SaslAuthenticationFailedError,
        kafka.errors.UnsupportedSaslMechanismError,
        kafka.errors.AuthorizationError,
    ) as exc:
        raise ConfigError(
            f"Kafka at {servers} refused us while {action}: {exc}; "
            "check kafka.username, kafka.password_file, kafka.sasl_mechanism and the rights of that user"
        ) from exc
    except (kafka.errors.KafkaConfigurationError, AssertionError) as exc:
        raise ConfigError(f"the Kafka client refused its settings while {action}: {exc}") from exc
    except (kafka.errors.KafkaError, OSError) as exc:
        raise BrokerUnavailableError(f"Kafka at {servers}: {action} failed: {exc}") from exc


def _client_options(config: KafkaConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap_servers.split(","),
        "client_id": "castloop",
        "security_protocol": config.security_protocol,
        "request_timeout_ms": config.request_timeout_ms,
        "bootstrap_timeout_ms": config.request_timeout_ms,
        # The client's own default backs off to 30 s, which is how long a mended broker would go unseen.
        "reconnect_backoff_max_ms": 2_000,
    }
    if config.ssl_cafile:
        options["ssl_cafile"] = str(config.ssl_cafile)
    if config.security_protocol.startswith("SASL") and config.password_file:
        options |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.username,
            "sasl_plain_password": read_secret(config.password_file),
        }
    return options


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
        admin = KafkaAdminClient(**_client_options(config))
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


class Producer:
    """Sends records, compressed and idempotent. `send` only queues: nothing is safe before `flush`.

    After a failure the client is made anew: an idempotent one is beyond mending once a broker came back without
    its memory.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._servers = config.bootstrap_servers
        self._flush_timeout_s = 3 * config.request_timeout_ms / 1000
        self._pending: list[Any] = []
        self._client: Any = None
        with map_kafka_errors("connecting a producer", self._servers):
            self._connect()

    def _connect(self) -> Any:
        if self._client is None:
            self._client = KafkaProducer(
                **_client_options(self._config),
                metrics_enabled=False,
                compression_type="zstd",
                linger_ms=20,
                # Small batches cost every consumer: 10 records a batch are 3 to 8 times slower than 500.
                batch_size=256 * 1024,
                max_request_size=MAX_REQUEST_BYTES,
                max_block_ms=self._config.request_timeout_ms,
                delivery_timeout_ms=3 * self._config.request_timeout_ms,
            )
        return self._client

    def _give_up_client(self) -> None:
        client, self._client, self._pending = self._client, None, []
        if client is not None:
            _close_producer(client, timeout_s=1)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Queues one record.

        Raises:
            RecordError: The record is larger than a request may be.
            BrokerUnavailableError: The queue is full or the topic's metadata cannot be had.
        """
        try:
            with map_kafka_errors(f"sending to {topic}", self._servers):
                self._pending.append(self._connect().send(topic, value, key=key, headers=list(headers)))
        except BrokerUnavailableError as exc:
            if isinstance(exc.__cause__, kafka.errors.MessageSizeTooLargeError):
                raise RecordError("too_large", str(exc.__cause__)) from exc
            self._give_up_client()
            raise

    def flush(self) -> None:
        """Waits until every queued record is acknowledged by the broker.

        Raises:
            BrokerUnavailableError: At least one record was not; which of them arrived is unknown.
        """
        pending, self._pending = self._pending, []
        try:
            with map_kafka_errors("flushing records", self._servers):
                self._connect().flush(timeout=self._flush_timeout_s)
                failed = next((future.exception for future in pending if future.exception), None)
                if failed:
                    raise failed
        except BrokerUnavailableError:
            self._give_up_client()
            raise

    def num_unflushed(self) -> int:
        """Records queued since the last flush."""
        return len(self._pending)

    def close(self) -> None:
        """Ends the client; queued records that were not flushed are lost."""
        if self._client is not None:
            _close_producer(self._client, timeout_s=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close_producer(client: Any, timeout_s: float) -> None:
    try:
        client.close(timeout=timeout_s)
    except kafka.errors.KafkaTimeoutError:
        # With records that cannot be delivered the client raises before it has closed: its thread would go on
        # trying, and it would raise again when it is collected. There is no public way out.
        client._sender.force_close()
        client._closed = True


def _record(record: Any) -> Record:
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )


class _RebalanceNotes(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Runs on the client's I/O thread, where blocking would stop the heartbeats: it notes and pauses."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self._lock = threading.Lock()
        self._revoked: set[Partition] = set()
        self._assigned: set[Partition] = set()
        self._changed = False

    def on_partitions_revoked(self, revoked: Any) -> None:
        with self._lock:
            self._changed = self._changed or bool(revoked)
            gone = {Partition(*tp) for tp in revoked}
            self._revoked |= gone
            self._assigned -= gone

    def on_partitions_lost(self, lost: Any) -> None:
        self.on_partitions_revoked(lost)

    def on_partitions_assigned(self, assigned: Any) -> None:
        with self._lock:
            self._changed = True  # also without a partition: the group has more members than partitions
            self._assigned |= {Partition(*tp) for tp in assigned}
        if assigned:
            self.consumer.pause(*assigned)

    def take(self) -> Rebalance | None:
        with self._lock:
            if not self._changed:
                return None
            rebalance = Rebalance(frozenset(self._revoked), frozenset(self._assigned))
            self._revoked, self._assigned, self._changed = set(), set(), False
            return rebalance


class GroupConsumer:
    """A member of a consumer group that decides positions itself.

    A newly assigned partition is paused until the caller has taken the rebalance, sought and resumed; the
    client never resets an offset by itself. All methods belong to one thread.
    """

    def __init__(self, config: KafkaConfig, consumer: ConsumerConfig, topics: Sequence[str]) -> None:
        self._servers = config.bootstrap_servers
        self._timeout_ms = consumer.poll_timeout_ms
        self._notes = _RebalanceNotes()
        with map_kafka_errors("joining the consumer group", self._servers):
            self._consumer = KafkaConsumer(
                **_client_options(config),
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
                fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
                fetch_max_bytes=FETCH_MAX_BYTES,
            )
            self._notes.consumer = self._consumer
            self._consumer.subscribe(list(topics), listener=self._notes)

    def poll(self) -> list[RecordBatch]:
        """Returns batches in offset order per partition; also keeps the membership alive.

        Raises:
            BrokerUnavailableError: The broker does not answer.
        """
        with map_kafka_errors("polling", self._servers):
            try:
                batches = self._consumer.poll(timeout_ms=self._timeout_ms)
            except kafka.errors.NoOffsetForPartitionError:
                return []  # just assigned; the caller seeks once it has taken the rebalance
            except kafka.errors.OffsetOutOfRangeError as exc:
                raise OffsetGoneError(f"Kafka at {self._servers}: {exc}") from exc
        return [RecordBatch.of([_record(record) for record in batch]) for batch in batches.values() if batch]

    def take_rebalance(self) -> Rebalance | None:
        """Returns what changed since the last call, None if nothing did."""
        return self._notes.take()

    def assignment(self) -> frozenset[Partition]:
        """Partitions that this member holds now."""
        return frozenset(Partition(*tp) for tp in self._consumer.assignment())

    def seek(self, partition: Partition, offset: int) -> None:
        """Sets the next offset to read.

        Raises:
            FencedError: The partition went to another member.
        """
        with _still_ours(partition):
            self._consumer.seek(_tp(partition), offset)

    def pause(self, *partitions: Partition) -> None:
        """Stops fetching; polling goes on. A partition that went to another member is left out."""
        for partition in partitions:
            with suppress(KeyError):
                self._consumer.pause(_tp(partition))

    def resume(self, partition: Partition) -> None:
        """Fetches again.

        Raises:
            FencedError: The partition went to another member.
        """
        with _still_ours(partition):
            self._consumer.resume(_tp(partition))

    def committed(self, partition: Partition) -> int | None:
        """The group's committed offset, None if there is none."""
        with map_kafka_errors("reading committed offsets", self._servers):
            offset: int | None = self._consumer.committed(_tp(partition))
            return offset

    def beginning_offset(self, partition: Partition) -> int:
        """The oldest offset that the log still holds."""
        with map_kafka_errors("reading the log's start", self._servers):
            return int(self._consumer.beginning_offsets([_tp(partition)])[_tp(partition)])

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commits next offsets.

        Raises:
            BrokerUnavailableError: Not committed; the caller may read these records again.
        """
        with map_kafka_errors("committing offsets", self._servers):
            self._consumer.commit(
                {_tp(tp): OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items()}
            )

    def highwater(self, partition: Partition) -> int | None:
        """End of the partition as the last fetch saw it, None before the first fetch or once it is not ours."""
        with suppress(kafka.errors.IllegalStateError, KeyError):
            end: int | None = self._consumer.highwater(_tp(partition))
            return end
        return None

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


class TopicReader:
    """Reads all partitions of one topic from the beginning on, without a group.

    Raises:
        BrokerUnavailableError: The broker does not answer, or the topic does not exist (yet).
    """

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        self._servers = config.bootstrap_servers
        with map_kafka_errors(f"reading {topic}", self._servers):
            self._consumer = KafkaConsumer(
                **_client_options(config),
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
                raise BrokerUnavailableError(
                    f"Kafka at {self._servers}: there is no topic {topic}; "
                    "create it or start the service that does"
                )
            self._partitions = [kafka.TopicPartition(topic, number) for number in sorted(numbers)]
            self._consumer.assign(self._partitions)
            self._consumer.seek_to_beginning(*self._partitions)

    def poll(self, timeout_s: float) -> list[Record]:
        """Returns the next records, an empty list when none came within the time."""
        with map_kafka_errors("polling", self._servers):
            batches = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        return [_record(record) for batch in batches.values() for record in batch]

    def at_end(self) -> bool:
        """Whether everything that lay in the log at the last fetch has been returned."""
        with map_kafka_errors("reading positions", self._servers):
            ends = [self._consumer.highwater(tp) for tp in self._partitions]
            positions = [self._consumer.position(tp) for tp in self._partitions]
        return all(end is not None and at >= end for end, at in zip(ends, positions, strict=True))

    def close(self) -> None:
        """Ends the client."""
        self._consumer.close(autocommit=False, timeout_ms=2_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_offsets(config: KafkaConfig, topics: Sequence[str], timeout_s: float = 5.0) -> dict[Partition, int]:
    """The end of each partition of these topics; a topic that does not exist has none.

    Raises:
        BrokerUnavailableError: The broker does not answer.
    """
    with map_kafka_errors("reading the ends of topics", config.bootstrap_servers):
        consumer = KafkaConsumer(
            **_client_options(config),
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


def _tp(partition: Partition) -> Any:
    return kafka.TopicPartition(*partition)
