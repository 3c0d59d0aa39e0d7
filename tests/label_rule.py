"""The rule of labels in plain Python, step by step: what the script DECIDE is held against.

Shape suffixes: T steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamer.schema import Label
from streamer.timeline import Grid
from streamer.windows import Verdict


def step_verdicts(labels: Sequence[Label], grid: Grid, start: int, length: int) -> npt.NDArray[np.int8]:
    """verdict_T: the newest `inspected_at` that covers a step wins, on a tie the defect; None withdraws."""
    verdict_T = np.full(length, Verdict.UNLABELLED, dtype=np.int8)
    # From the weakest to the strongest, so that the last one written wins.
    for label in sorted(labels, key=lambda each: (each.inspected_at, _verdict(each))):
        low = start if label.from_ts is None else max(start, grid.step(label.from_ts))
        high = start + length if label.to_ts is None else min(start + length, grid.step(label.to_ts) + 1)
        if low < high:
            verdict_T[low - start : high - start] = _verdict(label)
    return verdict_T


def _verdict(label: Label) -> Verdict:
    return Verdict.UNLABELLED if label.defect is None else Verdict(int(label.defect))


def decide(
    valid_T: npt.NDArray[np.bool_], verdict_T: npt.NDArray[np.int8], min_valid_ratio: float
) -> Verdict:
    """Defective if a valid step is, good if all of them are; unlabelled with too small a share of valid steps."""
    if not valid_T.any() or valid_T.mean() < min_valid_ratio:
        return Verdict.UNLABELLED
    seen = verdict_T[valid_T]
    if (seen == Verdict.DEFECTIVE).any():
        return Verdict.DEFECTIVE
    return Verdict.GOOD if (seen == Verdict.GOOD).all() else Verdict.UNLABELLED
