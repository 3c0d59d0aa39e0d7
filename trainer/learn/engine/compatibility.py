"""What a checkpoint was made with, and whether that is what is there now."""

from __future__ import annotations

from typing import Any

from trainer.errors import CheckpointError
from trainer.learn.config import ModelSettings
from trainer.learn.engine.feed import Feed
from trainer.learn.model.network import SteelDefectLSTM

# What a resumed run may change: how long it goes, how fast it is, how often it saves.
FREE_TO_CHANGE = (
    "training.max_epochs",
    "training.num_workers",
    "training.num_threads",
    "training.max_model_bytes",
    "checkpoint.",
)


def made_with(
    settings: ModelSettings, model: SteelDefectLSTM, train_feed: Feed, val_feed: Feed
) -> dict[str, Any]:
    """What a resumed run must share with the one it goes on with."""
    sections = settings.model_dump(mode="json") | {"architecture": model.config.model_dump(mode="json")}
    fields = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    kept = {name: value for name, value in fields.items() if not name.startswith(FREE_TO_CHANGE)}
    counts = [train_feed.num_good, train_feed.num_defects, val_feed.num_good, val_feed.num_defects]
    return kept | {"num_sensors": model.num_sensors, "class_counts": counts}


def differing_fields(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What a checkpoint was made with that is otherwise now, a text for each field."""
    return [
        f"{key}: {found.get(key)!r} in the file, {expected.get(key)!r} now"
        for key in sorted(found.keys() | expected.keys())
        if found.get(key) != expected.get(key)
    ]


def check_fits(where: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compares what a checkpoint was made with to what is configured now.

    Raises:
        CheckpointError: They differ; the message names the fields.
    """
    if differing := differing_fields(found, expected):
        raise CheckpointError(f"{where}: made with another configuration: {'; '.join(differing)}")


def check_architecture(where: str, found: dict[str, Any], model: SteelDefectLSTM) -> None:
    """Compares the architecture that a checkpoint was made with to that of a model.

    Raises:
        CheckpointError: They differ; the message names the fields.
    """
    now = {f"architecture.{key}": value for key, value in model.config.model_dump(mode="json").items()}
    now["num_sensors"] = model.num_sensors
    if differing := differing_fields({key: found.get(key) for key in now}, now):
        raise CheckpointError(f"{where}: of another architecture: {'; '.join(differing)}")
