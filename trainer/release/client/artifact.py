"""The model file: one safetensors file that holds the weights and all that a scorer needs.

All metadata is one JSON string under one key, because safetensors writes several keys in a different order on
each save; so the same tensors and manifest always give the same bytes. Nothing is ever unpickled, and torch
is not needed to read one. Two digests, that of the tensors inside the manifest and that of the manifest, cover all
that a scorer goes by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, computed_field
from safetensors import SafetensorError

from streamer.config import SensorConfig, WindowsConfig
from trainer.errors import ArtifactError
from trainer.release.client.inputs import ModelInputs
from trainer.release.client.manifest_digest import check_digest, json_with_digest

# 2: several members and a calibration. Manifests of 1 can be read; their tensors cannot be scored any more.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
METADATA_KEY = "castloop"
CONTENT_TYPE = "application/vnd.safetensors"
# Smaller: plants with thousands of sensors do not fit. Larger: a foreign file costs more to refuse.
MAX_HEADER_BYTES = 1024 * 1024
# Smaller: a model that ranks as well as a baseline is called behind by chance. Larger: losing goes unsaid.
BASELINE_MARGIN = 0.01

Tensors = dict[str, npt.NDArray[Any]]


class _Frozen(BaseModel):
    # Unknown keys are let through: what a scorer must understand raises FORMAT_VERSION instead.
    model_config = ConfigDict(frozen=True, extra="ignore")


class DatasetInfo(_Frozen):
    """The frozen data set that the model was trained on, gate part included."""

    id: str
    num_windows: int = Field(ge=0)
    num_defects: int = Field(ge=0)


class Manifest(_Frozen):
    """What a model is, what it wants as input, and where it comes from.

    Attributes:
        parent: The version it was fine-tuned from; None for a model from scratch.
        cycle: The cycle that trained it; None in a model from before.
        architecture: Fields of the trainer's architecture section.
        members: What each member counts in a score; they sum to 1. Empty in a model from before there were several.
        sensors: In column order.
        threshold: Probability from which a window is called defective.
        scores: On the gate windows, such as `auc_roc` and `auc_pr`: of the model that had not learned them, at its
            own threshold.
        baselines: Scores there of simple models that were fitted to the same windows as that one: `auc_roc`, `auc_pr`
            and `f1` by name. Empty in a model from before they were fitted.
        weights_sha256: Digest of the tensors; `write_artifact` fills it in.
    """

    format_version: int = FORMAT_VERSION
    model_name: str
    version: int = Field(ge=1)
    parent: int | None = Field(None, ge=1)
    cycle: int | None = Field(None, ge=1)
    created_at: AwareDatetime
    architecture: dict[str, Any]
    members: dict[str, FiniteFloat] = {}
    sensors: tuple[SensorConfig, ...] = Field(min_length=1)
    period_ms: int = Field(ge=1)
    grid_phase_ms: int = Field(0, ge=0)
    window: WindowsConfig
    threshold: float = Field(ge=0, le=1)
    dataset: DatasetInfo
    scores: dict[str, FiniteFloat] = {}
    baselines: dict[str, dict[str, FiniteFloat]] = {}
    weights_sha256: str = ""

    @property
    def sensor_names(self) -> tuple[str, ...]:
        """Names in column order."""
        return tuple(sensor.name for sensor in self.sensors)

    @property
    def inputs(self) -> ModelInputs:
        """What it wants as input."""
        return ModelInputs(self.sensors, self.period_ms, self.window.size_steps)

    @property
    def better_baseline(self) -> str | None:
        """The baseline with the highest AUC-ROC, of those that have one."""
        ranked = {name: each["auc_roc"] for name, each in self.baselines.items() if "auc_roc" in each}
        return max(ranked, key=lambda name: ranked[name], default=None)

    @computed_field  # type: ignore[prop-decorator]  # mypy takes no decorator above a property
    @property
    def baseline_gap(self) -> float | None:
        """AUC-ROC of the model less that of the better baseline, on the gate windows; above 0 the model is ahead.

        None if either is not known.
        """
        name, auc_roc = self.better_baseline, self.scores.get("auc_roc")
        return None if name is None or auc_roc is None else auc_roc - self.baselines[name]["auc_roc"]

    @property
    def is_behind(self) -> bool:
        """Whether a baseline ranks the gate windows better, by more than `BASELINE_MARGIN`."""
        return self.baseline_gap is not None and self.baseline_gap < -BASELINE_MARGIN


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A model as it was read from its file; the tensors may be read-only views of it.

    Attributes:
        has_manifest_digest: A digest covers the manifest as well; False for a file from before there was one, in
            which a changed threshold or sensor would go unseen.
    """

    manifest: Manifest
    tensors: Tensors
    has_manifest_digest: bool = True


def write_artifact(tensors: Mapping[str, npt.NDArray[Any]], manifest: Manifest) -> bytes:
    """Returns the model file; the same input gives the same bytes.

    Raises:
        ArtifactError: There is no tensor, one is not finite or of a type that safetensors lacks, or the
            header would be larger than a reader takes.
    """
    dense = {name: np.array(tensors[name], order="C") for name in tensors}
    _require_finite(dense)
    filled = manifest.model_copy(update={"weights_sha256": _digest(dense)})
    try:
        data = safetensors.numpy.save(dense, metadata={METADATA_KEY: manifest_json(filled)})
    except (SafetensorError, TypeError, ValueError, KeyError) as exc:
        raise ArtifactError(f"cannot write the model file: {exc}") from exc
    read_artifact(data)
    return data


def read_artifact(data: bytes) -> Artifact:
    """Reads and checks a model file.

    Raises:
        ArtifactError: It is truncated, not ours, of another format version, or a digest does not match.
    """
    manifest, has_manifest_digest = check_manifest(_read_fields(data))
    try:
        tensors = safetensors.numpy.load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as exc:
        raise ArtifactError(f"model file: the tensors cannot be read: {exc}") from exc
    _require_finite(tensors)
    digest = _digest(tensors)
    if digest != manifest.weights_sha256:
        raise ArtifactError(
            f"model file: the digest of the tensors is {digest[:12]}, the manifest says "
            f"{manifest.weights_sha256[:12]}: the file was changed or damaged"
        )
    return Artifact(manifest, tensors, has_manifest_digest)


def manifest_json(manifest: Manifest) -> str:
    """The manifest as JSON, with its digest: the same manifest gives the same string."""
    return json_with_digest(manifest.model_dump(mode="json"))


def check_manifest(fields: Mapping[str, Any]) -> tuple[Manifest, bool]:
    """Checks a manifest that was parsed from JSON.

    Returns:
        The manifest, and whether a digest covers it.

    Raises:
        ArtifactError: It is of another format version, its digest does not match, or a field is missing.
    """
    if fields.get("format_version") not in READABLE_VERSIONS:
        raise ArtifactError(
            f"format version {fields.get('format_version')!r}, this reader knows up to {FORMAT_VERSION}; update the "
            "reader"
        )
    has_manifest_digest = check_digest(fields, {*Manifest.model_fields, *Manifest.model_computed_fields})
    try:
        return Manifest.model_validate(fields), has_manifest_digest
    except ValidationError as exc:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        raise ArtifactError(f"manifest: {faults}") from exc


def _read_fields(data: bytes) -> dict[str, Any]:
    metadata = _read_header(data).get("__metadata__")
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ArtifactError(f"model file: no {METADATA_KEY!r} manifest in its metadata: not one of ours")
    return _json_object(text, "manifest")


def _read_header(data: bytes) -> dict[str, Any]:
    if len(data) < 8:
        raise ArtifactError(f"model file: truncated: {len(data)} bytes")
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER_BYTES:
        raise ArtifactError(
            f"model file: a header of {size} bytes, more than {MAX_HEADER_BYTES}: not one of ours"
        )
    if len(data) < 8 + size:
        raise ArtifactError(f"model file: truncated: {len(data)} bytes, the header alone ends at {8 + size}")
    return _json_object(data[8 : 8 + size], "header")


def _json_object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ArtifactError(f"model file: its {what} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ArtifactError(f"model file: its {what} is not a JSON object")
    return value


def _require_finite(tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    if not tensors:
        raise ArtifactError("model file: no tensors")
    for name, tensor in tensors.items():
        if tensor.dtype.kind not in "fiub":
            raise ArtifactError(f"model file: tensor {name} has type {tensor.dtype}")
        if not np.isfinite(tensor).all():
            raise ArtifactError(f"model file: tensor {name} holds NaN or infinite values")


def _digest(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over name, type, shape and little-endian bytes of each tensor, by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].astype(tensors[name].dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}\0{tensor.dtype.str}\0{tensor.shape}\0".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
