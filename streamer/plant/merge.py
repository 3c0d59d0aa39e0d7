"""Merges streams that start one after another and overlap, holding only those that run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush, heapreplace
from typing import TypeVar

T = TypeVar("T")


def merge_by_time(streams: Iterable[tuple[int, Iterator[T]]], time_of: Callable[[T], int]) -> Iterator[T]:
    """Yields the items of all streams in time order; on a tie the stream that was given first goes first.

    A stream is taken from ``streams`` only when time has come to its start, so as many are held as overlap.

    Args:
        streams: Start and items of each; starts do not decrease, items are in time order, none is before
            its stream's start.
        time_of: The time of an item.
    """
    waiting = iter(streams)
    coming = next(waiting, None)
    heap: list[tuple[int, int, T, Iterator[T]]] = []
    order = 0
    while heap or coming is not None:
        while coming is not None and (not heap or coming[0] <= heap[0][0]):
            for item in coming[1]:
                heappush(heap, (time_of(item), order, item, coming[1]))
                break
            order += 1
            coming = next(waiting, None)
        if not heap:
            continue
        _, rank, item, stream = heap[0]
        yield item
        for item in stream:
            heapreplace(heap, (time_of(item), rank, item, stream))
            break
        else:
            heappop(heap)
