"""What the sensors of one cast do over time: noise about an operating point, harmless events, harmful ones.

Times here are steps of ``period_s``. Shape suffixes: T steps, F sensors in the order of `regimes.SENSORS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.plant.regimes import DefectKind, FloatArray, Regime

SPEED, TEMPERATURE, LEVEL, FLOW, SUPERHEAT = range(5)
DoubleArray = npt.NDArray[np.float64]

# From one harmful episode to the next within a defective stretch, seconds. Larger: windows of 300 steps that
# are labelled defective and show nothing, which no model can tell from good ones.
EPISODE_EVERY_S = (90.0, 150.0)
# Per 300 s of any cast, defective or not. Larger: good casts look more like defective ones.
SPIKES = 0.8
SMALL_HOLDS = 0.3
SMALL_DROPS = 0.25
FAST_ALONE = 0.15
COLD_ALONE = 0.15


@dataclass(slots=True)
class CastDynamics:
    """Builds the values of one cast; each method adds to them.

    Attributes:
        rng: The cast's own generator.
        num_steps: T.
        period_s: Seconds a step.
    """

    rng: np.random.Generator
    num_steps: int
    period_s: float
    values_TF: DoubleArray = field(init=False)

    def __post_init__(self) -> None:
        self.values_TF = np.zeros((self.num_steps, 5))

    def add_baseline(self, operating_point_F: FloatArray) -> None:
        """Adds the operating point, the cast's own offset, and noise slow and fast."""
        speed, temperature, level, flow, superheat = (float(value) for value in operating_point_F)
        normal = self.rng.standard_normal
        column = self.values_TF.T
        cast_speed = speed * (1 + 0.02 * normal())
        speed_T = cast_speed + 0.012 * self._smooth(60) + 0.004 * normal(self.num_steps)
        column[SPEED] += speed_T
        column[TEMPERATURE] += temperature + 4 * normal() + 3 * self._smooth(30) + normal(self.num_steps)
        column[LEVEL] += level + 0.4 * normal() + 0.7 * self._smooth(5) + 0.4 * normal(self.num_steps)
        column[FLOW] += flow * speed_T / speed + 25 * self._smooth(40) + 10 * normal(self.num_steps)
        cooling_T = -3 * np.linspace(0, 1, self.num_steps)
        column[SUPERHEAT] += (
            superheat + 1.5 * normal() + cooling_T + self._smooth(90) + 0.3 * normal(self.num_steps)
        )

    def add_harmless(self, regime: Regime) -> None:
        """Adds what happens in every cast and harms in none."""
        uniform = self.rng.uniform
        for start in self._starts(SPIKES):
            sign = 1 if uniform() < 0.5 else -1
            self._bump(LEVEL, start, sign * uniform(5, 11), 1, uniform(3, 10), 2)
        for start in self._starts(regime.swings_per_300s):
            self._bump(LEVEL, start, -regime.level_harm * uniform(4, 9), 4, uniform(30, 80), 6)
        for start in self._starts(SMALL_HOLDS):
            self._bump(LEVEL, start, regime.level_harm * uniform(1, 4), 4, uniform(20, 60), 6)
        for start in self._starts(SMALL_DROPS):
            self._bump(TEMPERATURE, start, -uniform(12, 36), uniform(25, 55), uniform(5, 30), uniform(40, 90))
        for start in self._starts(regime.sags_per_300s):
            self._bump(TEMPERATURE, start, -uniform(35, 50), uniform(180, 260), uniform(5, 30), 90)
        for start in self._starts(FAST_ALONE):
            self._bump(SPEED, start, uniform(0.06, 0.18), 10, uniform(50, 120), 15)
        for start in self._starts(COLD_ALONE):
            self._bump(SUPERHEAT, start, -uniform(4, 9), 20, uniform(50, 120), 30)

    def add_harm(
        self, kind: DefectKind, regime: Regime, first: int, last: int
    ) -> tuple[tuple[int, int], ...]:
        """Adds episodes of what makes this kind of defect, again and again from step ``first`` to ``last``.

        Returns:
            First and last step of each episode.
        """
        episodes = []
        start = first
        while start < last:
            end = start + round(self._episode(kind, regime, start) / self.period_s)
            episodes.append((start, min(end, self.num_steps - 1)))
            start = max(end, start + round(self.rng.uniform(*EPISODE_EVERY_S) / self.period_s))
        return tuple(episodes)

    def _episode(self, kind: DefectKind, regime: Regime, start: int) -> float:
        uniform = self.rng.uniform
        if kind == "mold_level":
            return self._bump(LEVEL, start, regime.level_harm * uniform(4, 9), 4, uniform(30, 80), 6)
        if kind == "mold_temperature":
            return self._bump(TEMPERATURE, start, -uniform(50, 70), uniform(20, 55), uniform(10, 40), 60)
        held = uniform(50, 120)
        self._bump(SUPERHEAT, start, -uniform(5, 10), 20, held, 30)
        return self._bump(SPEED, start, uniform(0.08, 0.2), 10, held + 15, 15)

    def _bump(self, sensor: int, start: int, size: float, *spans_s: float) -> float:
        """Adds a trapezoid of height ``size``.

        Args:
            sensor: Its column.
            start: Its first step.
            size: In the unit of the sensor.
            spans_s: How long it rises, is held, and falls.

        Returns:
            Its whole length in seconds.
        """
        corners_s = np.cumsum([0.0, *spans_s])
        stop = min(start + int(corners_s[-1] / self.period_s) + 1, self.num_steps)
        at_s = np.arange(stop - start) * self.period_s
        self.values_TF[start:stop, sensor] += size * np.interp(at_s, corners_s, [0.0, 1.0, 1.0, 0.0])
        return float(corners_s[-1])

    def _starts(self, per_300s: float) -> list[int]:
        count = self.rng.poisson(per_300s * self.num_steps * self.period_s / 300)
        starts: list[int] = self.rng.integers(0, self.num_steps, count).tolist()
        return starts

    def _smooth(self, time_s: float) -> DoubleArray:
        """Noise of unit variance that forgets within ``time_s``."""
        lag = time_s / self.period_s
        kernel = np.exp(-np.arange(1 + int(4 * lag)) / lag)
        kernel /= np.sqrt(np.square(kernel).sum())
        noise = self.rng.standard_normal(self.num_steps + len(kernel) - 1)
        return np.convolve(noise, kernel, mode="valid")
