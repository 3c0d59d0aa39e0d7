"""What a model wants as input, to be held against what a plant has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, Self

from streamer.config import DataConfig, SensorConfig, WindowsConfig
from streamer.sensors import quoted

# Smaller: a swap of several sensors is told in part. Larger: a plant of a thousand sensors fills the log.
SHOWN_SENSORS = 8


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """The columns, the period and the length of the windows that a model scores.

    Attributes:
        sensors: Names and units, in column order.
        size_steps: Steps of a window, or `cast`: one window a cast.
    """

    sensors: tuple[SensorConfig, ...]
    period_ms: int
    size_steps: int | Literal["cast"]

    @classmethod
    def of(cls, data: DataConfig, windows: WindowsConfig) -> Self:
        """What a plant has, by the sections `data` and `windows` of the streamer's file."""
        return cls(data.sensors, data.period_ms, windows.size_steps)

    def differences(self, other: ModelInputs) -> list[str]:
        """Says in words what another one has otherwise; of the sensors, the columns that differ.

        Returns:
            One text for each of sensors, period and window; empty if both are the same.
        """
        told = []
        if self.sensors != other.sensors:
            told.append(f"sensors: {self._sensors_unlike(other)} here, {other._sensors_unlike(self)} there")
        if self.period_ms != other.period_ms:
            told.append(f"period: {self.period_ms} ms here, {other.period_ms} ms there")
        if self.size_steps != other.size_steps:
            told.append(f"window: {_size(self.size_steps)} here, {_size(other.size_steps)} there")
        return told

    def _sensors_unlike(self, other: ModelInputs) -> str:
        pairs = zip_longest(self.sensors, other.sensors)
        return _listed(
            [f"{quoted(mine.name)} {mine.unit}".rstrip() for mine, its in pairs if mine and mine != its]
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN_SENSORS]) or "none"
    return shown if len(names) <= SHOWN_SENSORS else f"{shown} and {len(names) - SHOWN_SENSORS} more"


def _size(size_steps: int | Literal["cast"]) -> str:
    return "whole casts" if size_steps == "cast" else f"{size_steps} steps"
