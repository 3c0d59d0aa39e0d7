"""Dead letters: records that cannot be used, kept with a reason and their origin.

The headers are Kafka Connect's, so its tools read them:
https://cwiki.apache.org/confluence/display/KAFKA/KIP-298%3A+Error+Handling+in+Connect
"""

from __future__ import annotations

from streamer.errors import RecordError
from streamer.kafka import Producer
from streamer.records import Record

PREFIX = "__connect.errors."
# Brokers take records of 1 MiB by default. Larger: one that grew by its headers is refused, and the stream
# stands still. Smaller: more values are cut.
MAX_RECORD_BYTES = 1_000_000


class DeadLetters:
    """Queues dead letters; they are safe after `flush`, before which no offset may be committed."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    def add(self, record: Record, error: RecordError) -> None:
        """Queues a record with its raw key, value and headers; a value that is too large is cut.

        Raises:
            BrokerUnavailableError: The queue is full.
        """
        headers: list[tuple[str, bytes]] = [
            (name, value) for name, value in record.headers if value is not None
        ]
        headers += [
            (PREFIX + "topic", record.topic.encode()),
            (PREFIX + "partition", b"%d" % record.partition),
            (PREFIX + "offset", b"%d" % record.offset),
            (PREFIX + "stage", error.stage.encode()),
            (PREFIX + "exception.class.name", type(error).__name__.encode()),
            (PREFIX + "exception.message", f"{error.reason}: {error}".encode()[:1000]),
        ]
        value = record.value
        room = MAX_RECORD_BYTES - len(record.key or b"") - sum(len(text) for _, text in headers)
        if value is not None and len(value) > room:
            headers.append((PREFIX + "value.bytes", b"%d" % len(value)))
            value = value[: max(0, room)]
        self._producer.send(self._topic, value, key=record.key, headers=headers)

    def flush(self) -> None:
        """Waits until all of them are acknowledged.

        Raises:
            BrokerUnavailableError: At least one is not safe; the records must be read again.
        """
        if self._producer.num_unflushed():
            self._producer.flush()
