"""A model from its file, ready to score raw windows. The one module of the release side that needs torch.

Shapes: N windows, T steps, F sensors in the order of the manifest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from trainer.errors import ArtifactError, ModelInputError
from trainer.learn.config import ArchitectureConfig
from trainer.learn.model.network import SteelDefectLSTM
from trainer.learn.scores.evaluate import predict
from trainer.release.client.artifact import Artifact, Manifest


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

    def score(
        self,
        x_NTF: npt.NDArray[np.floating[Any]],
        mask_NT: npt.NDArray[np.bool_] | None = None,
        *,
        index_N: npt.NDArray[np.integer[Any]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Returns the probability of a defect for each window.

        Args:
            x_NTF: Raw values in the units of the manifest, NaN = missing.
            mask_NT: True = valid step; None = all are. A window shorter than the manifest's is padded at its
                end and masked there, as the streamer does; so are whole casts, to the longest of them.
            index_N: Which of the windows, in which order; None: all.

        Raises:
            ModelInputError: Shape or type do not fit; the message says what the model expects.
        """
        x_NTF = np.asarray(x_NTF)
        names = self.manifest.sensor_names
        steps = self.manifest.window.size_steps
        whole_casts = steps == "cast"
        if x_NTF.ndim != 3 or x_NTF.shape[2] != len(names) or not (whole_casts or x_NTF.shape[1] == steps):
            raise ModelInputError(
                f"expected windows [N, {steps}, {len(names)}] with sensors {', '.join(names)}, "
                f"got {list(x_NTF.shape)}"
            )
        if x_NTF.dtype.kind != "f":
            raise ModelInputError(f"expected floating point values, got {x_NTF.dtype}")
        values = x_NTF.astype(np.float32, copy=False)
        return predict(self._model, values, mask_NT, index_N=index_N, num_threads=self._num_threads)

    def is_defective(
        self, x_NTF: npt.NDArray[np.floating[Any]], mask_NT: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Whether the probability of each window reaches the threshold of the model."""
        return self.score(x_NTF, mask_NT) >= self.manifest.threshold


def _build(artifact: Artifact) -> SteelDefectLSTM:
    manifest = artifact.manifest
    architecture = _architecture(manifest)
    model = SteelDefectLSTM(architecture, len(manifest.sensors))
    try:
        model.load_state_dict({name: torch.tensor(tensor) for name, tensor in artifact.tensors.items()})
    except RuntimeError as exc:
        raise ArtifactError(
            f"{manifest.model_name} {manifest.version}: the tensors do not fit the architecture: {exc}"
        ) from exc
    return model


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
