"""Casts written into Redis through the streamer's own store, where the streamer is not what is measured.

Shape suffixes: T steps of a cast, F sensors.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from streamer.config import DataConfig, WindowsConfig
from streamer.records import Partition
from streamer.schema import Label
from streamer.store.casts import CastStore
from streamer.store.connection import Client
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import claim_namespace, claim_spec
from streamer.store.reading import WindowReader
from streamer.timeline import CastReadings, Grid, Lateness

READINGS, LABELS = Partition("readings", 0), Partition("labels", 0)
BOUNDS = Lateness(allowed_ms=0, idle_ms=1, max_future_ms=10**15, max_past_ms=10**15)
GAP_STEPS = 1_000

Values = npt.NDArray[np.float32]


class StoredPlant:
    """Casts of one length, one after the other; every second one is defective and swings wider in its first sensor.

    Args:
        num_steps: Of a cast.
        seed: Of the values.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        data: DataConfig,
        spec: WindowsConfig,
        *,
        num_steps: int,
        seed: int = 0,
    ) -> None:
        self._client, self._keys = client, Keys(namespace)
        self._data, self._spec = data, spec
        self._num_steps, self._seed = num_steps, seed
        self._grid = Grid(data.period_ms, data.grid_phase_ms)
        claim_namespace(client, self._keys, data)
        claim_spec(client, self._keys, spec)
        self._casts = CastStore(client, self._keys, data)
        self._index = WindowIndex(client, self._keys, data, spec)

    def reader(self) -> WindowReader:
        """What a trainer reads it with."""
        return WindowReader(self._client, self._keys, self._data, self._spec)

    def write(self, numbers: Iterable[int]) -> None:
        """Writes and seals casts by number, each with its verdict."""
        for number in numbers:
            cast_id = f"C{number:05d}"
            self._write_rows(cast_id, number)
            label = Label(cast_id, number % 2 == 0, inspected_at=1)
            self._casts.add_labels([(LABELS, number, label)])
            self._index.update([cast_id])

    def _write_rows(self, cast_id: str, number: int) -> None:
        start = 1_000_000 + number * (self._num_steps + GAP_STEPS)
        states = self._casts.load(READINGS, [cast_id])
        state = states[cast_id]
        state.timeline.take(self._one_reading(start, self._values(number)), self._grid, BOUNDS)
        state.timeline.close()
        state.source, state.next_applied = str(READINGS), 1
        state.counts["steps:placed"] += self._num_steps
        self._casts.save(READINGS, states.values())
        self._casts.enrol({cast_id: self._grid.time(start)})
        self._client.hset(self._keys.position(READINGS), "offset", 1)

    def _values(self, number: int) -> Values:
        shape = (self._num_steps, len(self._data.sensors))
        x_TF = np.random.default_rng([self._seed, number]).standard_normal(shape, np.float32)
        x_TF[:, 0] *= 4.0 if number % 2 == 0 else 1.0
        return x_TF + np.float32(150)

    def _one_reading(self, start: int, x_TF: Values) -> CastReadings:
        one = np.ones(1, np.int64)
        first_ts = one * self._grid.time(start)
        return CastReadings(
            log_time_R=first_ts,
            now_R=first_ts,
            ts_R=first_ts,
            first_step_R=one * start,
            newest_R=one * self._grid.time(start + len(x_TF) - 1),
            reading_N=np.zeros(len(x_TF), np.int64),
            step_N=start + np.arange(len(x_TF)),
            jitter_N=np.zeros(len(x_TF), np.int32),
            value_NF=x_TF,
            stop_NF=None,
        )
