"""Byte strings that stay in one buffer."""

from __future__ import annotations

import numpy as np
import pytest
from columns import slices_of
from hypothesis import given
from hypothesis import strategies as st

from streamer.slices import MAX_GAP_SPREAD

word = st.binary(min_size=1, max_size=30).filter(
    lambda value: b"\n" not in value and value == value.strip(b" ")
)


@given(
    st.lists(word, min_size=1, max_size=200), st.lists(st.integers(1, MAX_GAP_SPREAD), min_size=1, max_size=5)
)
def test_lines_are_the_strings_without_what_lay_between(words: list[bytes], gaps: list[int]) -> None:
    slices = slices_of(words, gaps)
    lines = slices.lines()
    assert lines is not None
    assert [line.strip(b" ") for line in lines.tobytes().split(b"\n")] == words
    assert slices.to_list() == words  # the buffer itself stays as it was


def test_a_gap_between_two_producer_batches_may_be_long() -> None:
    lines = slices_of([b"ab"] * 200, [5] * 100 + [80] + [5] * 99).lines()
    assert lines is not None
    assert lines.tobytes().split() == [b"ab"] * 200


@pytest.mark.parametrize("odd", [None, b"", b"a\nb"])
def test_there_are_no_lines_with_an_odd_one_among_them(odd: bytes | None) -> None:
    assert slices_of([b"a", odd, b"b"]).lines() is None


def test_there_are_no_lines_where_the_gaps_are_of_every_length() -> None:
    assert slices_of([b"a"] * 300, range(5, 300)).lines() is None


def test_some_of_them_in_any_order() -> None:
    assert slices_of([b"a", None, b"c"]).take(np.array([2, 1])).to_list() == [b"c", None]
    assert slices_of([b"a", b"b"]).take(np.array([1, 0])).lines() is None


@pytest.mark.parametrize(
    ("words", "common"),
    [
        ([b"json"] * 3, b"json"),
        ([b""] * 2, b""),
        ([b"json", b"jsun"], None),
        ([b"json", b"jso"], None),
        ([b"json", None], None),
        ([None, None], None),
    ],
)
def test_the_one_that_all_of_them_are(words: list[bytes | None], common: bytes | None) -> None:
    assert slices_of(words).common() == common
