"""Records that cannot be used: kept with a reason and their origin, listed, and sent again."""

from __future__ import annotations

from streamer.dead_letters.letter import DeadLetter, Origin
from streamer.dead_letters.reading import LetterReader
from streamer.dead_letters.replay import Outcome, Replayer
from streamer.dead_letters.writer import DeadLetters

__all__ = ["DeadLetter", "DeadLetters", "LetterReader", "Origin", "Outcome", "Replayer"]
