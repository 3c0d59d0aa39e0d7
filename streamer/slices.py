"""Columns of byte strings that stay in one buffer until somebody asks for one: keys and headers are asked for rarely.

Shape suffixes: M records of one batch, L bytes of each, B bytes of a buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from streamer.records import Headers, IntArray


@dataclass(frozen=True, slots=True)
class Slices(Sequence[bytes | None]):
    """M byte strings of one buffer.

    Attributes:
        start_M, end_M: Where each lies in the buffer; an end before the start says that there is none (null).
    """

    buffer: bytes
    start_M: IntArray
    end_M: IntArray

    def __len__(self) -> int:
        return len(self.start_M)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> Slices: ...
    def __getitem__(self, index: int | slice) -> bytes | Slices | None:
        if isinstance(index, slice):
            return Slices(self.buffer, self.start_M[index], self.end_M[index])
        start, end = int(self.start_M[index]), int(self.end_M[index])
        return self.buffer[start:end] if end >= start else None

    def __iter__(self) -> Iterator[bytes | None]:
        return iter(self.to_list())

    def digits(self, length: int) -> IntArray | None:
        """The numbers that they spell, None where one is not made of so many digits; M."""
        if ((self.end_M - self.start_M) != length).any():
            return None
        bytes_B = np.frombuffer(self.buffer, dtype=np.uint8)
        digit_MD = bytes_B[self.start_M[:, np.newaxis] + np.arange(length)] - np.uint8(ord("0"))
        if (digit_MD > 9).any():
            return None
        number_M: IntArray = digit_MD.astype(np.int64) @ (10 ** np.arange(length - 1, -1, -1, dtype=np.int64))
        return number_M

    def common(self) -> bytes | None:
        """The one byte string that all of them are, None if they differ or one is null."""
        length_M = self.end_M - self.start_M
        length = int(length_M[0])
        if length < 0 or (length_M != length).any():
            return None
        bytes_B = np.frombuffer(self.buffer, dtype=np.uint8)
        letters_ML = bytes_B[self.start_M[:, np.newaxis] + np.arange(length)]
        return bytes(letters_ML[0]) if (letters_ML == letters_ML[0]).all() else None

    @classmethod
    def join(cls, parts: Sequence[Slices]) -> Slices:
        """All of them, in order, in a new buffer that holds no more than they span."""
        pieces, starts, ends, size = [], [], [], 0
        for part in parts:
            begin = int(part.start_M.min())
            piece = memoryview(part.buffer)[begin : max(int(part.end_M.max()), begin)]
            starts.append(part.start_M + (size - begin))
            ends.append(part.end_M + (size - begin))
            pieces.append(piece)
            size += len(piece)
        return cls(b"".join(pieces), np.concatenate(starts), np.concatenate(ends))

    def take(self, index_P: IntArray) -> Slices:
        """Some of them."""
        return Slices(self.buffer, self.start_M[index_P], self.end_M[index_P])

    def to_list(self) -> list[bytes | None]:
        """All of them, cut out of the buffer."""
        buffer = self.buffer
        cut: list[bytes | None] = [
            buffer[start:end] for start, end in zip(self.start_M.tolist(), self.end_M.tolist(), strict=True)
        ]
        for index in (self.end_M < self.start_M).nonzero()[0].tolist():
            cut[index] = None
        return cut


@dataclass(slots=True)
class HeaderColumn(Sequence[Headers]):
    """The headers of M records, column by column: the first header of each, the second of each, ...

    Attributes:
        num_M: How many headers each record has.
        names: One entry a column: the name that all have in common, or M names (of no meaning where there is none).
        values: One entry a column.
    """

    num_M: IntArray
    names: tuple[str | list[str], ...]
    values: tuple[Slices, ...]
    _rows: list[Headers] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def join(cls, parts: Sequence[HeaderColumn]) -> HeaderColumn | None:
        """All of them, in order; None unless all records have the same headers."""
        names = parts[0].uniform_names()
        if names is None or any(part.uniform_names() != names for part in parts):
            return None
        columns = zip(*(part.values for part in parts), strict=True)
        num_M = np.concatenate([part.num_M for part in parts])
        return cls(num_M, names, tuple(Slices.join(column) for column in columns))

    def __len__(self) -> int:
        return len(self.num_M)

    def __iter__(self) -> Iterator[Headers]:
        if self._rows is None:  # who goes through them once does so again
            self._rows = self._to_rows()
        return iter(self._rows)

    def _to_rows(self) -> list[Headers]:
        names = self.uniform_names()
        if names is None:
            return [self[index] for index in range(len(self))]
        columns = [
            [(name, value) for value in values.to_list()]
            for name, values in zip(names, self.values, strict=True)
        ]
        return list(zip(*columns, strict=True))

    def uniform_names(self) -> tuple[str, ...] | None:
        """The names of the headers where all records have the same ones in the same order, else None."""
        names = tuple(name for name in self.names if isinstance(name, str))
        return names if len(names) == len(self.names) and bool((self.num_M == len(names)).all()) else None

    @overload
    def __getitem__(self, index: int) -> Headers: ...
    @overload
    def __getitem__(self, index: slice) -> HeaderColumn: ...
    def __getitem__(self, index: int | slice) -> Headers | HeaderColumn:
        if isinstance(index, slice):
            names = tuple(name if isinstance(name, str) else name[index] for name in self.names)
            return HeaderColumn(self.num_M[index], names, tuple(values[index] for values in self.values))
        return tuple(
            (name if isinstance(name, str) else name[index], values[index])
            for name, values in zip(self.names[: int(self.num_M[index])], self.values, strict=False)
        )

    def values_of(self, name: str) -> Slices | None:
        """The values of the first header of that name where all records have the same headers, else None."""
        names = self.uniform_names()
        return self.values[names.index(name)] if names is not None and name in names else None
