"""Dead letters out: records that cannot be used, kept with a reason and their origin."""

from __future__ import annotations

from streamer.dead_letters import headers as names
from streamer.errors import RecordError
from streamer.kafka import Producer
from streamer.records import Record

# Brokers take records of 1 MiB by default. Larger: one that grew by its headers is refused, and the stream
# stands still. Smaller: more values are cut.
MAX_RECORD_BYTES = 1_000_000
MAX_MESSAGE_BYTES = 1_000
# The lengths of its name and of its value, at most; in a request they stand beside each header.
_HEADER_BYTES = 10


class DeadLetters:
    """Queues dead letters; they are safe after `flush`, before which no offset may be committed.

    Args:
        namespace: That judges the records. The ledger of a namespace leaves those of others out.
    """

    def __init__(self, producer: Producer, topic: str, namespace: str | None = None) -> None:
        self._producer = producer
        self._topic = topic
        self._namespace = namespace

    def add(self, record: Record, error: RecordError) -> None:
        """Queues a record with its raw key, value and headers; what makes it too large is cut, and says so.

        Raises:
            BrokerUnavailableError: The queue is full.
        """
        key, value, headers = pack(record, error, self._namespace)
        self._producer.send(self._topic, value, key=key, headers=headers)

    def flush(self) -> None:
        """Waits until all of them are acknowledged.

        Raises:
            BrokerUnavailableError: At least one is not safe; the records must be read again.
        """
        if self._producer.num_unflushed():
            self._producer.flush()


def pack(
    record: Record, error: RecordError, namespace: str | None = None
) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers of the dead letter of a record."""
    key, value = record.key, record.value
    theirs = [(name, b"" if each is None else each) for name, each in record.headers]
    ours, nulls = _reasons(record, error, namespace), _nulls(record)
    room = MAX_RECORD_BYTES - _size(theirs) - _size(ours) - _size(nulls)
    if room < 0:
        ours.append((names.NUM_DROPPED, b"%d" % len(theirs)))
        room, theirs, nulls = MAX_RECORD_BYTES - _size(ours), [], []
    if key is not None and len(key) > room:
        ours.append((names.KEY_BYTES, b"%d" % len(key)))
        key = key[:room]
    room -= len(key or b"")
    if value is not None and len(value) > room:
        ours.append((names.VALUE_BYTES, b"%d" % len(value)))
        value = value[:room]
    if key is None and value is None:
        value = b""
        ours.append((names.NO_VALUE, b"1"))
    return key, value, [*theirs, *ours, *nulls]


def _reasons(record: Record, error: RecordError, namespace: str | None) -> list[tuple[str, bytes]]:
    ours = [
        (names.TOPIC, record.topic.encode()),
        (names.PARTITION, b"%d" % record.partition),
        (names.OFFSET, b"%d" % record.offset),
        (names.STAGE, error.stage.encode()),
        (names.CLASS, type(error).__name__.encode()),
        (names.MESSAGE, f"{error.reason}: {error}".encode()[:MAX_MESSAGE_BYTES]),
        (names.REASON, error.reason.encode()),
        (names.TIMESTAMP, b"%d" % record.timestamp_ms),
    ]
    if namespace is not None:
        ours.append((names.NAMESPACE, namespace.encode()))
    return ours


def _nulls(record: Record) -> list[tuple[str, bytes]]:
    places = [str(place) for place, (_, value) in enumerate(record.headers) if value is None]
    return [(names.NULLS, ",".join(places).encode())] if places else []


def _size(headers: list[tuple[str, bytes]]) -> int:
    return sum(len(name.encode()) + len(value) + _HEADER_BYTES for name, value in headers)
