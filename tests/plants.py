"""A plant for tests: writes casts and verdicts into Redis through the streamer's own store, no Kafka needed.

Defective casts swing wider in their first sensor, so that a few epochs suffice to tell them from good ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from columns import Reading, cast_readings

from streamer.config import DataConfig, RedisConfig, SensorConfig, WindowsConfig
from streamer.records import Partition
from streamer.schema import Label
from streamer.store.casts import CastStore
from streamer.store.connection import connect
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import claim_namespace, claim_spec
from streamer.store.reading import WindowReader
from streamer.timeline import Grid, Lateness

READINGS = Partition("readings", 0)
LABELS = Partition("labels", 0)
DATA = DataConfig(
    sensors=(SensorConfig(name="mold_level", unit="mm"), SensorConfig(name="casting_speed", unit="m/min")),
    block_steps=16,
)
SPEC = WindowsConfig(size_steps=20, hop_steps=20)
BOUNDS = Lateness(allowed_ms=0, idle_ms=1, max_future_ms=10**15, max_past_ms=10**15)

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cast:
    """What a test lets the plant cast; `start` is a step on the grid, `defect` None leaves it unlabelled."""

    cast_id: str
    start: int
    x_TF: FloatArray
    defect: bool | None
    group: str | None = None


class Plant:
    """Writes what a streamer would write to one namespace."""

    def __init__(self, config: RedisConfig, data: DataConfig = DATA, spec: WindowsConfig = SPEC) -> None:
        self.data, self.spec = data, spec
        self.grid = Grid(data.period_ms, data.grid_phase_ms)
        self.client = connect(config)
        self.keys = Keys(config.namespace)
        claim_namespace(self.client, self.keys, data)
        claim_spec(self.client, self.keys, spec)
        self._casts = CastStore(self.client, self.keys, data)
        self._index = WindowIndex(self.client, self.keys, data, spec)
        self._num_labels = 0

    def reader(self) -> WindowReader:
        """What the trainer reads this namespace with."""
        return WindowReader(self.client, self.keys, self.data, self.spec)

    def write(self, casts: Sequence[Cast]) -> None:
        """Casts and seals, then gives the verdicts."""
        states = self._casts.load(READINGS, [cast.cast_id for cast in casts])
        for cast in casts:
            state, first_ts = states[cast.cast_id], self.grid.time(cast.start)
            reading = Reading(cast.cast_id, 1, first_ts, self.data.period_ms, cast.x_TF.tolist())
            readings = cast_readings([reading], self.grid, [first_ts], [first_ts])
            state.timeline.take(readings, self.grid, BOUNDS)
            state.timeline.close()
            state.source, state.group, state.next_applied = str(READINGS), cast.group, 1
            state.counts["steps:placed"] += len(cast.x_TF)
        self._casts.save(READINGS, states.values())
        self._casts.enrol({cast.cast_id: self.grid.time(cast.start) for cast in casts})
        self.client.hset(self.keys.position(READINGS), "offset", 1)
        self.label(
            [Label(cast.cast_id, cast.defect, inspected_at=1) for cast in casts if cast.defect is not None]
        )
        self._index.update([cast.cast_id for cast in casts])

    def label(self, labels: Sequence[Label]) -> None:
        """Gives verdicts."""
        self._casts.add_labels(
            [(LABELS, self._num_labels + number, label) for number, label in enumerate(labels)]
        )
        self._num_labels += len(labels)
        self.client.hset(self.keys.position(LABELS), "offset", self._num_labels)
        self._index.update({label.cast_id for label in labels})

    def close(self) -> None:
        """Ends the connection."""
        self.client.close()


def casts(
    numbers: Iterable[int],
    *,
    seed: int = 0,
    num_steps: int = 40,
    swing: float = 4.0,
    num_sensors: int = 2,
    defect_every: int = 2,
) -> list[Cast]:
    """Casts one after the other; every second one is defective unless told otherwise.

    Args:
        numbers: Their place in time and in their names.
        swing: How many times wider the first sensor of a defective cast swings.
    """
    made = []
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        defect = number % defect_every == 0
        x_TF = rng.normal(size=(num_steps, num_sensors)).astype(np.float32)
        x_TF[:, 0] = 150 + x_TF[:, 0] * (swing if defect else 1.0)
        made.append(Cast(f"C{number:05d}", 1_000_000 + number * 100, x_TF, defect))
    return made
