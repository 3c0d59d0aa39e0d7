"""Text of strangers on a terminal: nothing in it may move a cursor, colour a line or run a command."""

from __future__ import annotations


def printable(text: str, *, keep_lines: bool = False) -> str:
    """The text with every character that does not print as an escape; line ends stay if asked for.

    That takes in control characters, direction marks and lone surrogates.
    """
    return "".join(
        char if char.isprintable() or (keep_lines and char == "\n") else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def shown(value: bytes | None, *, keep_lines: bool = False) -> str:
    """Bytes as printable text, or as hexadecimal digits where they are no UTF-8."""
    if value is None:
        return "null"
    try:
        return printable(value.decode(), keep_lines=keep_lines)
    except UnicodeDecodeError:
        return "0x" + value.hex()
