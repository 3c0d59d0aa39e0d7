"""What must hold afterwards, from the topics, the registry and the state alone."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

from benchmarks.chaos_train.site import Scene
from streamer.kafka import read_tail
from trainer.release.client.cloudevent import from_record
from trainer.release.client.updates import MODEL_VERSION


def decisions(scene: Scene) -> list[dict[str, Any]]:
    """The decisions of the gate as the topic tells them, each once, in order of their versions."""
    told: dict[str, dict[str, Any]] = {}
    for record in read_tail(scene.settings.kafka, scene.settings.topics.model_events):
        event = json.loads(record.value or b"{}")
        if event["data"]["details"].get("checks"):
            told[event["id"]] = event
    return sorted(told.values(), key=lambda event: int(event[MODEL_VERSION]))


def published(scene: Scene) -> list[tuple[str, int]]:
    """(ce_id, version) of the models on their topic, as they came."""
    events = [
        from_record(record.headers, record.value)
        for record in read_tail(scene.settings.kafka, scene.settings.topics.models)
    ]
    return [(event.id, int(event.extensions[MODEL_VERSION])) for event in events]


def weights(scene: Scene) -> list[str]:
    """Digests of what was decided, in order."""
    return [scene.reader.manifest(int(event[MODEL_VERSION])).weights_sha256 for event in decisions(scene)]


def decided_once(scene: Scene, num_datasets: int) -> bool:
    """Whether each data set was decided, and once."""
    times = Counter(event["data"]["details"]["dataset"] for event in decisions(scene))
    return len(times) == num_datasets and set(times.values()) == {1}


def versions_rising(scene: Scene) -> bool:
    """Whether versions rise strictly on the topic; the same update sent again is the same."""
    firsts = dict.fromkeys(published(scene))
    versions = [version for _, version in firsts]
    return bool(versions) and all(a < b for a, b in itertools.pairwise(versions))


def unknown_versions(scene: Scene) -> list[int]:
    """Versions that the topics tell of and the registry lacks."""
    told = {version for _, version in published(scene)} | {int(e[MODEL_VERSION]) for e in decisions(scene)}
    return sorted(told - {entry.version for entry in scene.reader.models()})
