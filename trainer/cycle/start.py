"""What the training of a challenger starts from: the weights of the champion, or new ones."""

from __future__ import annotations

import structlog

from trainer.learn.config import ModelSettings, Start
from trainer.learn.ensemble.defect_model import network_state
from trainer.learn.model import SteelDefectLSTM, build_model
from trainer.release.client.artifact import Artifact
from trainer.release.client.inputs import ModelInputs

log = structlog.get_logger()


def starts(
    champion: Artifact | None, settings: ModelSettings, inputs: ModelInputs
) -> list[tuple[Start, SteelDefectLSTM, int | None]]:
    """The networks to train, each with what it starts from and the version that its weights are of.

    Without a champion whose weights fit there is one: from scratch.
    """
    num_sensors = len(inputs.sensors)
    found: list[tuple[Start, SteelDefectLSTM, int | None]] = []
    for start in settings.training.candidates:
        network = build_model(settings.architecture, num_sensors, settings.training.seed)
        if start == "scratch":
            found.append((start, network, None))
        elif champion is not None and _takes_over(network, champion, settings, inputs):
            found.append((start, network, champion.manifest.version))
    if not found:
        found.append(
            ("scratch", build_model(settings.architecture, num_sensors, settings.training.seed), None)
        )
    return found


def _takes_over(
    network: SteelDefectLSTM, champion: Artifact, settings: ModelSettings, inputs: ModelInputs
) -> bool:
    """Loads the weights of the champion; False, and told, if they do not fit."""
    version = champion.manifest.version
    if differing := inputs.differences(champion.manifest.inputs):
        log.warning("champion has other inputs", version=version, start="scratch", differing=differing)
    elif champion.manifest.architecture != settings.architecture.model_dump(mode="json"):
        log.warning("champion has another architecture", version=version, start="scratch")
    else:
        try:
            network.load_state_dict(network_state(champion.tensors))
        except RuntimeError as exc:
            log.warning("champion cannot be gone on from", version=version, start="scratch", error=str(exc))
        else:
            return True
    return False
