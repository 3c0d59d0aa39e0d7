"""Takes numbers out of many decoded messages at once, by way of msgspec's encoder.

To read an attribute of an object costs more than to write it as MessagePack in C. Where all messages are encoded
to the same length, each number lies at the same place in each, and numpy reads it as a strided column:

    | map | "casting_speed" cb [8 bytes] | ... | "ts" cf [8 bytes] | "strand" 03 | "cast_id" a7 C000123 | next ...

The byte in front of each value tells its type and so its length. If these are as expected in every message, every
message begins where it should; if not, the numbers are read one by one.
Shape suffixes: R messages, F sensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

FLOAT64, UINT64, NIL, STR8 = 0xCB, 0xCF, 0xC0, 0xD9
Float64Array = npt.NDArray[np.float64]
_encode = msgspec.msgpack.Encoder().encode


class Numbers(NamedTuple):
    """The numbers of messages that are packed alike; `time_R` as the source writes it."""

    values_RF: Float64Array
    time_R: npt.NDArray[np.generic]
    strands: list[int | None]


class Packing:
    """Where the numbers of one flat type lie.

    Args:
        sensors: Names of the fields that hold values, in column order: the first fields of the type.
        time: The field behind them.
        strand: The one behind it; the last one is the cast's id.
        time_is_float: Whether times are floats; else they are whole numbers.
    """

    def __init__(
        self, sensors: Sequence[str], time: str, strand: str, cast_id: str, *, time_is_float: bool
    ) -> None:
        num_fields = len(sensors) + 3
        self._head = _encode(dict.fromkeys(map(str, range(num_fields))))[: 1 if num_fields < 16 else 3]
        self._time_type, self._time_marker = (">f8", FLOAT64) if time_is_float else (">u8", UINT64)
        at = len(self._head)
        self._values: list[int] = []
        for name in sensors:
            at += len(_encode(name))
            self._values.append(at)
            at += 9
        self._time = at + len(_encode(time))
        self._strand = self._time + 9 + len(_encode(strand))
        self._cast_id = self._strand + 1 + len(_encode(cast_id))

    def numbers(self, messages: list[Any]) -> Numbers | None:
        """The numbers of all messages; None if these are not packed alike."""
        packed = _encode(messages)
        num = len(messages)
        start = 1 if num < 16 else 3 if num < 65_536 else 5
        cast_id = packed[start + self._cast_id : start + self._cast_id + 2]
        if len(cast_id) < 2:
            return None
        stride = self._cast_id + (2 + cast_id[1] if cast_id[0] == STR8 else 1 + (cast_id[0] & 0x1F))
        if len(packed) != start + num * stride:
            return None
        bytes_RB = np.frombuffer(packed, np.uint8, offset=start).reshape(num, stride)
        if not self._is_alike(bytes_RB, cast_id):
            return None
        values_RF = np.empty((num, len(self._values)))
        for column, at in enumerate(self._values):
            values_RF[:, column] = np.ndarray(num, ">f8", packed, start + at + 1, (stride,))
        time_R = np.ndarray(num, self._time_type, packed, start + self._time + 1, (stride,))
        strands: list[int | None] = bytes_RB[:, self._strand].tolist()
        if NIL in strands:
            strands = [None if strand == NIL else strand for strand in strands]
        return Numbers(values_RF, time_R, strands)

    def _is_alike(self, bytes_RB: npt.NDArray[np.uint8], cast_id: bytes) -> bool:
        header = cast_id if cast_id[0] == STR8 else cast_id[:1]
        expected = dict(enumerate(self._head)) | dict.fromkeys(self._values, FLOAT64)
        expected |= {self._time: self._time_marker}
        expected |= {self._cast_id + index: byte for index, byte in enumerate(header)}
        strand_R = bytes_RB[:, self._strand]
        is_alike = all((bytes_RB[:, place] == byte).all() for place, byte in expected.items())
        return is_alike and bool(((strand_R < 0x80) | (strand_R == NIL)).all())
