"""From a trained challenger to a model in service: model file, registry, publisher, subscriber.

Importing this needs no torch, scikit-learn or scipy. What does is imported by its module: `trainer.release.scorer`.
"""

from trainer.release.client.artifact import Artifact, DatasetInfo, Manifest, read_artifact, write_artifact
from trainer.release.client.inputs import ModelInputs
from trainer.release.client.results import UpdateResult
from trainer.release.client.subscriber import ModelSubscriber, ModelUpdate
from trainer.release.publish.publisher import Publisher, release_topics
from trainer.release.registry.config import RegistryConfig
from trainer.release.registry.event import ModelEvent
from trainer.release.registry.reader import ModelEntry, RegistryReader
from trainer.release.registry.registry import Registry

__all__ = [
    "Artifact",
    "DatasetInfo",
    "Manifest",
    "ModelEntry",
    "ModelEvent",
    "ModelInputs",
    "ModelSubscriber",
    "ModelUpdate",
    "Publisher",
    "Registry",
    "RegistryConfig",
    "RegistryReader",
    "UpdateResult",
    "read_artifact",
    "release_topics",
    "write_artifact",
]
