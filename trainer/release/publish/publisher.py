"""Sends models and the decisions about them to Kafka."""

from __future__ import annotations

from datetime import datetime

from streamer.config import TopicsConfig
from streamer.kafka import Producer, TopicSpec
from trainer.release.client.artifact import Manifest
from trainer.release.client.cloudevent import to_binary, to_structured
from trainer.release.publish.events import model_event, model_update
from trainer.release.registry.event import ModelEvent
from trainer.release.registry.versions import Registry


def release_topics(topics: TopicsConfig) -> dict[str, TopicSpec]:
    """The topics that the trainer writes, for `ensure_topics`; one partition each keeps them in order."""
    return {
        topics.models: TopicSpec(1, topics.replication_factor, compacted=True),
        topics.model_events: TopicSpec(1, topics.replication_factor),
    }


class Publisher:
    """Publishes what the registry's outbox holds.

    A broker that is down loses nothing: the outbox keeps what was not acknowledged, and it is sent again with
    the same `ce_id`. So a subscriber may see a record twice, never a decision missing.

    Args:
        producer: Owned by the caller.
        topics: Their names.
        source: URI reference of this trainer; it must stay the same over restarts.
    """

    def __init__(self, producer: Producer, topics: TopicsConfig, source: str = "/castloop/trainer") -> None:
        self._producer = producer
        self._topics = topics
        self._source = source

    def publish_model(self, manifest: Manifest, data: bytes, *, ce_id: str, at: datetime) -> None:
        """Queues a model update; it is safe after the producer's `flush`."""
        headers, value = to_binary(model_update(manifest, data, ce_id=ce_id, at=at, source=self._source))
        self._producer.send(self._topics.models, value, key=manifest.model_name.encode(), headers=headers)

    def publish_event(self, event: ModelEvent, manifest: Manifest) -> None:
        """Queues the event of a decision; it is safe after the producer's `flush`."""
        headers, value = to_structured(model_event(event, manifest, source=self._source))
        key = manifest.model_name.encode()
        self._producer.send(self._topics.model_events, value, key=key, headers=headers)

    def flush_outbox(self, registry: Registry) -> list[ModelEvent]:
        """Sends what is not yet confirmed, in order: model and event, acknowledgement, out of the outbox.

        Returns:
            What was confirmed.

        Raises:
            BrokerUnavailableError: The rest stays in the outbox.
            RecordError: A model is larger than a record may be; it stays in the outbox.
        """
        sent = []
        for event in registry.outbox():
            manifest = registry.manifest(event.version)
            if event.update_ce_id:
                data = registry.model_file(event.version)
                self.publish_model(manifest, data, ce_id=event.update_ce_id, at=event.at)
            self.publish_event(event, manifest)
            self._producer.flush()
            registry.confirm(event)
            sent.append(event)
        return sent
