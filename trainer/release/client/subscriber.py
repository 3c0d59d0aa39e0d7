"""What a scoring service runs: the newest good model from the topic, and each one that follows.

Needs neither torch nor the registry.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import structlog

from streamer.config import KafkaConfig
from streamer.errors import BrokerUnavailableError, RecordError
from streamer.kafka import TopicReader
from streamer.records import Record
from trainer.errors import ArtifactError
from trainer.release.client.artifact import Artifact, Manifest, read_artifact
from trainer.release.client.cloudevent import CloudEvent, from_record
from trainer.release.client.updates import MODEL_UPDATED, MODEL_VERSION

log = structlog.get_logger(__name__)

# A repeat comes within the few updates that one restart sends again. Smaller than that: a model is swapped
# twice. Larger: memory, at about 100 bytes each.
REMEMBERED_IDS = 10_000
# Smaller: a dead broker is asked more often. Larger: a mended one goes unseen for longer.
RETRY_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class ModelUpdate:
    """One model from the topic.

    Attributes:
        data: The model file, to keep or to pass on.
        published_at: When it was promoted, if the record says so.
        log_time_ms: Kafka's time of the record.
    """

    model_name: str
    version: int
    ce_id: str
    artifact: Artifact
    data: bytes
    published_at: datetime | None
    log_time_ms: int

    @property
    def manifest(self) -> Manifest:
        """What the model is and wants as input."""
        return self.artifact.manifest


class ModelSubscriber:
    """Yields models in the order of the log; the newest one of the past comes first, at once.

        with ModelSubscriber(KafkaConfig(bootstrap_servers="broker:9092")) as models:
            for update in models:
                ...

    An update that is sent again (same `ce_id`) is yielded once. A model file that cannot be used is skipped
    with a warning and counted in `num_skipped`: keep the model you have. While the broker or the topic is
    away it is said once, and tried again each second. Wrong credentials are a `ConfigError`.

    Args:
        kafka: How to reach the brokers.
        topic: The compacted topic of the models.
        model_name: Only this model; None for all.
        history: True: yield each update that the log still holds, not only the newest of each model.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        topic: str = "casting.models",
        model_name: str | None = None,
        *,
        history: bool = False,
    ) -> None:
        self.num_skipped = 0
        self._kafka = kafka
        self._topic = topic
        self._model_name = model_name
        self._reader: TopicReader | None = None
        self._is_away = False
        self._has_caught_up = history
        self._newest: dict[str, ModelUpdate] = {}
        self._ready: deque[ModelUpdate] = deque()
        self._seen: deque[str] = deque(maxlen=REMEMBERED_IDS)

    def poll(self, timeout_s: float = 1.0) -> ModelUpdate | None:
        """Returns the next update, None when none came within the time.

        Raises:
            ConfigError: The broker refuses our credentials.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if not self._ready:
                self._fetch(max(0.0, deadline - time.monotonic()))
            if self._ready:
                return self._ready.popleft()
            if time.monotonic() >= deadline:
                return None

    def close(self) -> None:
        """Ends the connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[ModelUpdate]:
        while True:
            update = self.poll()
            if update is not None:
                yield update

    def _fetch(self, timeout_s: float) -> None:
        try:
            if self._reader is None:
                self._reader = TopicReader(self._kafka, self._topic)
            records = self._reader.poll(timeout_s)
            at_end = self._has_caught_up or self._reader.at_end()
        except BrokerUnavailableError as exc:
            self._wait(exc, timeout_s)
            return
        self._is_away = False
        for record in records:
            self._take(record)
        if at_end and not self._has_caught_up:
            self._has_caught_up = True
            self._ready.extend(self._newest.values())
            self._newest.clear()

    def _wait(self, exc: BrokerUnavailableError, timeout_s: float) -> None:
        if not self._is_away:
            log.warning("waiting for the models topic", topic=self._topic, error=str(exc))
            self._is_away = True
        time.sleep(min(RETRY_S, timeout_s))

    def _take(self, record: Record) -> None:
        if record.value is None:
            return  # a tombstone: the model was withdrawn from the log; the one in use stays
        try:
            update = self._read(record, record.value)
        except (RecordError, ArtifactError) as exc:
            self.num_skipped += 1
            log.warning("skipped a model update", topic=self._topic, offset=record.offset, error=str(exc))
            return
        if update is None:
            return
        self._seen.append(update.ce_id)
        if self._has_caught_up:
            self._ready.append(update)
        else:
            self._newest.pop(update.model_name, None)  # so that the order is that of the log
            self._newest[update.model_name] = update

    def _read(self, record: Record, value: bytes) -> ModelUpdate | None:
        event = from_record(record.headers, value)
        if event.type != MODEL_UPDATED:
            raise RecordError("bad_model_update", f"an event of type {event.type}")
        if self._model_name not in (None, event.subject) or event.id in self._seen:
            return None
        artifact = read_artifact(value)
        _require_same(event, artifact.manifest)
        return ModelUpdate(
            model_name=artifact.manifest.model_name,
            version=artifact.manifest.version,
            ce_id=event.id,
            artifact=artifact,
            data=value,
            published_at=event.time,
            log_time_ms=record.timestamp_ms,
        )


def _require_same(event: CloudEvent, manifest: Manifest) -> None:
    told = (event.subject, event.extensions.get(MODEL_VERSION))
    inside = (manifest.model_name, str(manifest.version))
    if told != inside:
        raise RecordError("bad_model_update", f"the headers say {told}, the model file says {inside}")
