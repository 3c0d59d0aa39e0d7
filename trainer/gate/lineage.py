"""What a challenger may take the place of: whether the champion reads the same inputs."""

from __future__ import annotations

from streamer.config import DataConfig, WindowsConfig
from trainer.errors import InputsChangedError
from trainer.release.client.artifact import Manifest


def differing_inputs(champion: Manifest, data: DataConfig, spec: WindowsConfig) -> list[str]:
    """What windows have otherwise than a champion reads them, a text for each."""
    named = {
        "sensors": (
            [f"{each.name} {each.unit}" for each in champion.sensors],
            [f"{each.name} {each.unit}" for each in data.sensors],
        ),
        "period_ms": (champion.period_ms, data.period_ms),
        "size_steps": (champion.window.size_steps, spec.size_steps),
    }
    return [f"{name}: {its} of the champion, {now} now" for name, (its, now) in named.items() if its != now]


def require_same_inputs(champion: Manifest, data: DataConfig, spec: WindowsConfig) -> None:
    """Refuses to train what running scorers could not feed.

    Raises:
        InputsChangedError: The message says what differs and what to do.
    """
    if differing := differing_inputs(champion, data, spec):
        raise InputsChangedError(
            f"the champion, {champion.model_name} {champion.version}, reads other inputs: {'; '.join(differing)}. "
            "Scoring services that run it cannot feed a model of these: give it a registry.model_name of its own, or "
            "set registry.accept_new_inputs: true once they can"
        )
