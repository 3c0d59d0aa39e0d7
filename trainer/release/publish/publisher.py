"""Sends models and the decisions about them to Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from streamer.config import TopicsConfig
from streamer.errors import RecordError, RecordTooLargeError
from streamer.kafka import Producer, TopicSpec
from trainer.errors import RegistryError
from trainer.release.client.artifact import Manifest
from trainer.release.client.cloudevent import to_binary, to_structured
from trainer.release.publish.events import model_event, model_update
from trainer.release.registry.event import ModelEvent
from trainer.release.registry.registry import Registry

log = structlog.get_logger()

# What Kafka will not take is tried again after so long: its limit may have been raised meanwhile. Smaller: it is
# sent and refused more often. Larger: it waits longer once it could go.
REFUSED_RETRY_S = 300.0


def release_topics(topics: TopicsConfig) -> dict[str, TopicSpec]:
    """The topics that the trainer writes, for `ensure_topics`; one partition each keeps them in order."""
    return {
        topics.models: TopicSpec(1, topics.replication_factor, compacted=True),
        topics.model_events: TopicSpec(1, topics.replication_factor),
    }


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of the outbox.

    Attributes:
        sent: Confirmed, in order.
        num_refused: Events that Kafka does not take as they are; each stays and blocks only itself.
    """

    sent: tuple[ModelEvent, ...]
    num_refused: int


class Publisher:
    """Publishes what the registry's outbox holds.

    A broker that is down loses nothing: the outbox keeps what was not acknowledged, and it is sent again with
    the same `ce_id`. So a subscriber may see a record twice, never a decision missing.

    Args:
        producer: Makes a client, once it is needed; closed by the caller.
        topics: Their names.
        source: URI reference of this trainer; it must stay the same over restarts.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        producer: Callable[[], Producer],
        topics: TopicsConfig,
        source: str = "/castloop/trainer",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._source = source
        self._clock = clock
        self._refused: dict[str, float] = {}  # ce_id -> when to try again

    def publish_model(self, manifest: Manifest, data: bytes, *, ce_id: str, at: datetime) -> None:
        """Queues a model update; it is safe after the producer's `flush`."""
        headers, value = to_binary(model_update(manifest, data, ce_id=ce_id, at=at, source=self._source))
        self._producer().send(self._topics.models, value, key=manifest.model_name.encode(), headers=headers)

    def publish_event(self, event: ModelEvent, model_name: str, manifest: Manifest | None) -> None:
        """Queues the event of a decision; it is safe after the producer's `flush`."""
        headers, value = to_structured(model_event(event, model_name, manifest, source=self._source))
        self._producer().send(self._topics.model_events, value, key=model_name.encode(), headers=headers)

    def flush_outbox(self, registry: Registry, before_each: Callable[[], object] = lambda: None) -> Flushed:
        """Sends what is not yet confirmed, in order: model, event, acknowledgement, out of the outbox.

        Args:
            before_each: Called before an event is sent; what it raises ends the call.

        Raises:
            BrokerUnavailableError: The rest stays in the outbox.
        """
        sent, num_refused = [], 0
        for event in registry.outbox():
            if self.is_put_off(event):
                num_refused += 1
                continue
            before_each()
            try:
                self._send(registry, event)
            except (RecordError, RecordTooLargeError, RegistryError) as exc:
                num_refused += 1
                self._put_off(event, exc)
                continue
            registry.confirm(event)
            self._refused.pop(event.ce_id, None)
            sent.append(event)
        return Flushed(tuple(sent), num_refused)

    def is_put_off(self, event: ModelEvent) -> bool:
        """Whether Kafka did not take an event a while ago, and it is not yet tried again."""
        return self._refused.get(event.ce_id, 0.0) > self._clock()

    def _send(self, registry: Registry, event: ModelEvent) -> None:
        """The model first: nobody is told of a promotion whose model Kafka does not take."""
        manifest = None if event.version is None else registry.manifest(event.version)
        if event.update_ce_id and event.version is not None and manifest is not None:
            data = registry.model_file(event.version)
            self.publish_model(manifest, data, ce_id=event.update_ce_id, at=event.at)
            self._producer().flush()
        self.publish_event(event, registry.model_name, manifest)
        self._producer().flush()

    def _put_off(self, event: ModelEvent, exc: Exception) -> None:
        if event.ce_id not in self._refused:
            log.error(
                "event cannot be published",
                what=event.kind,
                version=event.version,
                error=str(exc),
                mend="see 'An event cannot be published' in docs/operations.md",
            )
        self._refused[event.ce_id] = self._clock() + REFUSED_RETRY_S
