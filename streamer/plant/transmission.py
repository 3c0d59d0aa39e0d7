"""What is lost and what comes late between the sensors and Kafka; it knows nothing of defects.

Shape suffixes: T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Rows that a gateway holds back at once, and rows for which a sensor falls silent.
BURST_ROWS = (1, 10)
MEAN_BURST_ROWS = sum(BURST_ROWS) / 2


@dataclass(frozen=True, slots=True)
class Transmission:
    """Draws losses and delays.

    Attributes:
        missing_share: Share of the values that never arrive: half with their rows, half sensor by sensor.
        late_share: Share of the rows that are sent late.
        very_late_share: Share of these that come after any usual lateness.
        late_s: Least and largest delay of a late row.
        very_late_s: Least and largest delay of a very late one.
    """

    missing_share: float
    late_share: float
    very_late_share: float
    late_s: tuple[float, float]
    very_late_s: tuple[float, float]

    def sent(self, rng: np.random.Generator, num_steps: int) -> npt.NDArray[np.bool_]:
        """Which rows are sent at all; at least the first one is."""
        sent_T = rng.random(num_steps) >= self.missing_share / 2
        sent_T[0] = True
        return sent_T

    def silent(self, rng: np.random.Generator, num_steps: int, num_sensors: int) -> npt.NDArray[np.bool_]:
        """Which values of the rows sent are missing."""
        silent_TF = np.zeros((num_steps, num_sensors), dtype=np.bool_)
        for start, stop in _bursts(rng, self.missing_share / 2 * num_sensors, num_steps):
            silent_TF[start:stop, rng.integers(num_sensors)] = True
        return silent_TF

    def delays_ms(self, rng: np.random.Generator, num_steps: int) -> npt.NDArray[np.int64]:
        """By how much each row is sent late."""
        delay_ms_T = np.zeros(num_steps, dtype=np.int64)
        for start, stop in _bursts(rng, self.late_share, num_steps):
            span_s = self.very_late_s if rng.random() < self.very_late_share else self.late_s
            delay_ms_T[start:stop] = round(rng.uniform(*span_s) * 1000)
        return delay_ms_T


def _bursts(rng: np.random.Generator, share: float, num_steps: int) -> Iterator[tuple[int, int]]:
    for _ in range(rng.poisson(share * num_steps / MEAN_BURST_ROWS)):
        start = int(rng.integers(num_steps))
        yield start, start + int(rng.integers(BURST_ROWS[0], BURST_ROWS[1] + 1))
