"""What a challenger may take the place of: whether the champion reads the same inputs."""

from __future__ import annotations

from trainer.errors import InputsChangedError
from trainer.release.client.artifact import Manifest
from trainer.release.client.inputs import ModelInputs


def require_same_inputs(champion: Manifest, windows: ModelInputs) -> None:
    """Refuses to train what running scorers could not feed.

    Raises:
        InputsChangedError: The message says what differs and what to do.
    """
    if differing := windows.differences(champion.inputs):
        raise InputsChangedError(
            f"the champion, {champion.model_name} {champion.version}, reads other inputs: {'; '.join(differing)}. "
            "Scoring services that run it cannot feed a model of these: give it a registry.model_name of its own, or "
            "set registry.accept_new_inputs: true once they can"
        )
