"""Streams that overlap come out as one, and none is opened before its time."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from streamer.plant.merge import merge_by_time


@given(st.lists(st.lists(st.integers(0, 50), max_size=8), max_size=8))
def test_the_merge_is_the_sorted_whole(streams: list[list[int]]) -> None:
    started = sorted((min(items, default=0), sorted(items)) for items in streams)
    merged = list(merge_by_time(((start, iter(items)) for start, items in started), lambda item: item))
    assert merged == sorted(item for items in streams for item in items)


def test_a_tie_goes_to_the_stream_given_first() -> None:
    streams = [(0, iter([(0, "a"), (5, "a")])), (5, iter([(5, "b")]))]
    assert list(merge_by_time(streams, lambda item: item[0])) == [(0, "a"), (5, "a"), (5, "b")]


def test_a_stream_is_taken_only_when_its_time_has_come() -> None:
    taken = []

    def streams() -> Iterator[tuple[int, Iterator[int]]]:
        for start in (0, 10, 20):
            taken.append(start)
            yield start, iter([start, start + 1])

    merged = merge_by_time(streams(), lambda item: item)
    assert next(merged) == 0
    assert taken == [0, 10]
