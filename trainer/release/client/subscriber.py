"""What a scoring service runs: the newest good model from the topic, and each one that follows.

Needs neither torch nor the registry.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Self

import structlog

from streamer.config import KafkaConfig
from streamer.errors import BrokerUnavailableError, RecordError
from streamer.kafka import TopicReader
from streamer.records import Record
from trainer.errors import ArtifactError
from trainer.release.client.artifact import Artifact, Manifest, read_artifact
from trainer.release.client.cloudevent import CloudEvent, from_record
from trainer.release.client.inputs import ModelInputs
from trainer.release.client.order import UpdateOrder
from trainer.release.client.results import SKIP_REASONS, SkipReason, UpdateResult
from trainer.release.client.updates import MODEL_UPDATED, MODEL_VERSION, ROLLBACK, ROLLED_BACK

log = structlog.get_logger(__name__)

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

    An update that is sent again (same `ce_id`) is yielded once, and one of an older version only if it says
    that it is a rollback. What wants other inputs or cannot be used is skipped with a warning: keep the model
    you have. While the broker or the topic is away it is said once, and tried again each second. Wrong
    credentials are a `ConfigError`. A restart yields the newest model again, by the same rules.

    Args:
        kafka: How to reach the brokers.
        topic: The compacted topic of the models.
        model_name: Only this model; None for all.
        history: True: yield each update that the log still holds, not only the newest of each model.
        inputs: What the plant has; models that want something else are skipped. None: what the first model of
            a name that was yielded since the start wants.
        on_result: Told of each update that is yielded or skipped, such as `SubscriberMetrics.on_result`.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        topic: str = "casting.models",
        model_name: str | None = None,
        *,
        history: bool = False,
        inputs: ModelInputs | None = None,
        on_result: Callable[[UpdateResult], object] | None = None,
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._model_name = model_name
        self._on_result = on_result
        self._order = UpdateOrder(inputs)
        self._skipped: dict[SkipReason, int] = dict.fromkeys(SKIP_REASONS, 0)
        self._reader: TopicReader | None = None
        self._is_away = False
        self._has_caught_up = history
        self._newest: dict[str, ModelUpdate] = {}
        self._ready: deque[ModelUpdate] = deque()

    @property
    def skipped(self) -> Mapping[SkipReason, int]:
        """How many updates were skipped, by reason."""
        return MappingProxyType(self._skipped)

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
                update = self._ready.popleft()
                self._tell(UpdateResult(None, update.model_name, update.version))
                return update
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
            for update in self._newest.values():
                self._hand_out(update)
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
            event = _read_event(record)
            if self._model_name not in (None, event.subject):
                return
            if self._order.has_seen(event.id):
                self._skip("repeated", event.subject)
                return
            update = _read_update(event, record)
        except (RecordError, ArtifactError) as exc:
            self._warn(record, str(exc), reason="unreadable")
            self._skip("unreadable")
            return
        self._judge(update, record, is_rollback=event.extensions.get(ROLLBACK) == ROLLED_BACK)

    def _judge(self, update: ModelUpdate, record: Record, *, is_rollback: bool) -> None:
        name, version = update.model_name, update.version
        refusal = self._order.judge(update.manifest, update.ce_id, is_rollback=is_rollback)
        if refusal is not None:
            reason, message = refusal
            self._warn(record, message, reason=reason, model=name, version=version)
            self._skip(reason, name, version)
        elif self._has_caught_up:
            self._hand_out(update)
        else:
            self._newest.pop(name, None)  # so that the order is that of the log
            self._newest[name] = update

    def _hand_out(self, update: ModelUpdate) -> None:
        if not update.artifact.has_manifest_digest:
            log.warning("no digest over the manifest", model=update.model_name, version=update.version)
        self._order.hand_out(update.manifest)
        self._ready.append(update)

    def _skip(self, reason: SkipReason, model_name: str | None = None, version: int | None = None) -> None:
        self._skipped[reason] += 1
        self._tell(UpdateResult(reason, model_name, version))

    def _warn(self, record: Record, message: str, **about: object) -> None:
        log.warning("skipped a model update", topic=self._topic, offset=record.offset, **about, error=message)

    def _tell(self, result: UpdateResult) -> None:
        if self._on_result is not None:
            self._on_result(result)


def _read_event(record: Record) -> CloudEvent:
    event = from_record(record.headers, record.value)
    if event.type != MODEL_UPDATED:
        raise RecordError("bad_model_update", f"an event of type {event.type}")
    return event


def _read_update(event: CloudEvent, record: Record) -> ModelUpdate:
    data = record.value or b""
    artifact = read_artifact(data)
    _require_same(event, artifact.manifest)
    return ModelUpdate(
        model_name=artifact.manifest.model_name,
        version=artifact.manifest.version,
        ce_id=event.id,
        artifact=artifact,
        data=data,
        published_at=event.time,
        log_time_ms=record.timestamp_ms,
    )


def _require_same(event: CloudEvent, manifest: Manifest) -> None:
    told = (event.subject, event.extensions.get(MODEL_VERSION))
    inside = (manifest.model_name, str(manifest.version))
    if told != inside:
        raise RecordError("bad_model_update", f"the headers say {told}, the model file says {inside}")
