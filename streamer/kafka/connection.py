"""What every client of ours shares: options, errors mapped to ours, types of one side turned into the other's."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import kafka
import kafka.errors
import numpy as np

from streamer.config import KafkaConfig
from streamer.errors import BrokerUnavailableError, ConfigError
from streamer.records import Partition, Record, RecordBatch
from streamer.settings import read_secret

# A model update is one record; brokers take 1 MiB by default, and a larger limit costs nothing here.
MAX_REQUEST_BYTES = 8 * 1024 * 1024

# Of the client's errors and those of a socket; any other can only be of a batch.
_OF_A_BATCH = (kafka.errors.CorruptRecordError, kafka.errors.UnsupportedCodecError, gzip.BadGzipFile)


class UnreadableBatchError(kafka.errors.CorruptRecordError):  # type: ignore[misc]  # kafka-python ships no types
    """A batch that its parser cannot read; the message says where it lies."""


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


def client_options(config: KafkaConfig) -> dict[str, Any]:
    """What every client is given: servers, credentials, timeouts."""
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


def open_client(kind: Any, **options: Any) -> Any:
    """Makes a client of kafka-python; one that finds no broker leaves nothing behind.

    Its constructor raises and leaves a thread and its sockets running, one set a try: in a long outage of the broker
    a service that goes on trying would run out of both. There is no public way to end them.
    """
    client = kind.__new__(kind)
    try:
        client.__init__(**options)
    except BaseException:
        client._closed = True  # its finaliser has nothing to close
        for part, end in (("_client", "close"), ("_net", "stop")):
            if hasattr(client, part):
                getattr(getattr(client, part), end)()
        raise
    return client


def damage(parser: Any, exc: Exception) -> UnreadableBatchError:
    """What a parser of the client has met, with the place.

    A right CRC says that a batch is as its sender made it, not that it can be decompressed and read: zlib, zstandard,
    lz4 and the parser itself have errors of their own then.
    """
    return UnreadableBatchError(
        f"a batch of {Partition(*parser.topic_partition)} at or behind offset {parser.next_fetch_offset} "
        f"cannot be read: {type(exc).__name__}: {exc}"
    )


def poll_client(consumer: Any, timeout_ms: int) -> dict[Any, list[Any]]:
    """Polls, around two places where the client stands still.

    It takes up the buffer of a partition that was paused and resumed only when no other answer is in line, and
    takes one that is read to its end for such. And it goes on asking the parser that has met a damaged record,
    for ever, inside one poll: here the record raises, and raises again at the next poll.

    Raises:
        UnreadableBatchError: A batch that cannot be read, whatever the client raised.

    There is no public way to either; a client without these attributes is left as it is.
    """
    fetcher = getattr(consumer, "_fetcher", None)
    in_line = getattr(fetcher, "_next_partition_records", None)
    if fetcher is not None and in_line is not None and not in_line:
        fetcher._next_partition_records = None
    try:
        batches: dict[Any, list[Any]] = consumer.poll(timeout_ms=timeout_ms)
    except Exception as exc:
        damaged = getattr(fetcher, "_next_partition_records", None)
        if not damaged:
            raise
        damaged.drain()
        of_client = isinstance(exc, (kafka.errors.KafkaError, OSError))
        if isinstance(exc, UnreadableBatchError) or (of_client and not isinstance(exc, _OF_A_BATCH)):
            raise
        raise damage(damaged, exc) from exc
    return batches


def topic_partition(partition: Partition) -> Any:
    """The client's own type of a partition."""
    return kafka.TopicPartition(*partition)


def as_record(record: Any) -> Record:
    """Our type of a record that the client handed out."""
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=_int64(record.timestamp),
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )


def as_batch(records: Sequence[Any]) -> RecordBatch:
    """Our columns of records of one partition that the client handed out."""
    stamps = [record.timestamp for record in records]
    try:
        timestamp_M = np.array(stamps, dtype=np.int64)
    except (TypeError, OverflowError):
        timestamp_M = np.array([_int64(stamp) for stamp in stamps], dtype=np.int64)
    return RecordBatch(
        source=Partition(records[0].topic, records[0].partition),
        offset_M=np.array([record.offset for record in records], dtype=np.int64),
        timestamp_M=timestamp_M,
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=[tuple(record.headers) for record in records]
        if any(record.headers for record in records)
        else None,
    )


def _int64(timestamp: int | None) -> int:
    """The oldest format has none. In the newest it is the sum of two numbers that no broker checks."""
    return -1 if timestamp is None else (timestamp + 2**63) % 2**64 - 2**63
