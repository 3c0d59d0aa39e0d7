"""A way of keeping a model fresh, and what it costs.

Shape suffixes: N windows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from benchmarks.continual.campaign import Known
from benchmarks.labelled import Ints
from trainer.learn.scores.evaluate import Probabilities


@dataclass(slots=True)
class Cost:
    """What the trainings of a method took, and what became of them.

    Attributes:
        seconds: Of fitting, by the clock on the wall.
        cpu_seconds: The same of all threads of this process.
        published: Models that went into use.
        refused: Models that were trained and did not.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    published: int = 0
    refused: int = 0

    @contextmanager
    def clocked(self) -> Iterator[None]:
        """Adds what the block takes."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - wall
            self.cpu_seconds += time.process_time() - cpu


class Method(Protocol):
    """Learns from what is labelled, then scores what comes next."""

    @property
    def cost(self) -> Cost:
        """So far."""
        ...

    def update(self, known: Known) -> str:
        """Learns from what is labelled; what it did, for people."""
        ...

    def score(self, index_N: Ints) -> Probabilities | None:
        """prob_N of windows of the campaign; None as long as there is no model."""
        ...
