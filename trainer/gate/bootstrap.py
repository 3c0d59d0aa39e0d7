"""Resamples casts, and works out the average precision of each resample.

AUC-PR is the average precision, as in scikit-learn: the sum over thresholds of the gain in recall times the
precision there.

Windows of one cast resemble each other, so casts are resampled and bring all their windows along (cluster
bootstrap: Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007). Defective and good casts are
resampled apart, each in its own number (stratified: Davison and Hinkley, "Bootstrap Methods and their
Application", 1997, section 3.2; pROC does so by default, Robin et al., BMC Bioinformatics 12:77, 2011).
Without the strata some resamples of a small gate part hold no defect, so that AUC-PR has no value; redrawing
those would condition on the draw in a way that is hard to state. The price: the interval leaves out how much
the share of defective casts itself varies, which is the same for both models.

Shape suffixes: N windows, C casts, R resamples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Smaller: more passes. Larger: memory, at four float64 a value, and slower: a pass no longer fits into a cache.
_MAX_VALUES_AT_ONCE = 250_000


def resample_casts(defective_C: BoolArray, num_resamples: int, rng: np.random.Generator) -> IntArray:
    """Draws how often each cast is in each resample, defective and good casts apart: (R, C)."""
    weights_RC = np.zeros((num_resamples, len(defective_C)), dtype=np.int64)
    for stratum_C in (defective_C, ~defective_C):
        size = int(stratum_C.sum())
        if size:
            weights_RC[:, stratum_C] = rng.multinomial(size, np.full(size, 1 / size), size=num_resamples)
    return weights_RC


def average_precisions(
    y_N: BoolArray, score_N: FloatArray, weights_RC: IntArray, index_N: IntArray
) -> FloatArray:
    """Computes the average precision of each resample: (R,).

    The windows are sorted once; a resample only changes how much each of them weighs.

    Args:
        weights_RC: How often a resample holds each cast; it must hold a defective window.
        index_N: The cast of each window, as a column of `weights_RC`.
    """
    order_N = np.argsort(-score_N, kind="stable")
    sorted_N = score_N[order_N]
    # Windows of equal score share one threshold.
    ends = np.append(np.flatnonzero(np.diff(sorted_N)), len(sorted_N) - 1)
    chunk = max(1, _MAX_VALUES_AT_ONCE // len(y_N))
    parts = []
    for start in range(0, len(weights_RC), chunk):
        weights_RN = weights_RC[start : start + chunk][:, index_N[order_N]].astype(np.float64)
        flagged = np.cumsum(weights_RN, axis=1)[:, ends]
        found = np.cumsum(weights_RN * y_N[order_N], axis=1)[:, ends]
        precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
        parts.append((np.diff(found, axis=1, prepend=0) * precision).sum(axis=1) / found[:, -1])
    return np.concatenate(parts)


def base_rates(y_N: BoolArray, weights_RC: IntArray, index_N: IntArray) -> FloatArray:
    """Computes the share of defective windows of each resample: (R,)."""
    num_casts = weights_RC.shape[1]
    windows_C = np.bincount(index_N, minlength=num_casts)
    defects_C = np.bincount(index_N, weights=y_N, minlength=num_casts)
    return np.asarray((weights_RC @ defects_C) / (weights_RC @ windows_C), dtype=np.float64)
