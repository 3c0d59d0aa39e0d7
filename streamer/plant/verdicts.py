"""What inspection says of a cast: sometimes wrong, always late, sometimes twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamer.plant.regimes import KINDS, DefectKind
from streamer.schema import Label


@dataclass(frozen=True, slots=True)
class Truth:
    """What happened in a cast.

    Attributes:
        kind: What made defects, or None in a good cast.
        ranged: Whether it, or what inspection takes for it, is confined to ``steps``.
        steps: First and last step of the stretch.
        episodes: First and last step of each harmful episode; empty in a good cast.
    """

    kind: DefectKind | None
    ranged: bool
    steps: tuple[int, int]
    episodes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Inspector:
    """Gives the verdicts of a cast.

    A defect confined to a stretch is found at a second look: first a good verdict over the whole cast, then
    a newer one over the stretch. Half of the good casts are looked at twice as well, with the same delays,
    so that neither the number of verdicts nor their delay tells the outcome.

    Attributes:
        delay_s: Least and largest time from the end of a cast to its last verdict.
        noise: Share of casts whose last verdict is wrong.
    """

    delay_s: tuple[float, float]
    noise: float

    def inspect(
        self, rng: np.random.Generator, truth: Truth, cast_id: str, group: str, at_step: Sequence[int]
    ) -> tuple[Label, ...]:
        """The labels of one cast, oldest first.

        Args:
            rng: The cast's own generator.
            truth: What happened.
            cast_id: Whose labels they are.
            group: Its heat.
            at_step: The time of each step, epoch milliseconds.
        """
        defect = (truth.kind is not None) != (rng.random() < self.noise)
        kind = truth.kind or KINDS[rng.integers(len(KINDS))]
        early_ts, last_ts = self._times(rng, at_step[-1])
        early = (Label(cast_id, False, early_ts, group=group),) if truth.ranged else ()
        last = Label(cast_id, False, last_ts, group=group)
        if defect:
            last = replace(last, defect=True, defect_type=kind)
        if defect and truth.ranged:
            last = replace(last, from_ts=at_step[truth.steps[0]], to_ts=at_step[truth.steps[1]])
        return (*early, last)

    def _times(self, rng: np.random.Generator, end_ts: int) -> tuple[int, int]:
        """When the first and when the last look at a cast take place."""
        last_s = rng.uniform(*self.delay_s)
        early_s = rng.uniform(self.delay_s[0] / 2, last_s)
        last_ts = end_ts + round(last_s * 1000)
        return min(end_ts + round(early_s * 1000), last_ts - 1), last_ts
