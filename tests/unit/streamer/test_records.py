"""Batches are cut by index and by offset, over holes in the log."""

from __future__ import annotations

import pytest

from streamer.records import Record, RecordBatch

OFFSETS = (3, 4, 7, 9)


@pytest.fixture(params=[(), (("sent-at", b"1"),)], ids=["no headers", "headers"])
def batch(request: pytest.FixtureRequest) -> RecordBatch:
    batch = RecordBatch.of([Record("t", 1, n, n, b"k%d" % n, b"v%d" % n, request.param) for n in OFFSETS])
    return RecordBatch(
        batch.source, batch.offset_M, batch.timestamp_M, batch.keys, batch.values, batch.headers, 2
    )


def records(batch: RecordBatch) -> list[Record]:
    return [batch.record(index) for index in range(len(batch))]


@pytest.mark.parametrize("offset", [0, 3, 4, 5, 7, 9, 10, 99])
def test_since_and_until_share_a_batch(batch: RecordBatch, offset: int) -> None:
    before, behind = batch.until(offset), batch.since(offset)
    assert [record.offset for record in records(before)] == [n for n in OFFSETS if n < offset]
    assert records(before) + records(behind) == records(batch)
    assert (before.headers is None, behind.headers is None) == (batch.headers is None,) * 2


def test_producer_batches_are_counted_with_the_first_record(batch: RecordBatch) -> None:
    parts = [batch.cut(0, 1), batch.cut(1, 3), batch.cut(3, 99)]
    assert [part.num_producer_batches for part in parts] == [2, 0, 0]
    assert batch.until(7).num_producer_batches == batch.since(0).num_producer_batches == 2
    assert batch.cut(0, 4) is batch
