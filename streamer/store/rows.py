"""Rows of casts as they lie in Redis: float32 blocks on the absolute step grid.

Shape suffixes: T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.columns import FloatArray
from streamer.config import DataConfig
from streamer.store.connection import Client, map_redis_errors
from streamer.store.keys import Keys
from streamer.windows import Address

# Smaller: more round trips. Larger: more memory in the reply of one of them.
BATCH_BLOCKS = 256


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows `low` to before `high` of a block."""

    key: str
    low: int
    high: int


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
        return list(self.each(addresses))

    def each(self, addresses: Sequence[Address]) -> Iterator[FloatArray]:
        """The same, window by window: no more is held than one batch of blocks, or those of one long cast.

        What several windows of a batch share is read once.

        Raises:
            StoreUnavailableError: Redis does not answer; from any step of the iteration.
        """
        batch: list[list[_Part]] = []
        spans: dict[str, _Part] = {}
        for address in addresses:
            parts = self._parts(address)
            if batch and len(spans) + len(parts) > BATCH_BLOCKS:
                yield from self._joined(batch, spans)
                batch, spans = [], {}
            batch.append(parts)
            for part in parts:
                spans[part.key] = _hull(part, spans.get(part.key, part))
        yield from self._joined(batch, spans)

    def _joined(self, batch: Sequence[Sequence[_Part]], spans: dict[str, _Part]) -> Iterator[FloatArray]:
        blocks = self._read(list(spans.values()))
        for parts in batch:
            x_TF = np.empty((sum(each.high - each.low for each in parts), self._num_sensors), np.float32)
            at = 0
            for each in parts:
                low, length = each.low - spans[each.key].low, each.high - each.low
                x_TF[at : at + length] = blocks[each.key][low : low + length]
                at += length
            yield x_TF

    def _read(self, spans: Sequence[_Part]) -> dict[str, FloatArray]:
        blocks: dict[str, FloatArray] = {}
        for begin in range(0, len(spans), BATCH_BLOCKS):  # a long cast has more by itself
            asked = spans[begin : begin + BATCH_BLOCKS]
            with map_redis_errors("reading rows"):
                pipe = self._client.pipeline(transaction=False)
                for span in asked:
                    pipe.getrange(span.key, span.low * self._stride, span.high * self._stride - 1)
                replies = pipe.execute()
            for span, reply in zip(asked, replies, strict=True):
                blocks[span.key] = self._block(span, reply)
        return blocks

    def _parts(self, address: Address) -> list[_Part]:
        """What the window touches of each block."""
        parts, step = [], address.start
        while step < address.end:
            block, low = divmod(step, self._block_steps)
            high = min(self._block_steps, low + address.end - step)
            parts.append(_Part(self._keys.rows(address.cast_id, block), low, high))
            step += high - low
        return parts

    def _block(self, span: _Part, reply: bytes) -> FloatArray:
        x_TF = np.full((span.high - span.low, self._num_sensors), np.nan, np.float32)
        if reply:
            x_TF[:] = np.frombuffer(reply, "<f4").reshape(-1, self._num_sensors)
        x_TF[np.isnan(x_TF)] = np.nan  # one canonical NaN, whatever a writer put there
        return x_TF


def _hull(one: _Part, other: _Part) -> _Part:
    return _Part(one.key, min(one.low, other.low), max(one.high, other.high))
