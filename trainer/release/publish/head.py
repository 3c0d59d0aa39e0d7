"""What the topics know of a model: the newest version that was ever told of, and the model in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from streamer.config import KafkaConfig, TopicsConfig
from streamer.errors import RecordError
from streamer.kafka import read_tail
from streamer.records import Record
from trainer.errors import RegistryBehindError
from trainer.release.client.cloudevent import CloudEvent, from_record
from trainer.release.client.updates import MODEL_UPDATED, MODEL_VERSION
from trainer.release.publish.events import EVENT_PREFIX
from trainer.release.registry.registry import Registry

log = structlog.get_logger()

# From the ends of the topics: versions and cycles rise, so the newest record says it. Smaller: records of many other
# models hide it. Larger: a start reads more; a model may be 10 MB.
EVENTS_READ = 2_000
MODELS_READ = 50


@dataclass(frozen=True, slots=True)
class Head:
    """What the topics know of one model name.

    Attributes:
        version: The highest version in either topic, 0 if there is none.
        ids: Of the events that tell of that version.
        cycle: The highest cycle that an event names, 0 if none does.
        model: The model file in use, None if there is none.
        model_version: Its version.
    """

    version: int = 0
    ids: frozenset[str] = frozenset()
    cycle: int = 0
    model: bytes | None = None
    model_version: int = 0


def read_head(kafka: KafkaConfig, topics: TopicsConfig, model_name: str) -> Head:
    """Reads the ends of both topics; a topic that does not exist knows nothing.

    Raises:
        BrokerUnavailableError: The broker does not answer.
    """
    models = _events(read_tail(kafka, topics.models, MODELS_READ), model_name)
    decisions = _events(read_tail(kafka, topics.model_events, EVENTS_READ), model_name)
    updates = [event for event in models if event.type == MODEL_UPDATED]
    newest = updates[-1] if updates else None
    version = max([_version(event) for event in (*updates, *decisions)], default=0)
    return Head(
        version=version,
        ids=frozenset(event.id for event in (*updates, *decisions) if _version(event) == version),
        cycle=max([_cycle(event) for event in decisions], default=0),
        model=newest.data if newest and isinstance(newest.data, bytes) else None,
        model_version=_version(newest) if newest else 0,
    )


def require_abreast(registry: Registry, head: Head) -> None:
    """Refuses a registry that the topics are ahead of: its next version would be one that there has been.

    Raises:
        RegistryBehindError: The message says how to go on.
    """
    if fault := _fault(registry, head):
        raise RegistryBehindError(
            f"{registry.folder}: {fault} of {registry.model_name}: it was restored from an older copy, or is another "
            "folder. Point registry.path to the right one, or start once with --adopt to go on behind version "
            f"{head.version}"
        )


def _fault(registry: Registry, head: Head) -> str | None:
    last = registry.last_version()
    if head.version > last:
        return f"it ends at version {last}, the topics know of version {head.version}"
    if head.version > registry.adopted_version() and not registry.has_told(head.version, head.ids):
        return f"version {head.version} on the topics is not the one that it holds"
    return None


def adopt(registry: Registry, head: Head) -> None:
    """Lets a registry go on behind what the topics know, with the model in use as its champion.

    What it had decided and not published is dropped where the topics are past it: nobody is told of it any more.
    A second call, also after a kill in the middle of the first, completes what is left to do.

    Raises:
        ArtifactError: The model in the topic is damaged.
    """
    if _fault(registry, head) is None:
        return
    log.warning("going on behind the topics", version=head.version, registry_ended_at=registry.last_version())
    for event in registry.outbox():
        if (event.version or 0) <= head.version:
            registry.confirm(event)
    missing = _missing_model(registry, head)
    if missing is not None:
        registry.adopt(missing)
    registry.raise_version(head.version, adopted=True)


def _missing_model(registry: Registry, head: Head) -> bytes | None:
    """The model in use where it is later than the champion here; None where its number is that of another model."""
    version, model = head.model_version, head.model
    if model is None or version <= (registry.champion_version() or 0):
        return None
    is_there = any(entry.version == version for entry in registry.models())
    return model if not is_there or registry.model_file(version) == model else None


def _events(records: Iterable[Record], model_name: str) -> list[CloudEvent]:
    """The events of one model name; what is none is passed over, as its readers do."""
    found = []
    for record in records:
        if record.key != model_name.encode() or record.value is None:
            continue
        try:
            event = from_record(record.headers, record.value)
        except RecordError:
            continue
        if event.type.startswith(EVENT_PREFIX):
            found.append(event)
    return found


def _version(event: CloudEvent) -> int:
    text = event.extensions.get(MODEL_VERSION, "")
    return int(text) if text.isdecimal() else 0


def _cycle(event: CloudEvent) -> int:
    data = event.data if isinstance(event.data, dict) else {}
    details = data.get("details")
    cycle = details.get("cycle") if isinstance(details, dict) else None
    return cycle if isinstance(cycle, int) else 0
