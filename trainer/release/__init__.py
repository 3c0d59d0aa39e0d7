"""From a trained challenger to a model in service: gate, model file, registry, publisher, subscriber.

Importing this needs no torch, scikit-learn or scipy. What does is imported by its module:
`trainer.release.scorer` (torch) and `trainer.release.gate` (scikit-learn).
"""

from trainer.release.artifact import Artifact, DatasetInfo, Manifest, read_artifact, write_artifact
from trainer.release.config import GateConfig, RegistryConfig
from trainer.release.events import ModelEvent
from trainer.release.publisher import Publisher, release_topics
from trainer.release.registry import ModelEntry, Registry
from trainer.release.subscriber import ModelSubscriber, ModelUpdate

__all__ = [
    "Artifact",
    "DatasetInfo",
    "GateConfig",
    "Manifest",
    "ModelEntry",
    "ModelEvent",
    "ModelSubscriber",
    "ModelUpdate",
    "Publisher",
    "Registry",
    "RegistryConfig",
    "read_artifact",
    "release_topics",
    "write_artifact",
]
