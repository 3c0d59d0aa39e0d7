"""A model from its file, ready to score raw windows. The one module of the release side that needs torch.

Shapes: N windows, T steps, F sensors in the order of the manifest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from pydantic import ValidationError

from streamer.columns import FloatArray
from streamer.sensors import listed
from streamer.windows import valid_steps
from trainer.errors import ArtifactError, ModelInputError
from trainer.learn.config import ArchitectureConfig
from trainer.learn.ensemble.defect_model import DefectModel
from trainer.release.client.artifact import Artifact, Manifest

log = structlog.get_logger(__name__)


class Scorer:
    """Scores raw sensor values with one model; normalisation is part of the model.

    Args:
        artifact: The model file as read.
        num_threads: Of torch, in the calling thread.

    Raises:
        ArtifactError: Its tensors do not fit its architecture.
    """

    def __init__(self, artifact: Artifact, *, num_threads: int = 1) -> None:
        self.manifest = artifact.manifest
        self._num_threads = num_threads
        self._model = _build(artifact)
        if not artifact.has_manifest_digest:
            log.warning(
                "no digest over the manifest",
                model=self.manifest.model_name,
                version=self.manifest.version,
                why="the file is from before there was one: changed thresholds or sensors would go unseen",
            )

    def score(
        self,
        x_NTF: npt.NDArray[np.floating[Any]],
        mask_NT: npt.NDArray[np.bool_] | None = None,
        *,
        length_N: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.float64]:
        """Returns the probability of a defect for each window, NaN for one that says too little.

        That is one with fewer valid steps than `min_valid_ratio` of its length: the streamer lets none such
        through to training.

        Args:
            x_NTF: Raw values in the units of the manifest, NaN = missing. A window shorter than the manifest's
                is padded at its end; so are whole casts, to the longest of them.
            mask_NT: True = valid step; None = those at which a sensor says something, as in training.
            length_N: Steps that each window has before its padding; None = all T, or for a model of whole casts
                up to its last valid step.

        Raises:
            ModelInputError: Shape or type do not fit; the message says what the model expects.
        """
        values = self._checked(x_NTF)
        valid_NT, length_N = self._valid(values, mask_NT, length_N)
        prob_N = self._model.probabilities(values, valid_NT, num_threads=self._num_threads)
        prob_N[~self._says_enough(valid_NT, length_N)] = np.nan
        return prob_N

    def probabilities(
        self,
        x_NTF: npt.NDArray[np.floating[Any]],
        mask_NT: npt.NDArray[np.bool_] | None = None,
        *,
        index_N: npt.NDArray[np.integer[Any]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """As `score`, however little a window says: for windows that were let through by another rule.

        Args:
            x_NTF: As of `score`.
            mask_NT: As of `score`.
            index_N: Which of the windows, in which order; None: all.
        """
        values = self._checked(x_NTF)
        valid_NT = valid_steps(values) if mask_NT is None else mask_NT
        return self._model.probabilities(values, valid_NT, index_N=index_N, num_threads=self._num_threads)

    def is_defective(
        self,
        x_NTF: npt.NDArray[np.floating[Any]],
        mask_NT: npt.NDArray[np.bool_] | None = None,
        *,
        length_N: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Whether the probability of each window reaches the threshold of the model; arguments of `score`.

        Raises:
            ModelInputError: As `score`, or a window says too little to be called either.
        """
        prob_N = self.score(x_NTF, mask_NT, length_N=length_N)
        unknown = np.flatnonzero(np.isnan(prob_N))
        if len(unknown):
            raise ModelInputError(
                f"windows {_listed(unknown)} have valid steps at less than {self.manifest.window.min_valid_ratio} "
                "of their length (min_valid_ratio of the model): neither defective nor good; leave out the windows "
                "whose score is NaN"
            )
        return prob_N >= self.manifest.threshold

    def _checked(self, x_NTF: npt.NDArray[np.floating[Any]]) -> FloatArray:
        x_NTF = np.asarray(x_NTF)
        names = self.manifest.sensor_names
        steps = self.manifest.window.size_steps
        fits = steps in ("cast", x_NTF.shape[1]) if x_NTF.ndim == 3 else False
        if not fits or x_NTF.shape[2] != len(names):
            raise ModelInputError(
                f"expected windows [N, {steps}, {len(names)}] with sensors {listed(names)}, "
                f"got {list(x_NTF.shape)}"
            )
        if x_NTF.dtype.kind != "f":
            raise ModelInputError(f"expected floating point values, got {x_NTF.dtype}")
        return x_NTF.astype(np.float32, copy=False)

    def _valid(
        self, values: FloatArray, mask_NT: npt.NDArray[np.bool_] | None, length_N: npt.ArrayLike | None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Which steps count, none of them behind the end of its window, and how many steps each window has."""
        valid_NT = valid_steps(values) if mask_NT is None else _checked_mask(mask_NT, values.shape[:2])
        num_steps = values.shape[1]
        if length_N is not None:
            lengths_N = _checked_lengths(length_N, len(values), num_steps)
            return valid_NT & (np.arange(num_steps) < lengths_N[:, None]), lengths_N
        if self.manifest.window.size_steps == "cast":
            return valid_NT, (valid_NT * np.arange(1, num_steps + 1)).max(axis=1, initial=0)
        return valid_NT, np.full(len(values), num_steps)

    def _says_enough(
        self, valid_NT: npt.NDArray[np.bool_], length_N: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        # As the script DECIDE has it (streamer/store/scripts.py).
        num_valid_N = valid_NT.sum(axis=1)
        ratio_N = num_valid_N / np.maximum(length_N, 1)
        enough_N = (num_valid_N > 0) & (ratio_N >= self.manifest.window.min_valid_ratio)
        return np.asarray(enough_N, dtype=np.bool_)


def _checked_mask(mask_NT: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    mask_NT = np.asarray(mask_NT)
    if mask_NT.dtype != np.bool_ or mask_NT.shape != shape:
        raise ModelInputError(
            f"expected a bool mask {list(shape)}, got {mask_NT.dtype} {list(mask_NT.shape)}"
        )
    return mask_NT


def _checked_lengths(length_N: npt.ArrayLike, num_windows: int, num_steps: int) -> npt.NDArray[np.int64]:
    given_N = np.asarray(length_N)
    fits = given_N.shape == (num_windows,) and (given_N.dtype.kind in "iu" or not num_windows)
    if not fits or ((given_N < 0) | (given_N > num_steps)).any():
        raise ModelInputError(f"expected {num_windows} lengths of 0 to {num_steps} steps, got {given_N}")
    return given_N.astype(np.int64)


def _listed(numbers: npt.NDArray[np.intp], most: int = 10) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown if len(numbers) <= most else f"{shown} and {len(numbers) - most} more"


def _build(artifact: Artifact) -> DefectModel:
    manifest = artifact.manifest
    architecture = _architecture(manifest)
    try:
        return DefectModel.from_tensors(artifact.tensors, architecture, len(manifest.sensors))
    except ArtifactError as exc:
        raise ArtifactError(f"{manifest.model_name} {manifest.version}: {exc}") from exc


def _architecture(manifest: Manifest) -> ArchitectureConfig:
    # A default that came after the model was trained would score it otherwise than the trainer did.
    written = {name for name, field in ArchitectureConfig.model_fields.items() if not field.exclude}
    missing = sorted(written - set(manifest.architecture))
    if missing:
        raise ArtifactError(
            f"{manifest.model_name} {manifest.version}: its architecture does not say {', '.join(missing)}: "
            "the model is older than this scorer; publish a newly trained one"
        )
    try:
        return ArchitectureConfig(**manifest.architecture)
    except ValidationError as exc:
        raise ArtifactError(f"{manifest.model_name} {manifest.version}: architecture: {exc}") from exc
