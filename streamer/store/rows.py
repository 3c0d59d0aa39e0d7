"""Rows of casts as they lie in Redis: float32 blocks on the absolute step grid.

Shape suffixes: T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamer.columns import FloatArray
from streamer.config import DataConfig
from streamer.store.connection import Client, map_redis_errors
from streamer.store.keys import Keys
from streamer.windows import Address

# Smaller: more round trips. Larger: more memory in the reply of one of them.
BATCH_BLOCKS = 512


class RowStore:
    """Reads rows by address."""

    def __init__(self, client: Client, keys: Keys, data: DataConfig) -> None:
        self._client = client
        self._keys = keys
        self._block_steps = data.block_steps
        self._num_sensors = len(data.sensors)
        self._stride = 4 * self._num_sensors

    def read(self, addresses: Sequence[Address]) -> list[FloatArray]:
        """Reads the rows of windows.

        Returns:
            x_TF for each address in order; NaN where there is no value, always the same NaN.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        parts = [self._parts(address) for address in addresses]
        replies: list[bytes] = []
        flat = [part for each in parts for part in each]
        for begin in range(0, len(flat), BATCH_BLOCKS):
            with map_redis_errors("reading rows"):
                pipe = self._client.pipeline(transaction=False)
                for key, low, high in flat[begin : begin + BATCH_BLOCKS]:
                    pipe.getrange(key, low * self._stride, high * self._stride - 1)
                replies += pipe.execute()
        rows, at = [], 0
        for each in parts:
            blocks = replies[at : at + len(each)]
            rows.append(self._join(each, blocks))
            at += len(each)
        return rows

    def _parts(self, address: Address) -> list[tuple[str, int, int]]:
        """(key, first row, row behind the last) of each block that the window touches."""
        parts, step = [], address.start
        while step < address.end:
            block, low = divmod(step, self._block_steps)
            high = min(self._block_steps, low + address.end - step)
            parts.append((self._keys.rows(address.cast_id, block), low, high))
            step += high - low
        return parts

    def _join(self, parts: Sequence[tuple[str, int, int]], blocks: Sequence[bytes]) -> FloatArray:
        x_TF = np.full((sum(high - low for _, low, high in parts), self._num_sensors), np.nan, np.float32)
        at = 0
        for (_, low, high), block in zip(parts, blocks, strict=True):
            if block:
                x_TF[at : at + high - low] = np.frombuffer(block, "<f4").reshape(-1, self._num_sensors)
            at += high - low
        x_TF[np.isnan(x_TF)] = np.nan  # one canonical NaN, whatever a writer put there
        return x_TF
