"""Records as they lie in the log, one by one and in columns. Bytes only: what they mean is the codec's.

Shape suffix: M records of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Headers = tuple[tuple[str, bytes | None], ...]


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it lies in the log; `timestamp_ms` is Kafka's own."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def source(self) -> Partition:
        """The partition that the record came from."""
        return Partition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive records of one partition, in columns: what costs time a record is not built a record.

    Attributes:
        offset_M: Ascending; it may have holes (compaction, aborted transactions).
        timestamp_M: Kafka's own, epoch ms.
        keys, values: M each.
        headers: M, or None where no record of the batch has any.
        num_producer_batches: How many requests of producers brought them, 0 where the client does not tell.
    """

    source: Partition
    offset_M: IntArray
    timestamp_M: IntArray
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers] | None = None
    num_producer_batches: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def next_offset(self) -> int:
        """The offset behind the last record."""
        return int(self.offset_M[-1]) + 1

    def record(self, index: int) -> Record:
        """One record of its own, for what is done to few: dead letters, odd formats."""
        return Record(
            topic=self.source.topic,
            partition=self.source.partition,
            offset=int(self.offset_M[index]),
            timestamp_ms=int(self.timestamp_M[index]),
            key=self.keys[index],
            value=self.values[index],
            headers=() if self.headers is None else self.headers[index],
        )

    def since(self, offset: int) -> RecordBatch:
        """The records from an offset on."""
        return self.cut(int(np.searchsorted(self.offset_M, offset)), len(self))

    def until(self, offset: int) -> RecordBatch:
        """The records before an offset."""
        return self.cut(0, int(np.searchsorted(self.offset_M, offset)))

    def cut(self, start: int, end: int) -> RecordBatch:
        """Some of the records, by their index; the producer batches are counted with the first of them."""
        if start == 0 and end >= len(self):
            return self
        return RecordBatch(
            source=self.source,
            offset_M=self.offset_M[start:end],
            timestamp_M=self.timestamp_M[start:end],
            keys=self.keys[start:end],
            values=self.values[start:end],
            headers=None if self.headers is None else self.headers[start:end],
            num_producer_batches=self.num_producer_batches if start == 0 else 0,
        )

    @classmethod
    def of(cls, records: Sequence[Record]) -> RecordBatch:
        """The columns of one or more records of one partition."""
        has_headers = any(record.headers for record in records)
        return cls(
            source=records[0].source,
            offset_M=np.array([record.offset for record in records], dtype=np.int64),
            timestamp_M=np.array([record.timestamp_ms for record in records], dtype=np.int64),
            keys=[record.key for record in records],
            values=[record.value for record in records],
            headers=[record.headers for record in records] if has_headers else None,
        )
