"""Byte strings that stay in one buffer."""

from __future__ import annotations

import numpy as np
import pytest
from columns import slices_of


def test_some_of_them_in_any_order() -> None:
    assert slices_of([b"a", None, b"c"]).take(np.array([2, 1])).to_list() == [b"c", None]


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
