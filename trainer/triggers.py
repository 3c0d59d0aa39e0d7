"""When a cycle starts. No clock, no network."""

from __future__ import annotations

from typing import Literal

from trainer.config import TriggersConfig

Trigger = Literal["new-windows", "interval", "manual"]


def due(config: TriggersConfig, *, num_new_windows: int, since_last_s: float) -> Trigger | None:
    """The trigger that has fired, None if none has.

    Args:
        num_new_windows: Labelled since the last cycle froze its data set.
        since_last_s: Seconds since the last cycle ended, or since the start if there was none.
    """
    if num_new_windows >= config.new_labelled_windows:
        return "new-windows"
    if config.interval_s is not None and num_new_windows > 0 and since_last_s >= config.interval_s:
        return "interval"
    return None
