"""Reads the Lua scripts that lie beside the Python which calls them."""

from __future__ import annotations

from importlib.resources import files


def read_script(package: str, *names: str) -> str:
    """The source of a script: the `.lua` files of a package in this order, one after the other.

    What several scripts share are local functions in a file of their own, which is named first.
    """
    folder = files(package)
    return "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names)
