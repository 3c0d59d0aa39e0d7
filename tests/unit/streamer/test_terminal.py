"""What strangers send may be shown on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.terminal import printable, shown


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("gießen 1,5 °C", "gießen 1,5 °C"),
        ("\x1b[31mred", "\\x1b[31mred"),  # colours, cursor, title
        ("a\rb\x08c\x00", "a\\rb\\x08c\\x00"),
        ("\x9b2J", "\\x9b2J"),  # the one-byte form of ESC [
        ("\u202egnp", "\\u202egnp"),  # writes backwards from here on
        ("a\nb", "a\\nb"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_does_not_print_is_an_escape(text: str, safe: str) -> None:
    assert printable(text) == safe


@given(st.text())
def test_nothing_that_is_shown_moves_the_cursor(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text, keep_lines=True).replace("\n", "").isprintable()


def test_bytes_are_shown_as_text_or_as_digits() -> None:
    assert shown(b'{"a": 1}') == '{"a": 1}'
    assert shown(b"\xff\x1b") == "0xff1b"
    assert shown(None) == "null"
    assert shown(b"a\nb\x07", keep_lines=True) == "a\nb\\x07"
