"""What the demo shows is text, whatever stands in it."""

from __future__ import annotations

import io

import pytest
from odd_names import ODD_NAMES
from rich.console import Console

from demo.story import Story
from demo.view import View


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_on_the_live_page_is_no_markup(name: str) -> None:
    screen = io.StringIO()
    story = Story()
    story.waiting = f"windows have other sensors: {name} here"
    with View(story, Console(file=screen, force_terminal=True, color_system=None, width=400)):
        pass
    assert story.waiting in screen.getvalue()
