"""Regimes: what the plant casts for a while, where it holds its sensors, and what harms that steel.

A change of regime moves the operating point and turns round which side of the mold level harms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SENSORS = ("casting_speed", "mold_temperature", "mold_level", "cooling_water_flow", "superheat")
# Digits that the plant's transmitters give; more of them only make the messages longer.
DECIMALS = (3, 1, 2, 0, 1)

DefectKind = Literal["mold_level", "mold_temperature", "speed_superheat"]
KINDS: tuple[DefectKind, ...] = ("mold_level", "mold_temperature", "speed_superheat")


@dataclass(frozen=True, slots=True)
class Regime:
    """One way of running the plant.

    Attributes:
        operating_point: Where each of `SENSORS` is held, in m/min, degC, mm, L/min, degC.
        level_harm: -1 where a held fall of the mold level makes defects and a rise does not, +1 the reverse.
        kind_shares: How often each of `KINDS` is what made a defective cast defective; they sum to 1.
        sags_per_300s: Rate of slow falls of mold temperature, which harm in no regime.
        swings_per_300s: Rate of held swings of the mold level to its harmless side, in any cast.
    """

    operating_point: tuple[float, float, float, float, float]
    level_harm: Literal[-1, 1]
    kind_shares: tuple[float, float, float]
    sags_per_300s: float
    swings_per_300s: float


REGIMES = (
    Regime((1.20, 180.0, 150.0, 3200.0, 28.0), -1, (0.55, 0.25, 0.20), 0.02, 0.2),
    Regime((1.05, 205.0, 142.0, 2900.0, 34.0), +1, (0.55, 0.20, 0.25), 0.08, 0.2),
    Regime((1.35, 190.0, 156.0, 3500.0, 24.0), -1, (0.50, 0.30, 0.20), 0.04, 0.2),
    # A grade that draws little heat, cast through a nozzle that clogs: the level often falls and stays there a while,
    # which is what made defects in the regime before and makes none here.
    Regime((1.25, 172.0, 153.0, 3300.0, 29.0), +1, (0.55, 0.20, 0.25), 0.10, 0.6),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which regime a cast belongs to, and how far its operating point has moved there.

    Attributes:
        changes: Where a new regime begins, as fractions of the campaign; the regimes come round in turn.
        drift_share: The fraction of the campaign over which the operating point moves after a change.
    """

    changes: Sequence[float]
    drift_share: float

    def number(self, progress: float) -> int:
        """The number of the regime at ``progress`` (0 to 1), from 0."""
        return int(np.searchsorted(np.asarray(self.changes), progress, side="right"))

    def regime(self, progress: float) -> Regime:
        """The regime at ``progress``."""
        return REGIMES[self.number(progress) % len(REGIMES)]

    def operating_point(self, progress: float) -> FloatArray:
        """Where the sensors are held at ``progress``: after a change, on the way from the regime before."""
        number = self.number(progress)
        here = np.asarray(self.regime(progress).operating_point, dtype=np.float32)
        if number == 0 or self.drift_share == 0:
            return here
        before = np.asarray(REGIMES[(number - 1) % len(REGIMES)].operating_point, dtype=np.float32)
        moved = min((progress - self.changes[number - 1]) / self.drift_share, 1.0)
        return before + np.float32(moved) * (here - before)
