"""Windows are addresses into the sealed rows of a cast. No clock, no network.

What labels say of them is decided inside Redis, by the script DECIDE.

Shape suffixes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby

import numpy as np
import numpy.typing as npt

from streamer.config import WindowsConfig
from streamer.schema import Label
from streamer.timeline import Grid

# (inspected_at, verdict, from_ts, to_ts) of a label that wins somewhere.
LabelRevision = tuple[int, int, int | None, int | None]


class Verdict(IntEnum):
    """What inspection says of a step or a window."""

    UNLABELLED = -1
    GOOD = 0
    DEFECTIVE = 1


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a window lies: `length` steps of a cast from `start` on, on the absolute grid."""

    cast_id: str
    start: int
    length: int

    @property
    def end(self) -> int:
        """First step behind the window."""
        return self.start + self.length

    def __str__(self) -> str:
        return f"{self.cast_id}/{self.start}/{self.length}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """The inverse of `str`.

        Raises:
            ValueError: It is not an address.
        """
        cast_id, start, length = text.rsplit("/", 2)
        return cls(cast_id, int(start), int(length))


def windows_between(
    spec: WindowsConfig, cast_id: str, *, first_step: int, begin: int, sealed: int, ended: bool
) -> Iterator[Address]:
    """The windows that became final while the sealed edge went from `begin` to `sealed`.

    A window starts at first_step + k * hop and is final once its end is sealed. The end of the cast adds the
    padded window of a short cast, or the tail. The one window of a spec of whole casts is final with the cast.

    Args:
        begin: Sealed edge up to which windows were given out before; first_step if none were.
        sealed: First step that is not final.
        ended: The cast is over, `sealed` is one behind its last step.
    """
    size, hop = spec.size_steps, spec.hop_steps
    if size == "cast":
        if ended and sealed > first_step:
            yield Address(cast_id, first_step, sealed - first_step)
        return
    # The smallest k whose end first + k * hop + size lies behind `begin`.
    k = max(0, -((first_step + size - begin - 1) // hop))
    while first_step + k * hop + size <= sealed:
        yield Address(cast_id, first_step + k * hop, size)
        k += 1
    if not ended or sealed <= first_step:
        return
    if sealed - first_step < size:
        if spec.short_casts == "pad":
            yield Address(cast_id, first_step, sealed - first_step)
    elif spec.tail == "align_end" and (sealed - first_step - size) % hop:
        yield Address(cast_id, sealed - size, size)


def winning_labels(
    labels: Sequence[Label], grid: Grid, span: tuple[int, int] | None = None
) -> list[LabelRevision]:
    """The label revision: what decides at least one step, whatever was said besides and in whatever order.

    Args:
        span: Steps that count, the first and the one behind the last; None: all there could be.

    Returns:
        (inspected_at, verdict, from_ts, to_ts), sorted; several that agree on a step all decide it.
    """
    low, high = span or (-math.inf, math.inf)
    found: set[LabelRevision] = set()
    free = [(low, high)]
    # From the strongest on: each takes what is left of its steps.
    for _, equals in groupby(sorted(labels, key=_strength, reverse=True), key=_strength):
        ranges = [(_steps(label, grid), label) for label in equals]
        for (begin, end), label in ranges:
            if any(max(begin, left) < min(end, right) for left, right in free):
                found.add((label.inspected_at, int(_verdict(label)), label.from_ts, label.to_ts))
        for begin, end in (steps for steps, _ in ranges):
            free = [rest for gap in free for rest in _without(gap, begin, end)]
    return sorted(found, key=lambda each: tuple((part is not None, part) for part in each))


def _steps(label: Label, grid: Grid) -> tuple[float, float]:
    """The steps that a label covers, the first and the one behind the last."""
    begin = -math.inf if label.from_ts is None else grid.step(label.from_ts)
    return begin, math.inf if label.to_ts is None else grid.step(label.to_ts) + 1


def _without(gap: tuple[float, float], begin: float, end: float) -> list[tuple[float, float]]:
    parts = (gap[0], min(gap[1], begin)), (max(gap[0], end), gap[1])
    return [(low, high) for low, high in parts if low < high] if begin < end else [gap]


def _verdict(label: Label) -> Verdict:
    return Verdict.UNLABELLED if label.defect is None else Verdict(int(label.defect))


def _strength(label: Label) -> tuple[int, int]:
    """The newest inspection wins, on a tie the defect."""
    return label.inspected_at, int(_verdict(label))


def valid_steps(x_TF: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """valid_T: the steps at which at least one sensor said something; of x_NTF, valid_NT."""
    return np.asarray(~np.isnan(x_TF).all(axis=-1), dtype=np.bool_)
