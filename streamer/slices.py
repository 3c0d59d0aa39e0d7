"""Columns of byte strings that stay in one buffer until somebody asks for one: keys and headers are asked for rarely.

Shape suffix: M records of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

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

    def to_list(self) -> list[bytes | None]:
        """All of them, cut out of the buffer."""
        buffer = self.buffer
        cut: list[bytes | None] = [
            buffer[start:end] for start, end in zip(self.start_M.tolist(), self.end_M.tolist(), strict=True)
        ]
        for index in (self.end_M < self.start_M).nonzero()[0].tolist():
            cut[index] = None
        return cut


@dataclass(frozen=True, slots=True)
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

    def __len__(self) -> int:
        return len(self.num_M)

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

    def values_of(self, name: str) -> list[bytes | None] | None:
        """The values of the header that each record has and no other, None where it is not so simple."""
        if self.names == (name,) and bool((self.num_M == 1).all()):
            return self.values[0].to_list()
        return None


def header_values(headers: Sequence[Headers], name: str) -> list[bytes | None]:
    """The value of the first header of that name in each record; None where it has none or a null one."""
    if isinstance(headers, HeaderColumn) and (values := headers.values_of(name)) is not None:
        return values
    return [next((value for key, value in record if key == name), None) for record in headers]
