"""When a cycle starts. No clock, no network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamer.settings import Section

Trigger = Literal["new-windows", "interval", "manual"]


class TriggersConfig(Section):
    """When a cycle starts."""

    # Smaller: more cycles that learn little. Larger: the model lags behind the plant.
    new_labelled_windows: int = Field(500, ge=1, description="since the last cycle")
    interval_s: float | None = Field(86_400.0, gt=0, description="with at least one new window; null: never")
    poll_s: float = Field(5.0, gt=0, le=3_600, description="how often Redis is asked")


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
