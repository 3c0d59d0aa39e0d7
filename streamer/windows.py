"""Windows are addresses into the sealed rows of a cast, and labels decide them. No clock, no network.

Shape suffixes: T steps, F sensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from streamer.config import WindowsConfig
from streamer.schema import Label
from streamer.timeline import Grid


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
    padded window of a short cast, or the tail.

    Args:
        begin: Sealed edge up to which windows were given out before; first_step if none were.
        sealed: First step that is not final.
        ended: The cast is over, `sealed` is one behind its last step.
    """
    size, hop = spec.size_steps, spec.hop_steps
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


def step_verdicts(labels: Sequence[Label], grid: Grid, start: int, length: int) -> npt.NDArray[np.int8]:
    """The verdict of each step: the newest `inspected_at` that covers it wins, on a tie the defect.

    Returns:
        verdict_T of `Verdict` values; a withdrawn verdict (`defect` None) leaves a step unlabelled.
    """
    verdict_T = np.full(length, Verdict.UNLABELLED, dtype=np.int8)
    # Applied from the weakest to the strongest, so that the last one written wins.
    for label in sorted(labels, key=_strength):
        low = start if label.from_ts is None else max(start, grid.step(label.from_ts))
        high = start + length if label.to_ts is None else min(start + length, grid.step(label.to_ts) + 1)
        if low < high:
            verdict = Verdict.UNLABELLED if label.defect is None else Verdict(int(label.defect))
            verdict_T[low - start : high - start] = verdict
    return verdict_T


def _strength(label: Label) -> tuple[int, int]:
    return label.inspected_at, -1 if label.defect is None else int(label.defect)


def valid_steps(x_TF: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """valid_T: the steps at which at least one sensor said something."""
    return np.asarray(~np.isnan(x_TF).all(axis=1), dtype=np.bool_)


def decide(
    valid_T: npt.NDArray[np.bool_], verdict_T: npt.NDArray[np.int8], min_valid_ratio: float
) -> Verdict:
    """The label of a window: defective if a valid step is, good if all of them are labelled good.

    A window with too small a share of valid steps is not a training window: unlabelled.
    """
    if not valid_T.any() or valid_T.mean() < min_valid_ratio:
        return Verdict.UNLABELLED
    seen = verdict_T[valid_T]
    if (seen == Verdict.DEFECTIVE).any():
        return Verdict.DEFECTIVE
    return Verdict.GOOD if (seen == Verdict.GOOD).all() else Verdict.UNLABELLED
