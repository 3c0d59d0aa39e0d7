"""Records out: queued, compressed, and safe once they are flushed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import kafka.errors
from kafka import KafkaProducer

from streamer.config import KafkaConfig
from streamer.errors import BrokerUnavailableError, RecordError, RecordTooLargeError
from streamer.kafka.connection import MAX_REQUEST_BYTES, client_options, map_kafka_errors

# Of one record: of the client before it sends, of the broker after it came.
TOO_LARGE = (kafka.errors.MessageSizeTooLargeError, kafka.errors.RecordListTooLargeError)


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
                **client_options(self._config),
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
        partition: int | None = None,
    ) -> None:
        """Queues one record, for the partition of its key unless one is named.

        Raises:
            RecordError: The record is larger than a request may be.
            BrokerUnavailableError: The queue is full or the topic's metadata cannot be had.
        """
        try:
            with map_kafka_errors(f"sending to {topic}", self._servers):
                sent = self._connect().send(topic, value, key=key, headers=list(headers), partition=partition)
                self._pending.append(sent)
        except BrokerUnavailableError as exc:
            if isinstance(exc.__cause__, TOO_LARGE):
                raise RecordError("too_large", str(exc.__cause__)) from exc
            self._give_up_client()
            raise

    def flush(self) -> None:
        """Waits until every queued record is acknowledged by the broker.

        Raises:
            RecordTooLargeError: The broker takes no record of that size; which of the others arrived is unknown.
            BrokerUnavailableError: At least one record was not acknowledged; which of them arrived is unknown.
        """
        pending, self._pending = self._pending, []
        try:
            with map_kafka_errors("flushing records", self._servers):
                self._connect().flush(timeout=self._flush_timeout_s)
                failed = next((future.exception for future in pending if future.exception), None)
                if failed:
                    raise failed
        except BrokerUnavailableError as exc:
            self._give_up_client()
            if isinstance(exc.__cause__, TOO_LARGE):
                raise RecordTooLargeError(
                    f"{exc}; raise max.message.bytes of the topic, or make the record smaller"
                ) from exc
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
