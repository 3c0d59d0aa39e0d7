"""The model file: complete, the same bytes each time, and refused when it is not what it says."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.config import SensorConfig, WindowsConfig
from trainer.errors import ArtifactError
from trainer.release.client.artifact import (
    MAX_HEADER_BYTES,
    METADATA_KEY,
    DatasetInfo,
    Manifest,
    manifest_json,
    read_artifact,
    write_artifact,
)

Tensors = dict[str, npt.NDArray[Any]]

MANIFEST = Manifest(
    model_name="defect-lstm",
    version=3,
    parent=1,
    created_at=datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
    architecture={"hidden_size": 64, "head_hidden_dims": [32]},
    sensors=(SensorConfig(name="mold_level", unit="mm"), SensorConfig(name="superheat", unit="degC")),
    period_ms=1000,
    grid_phase_ms=250,
    window=WindowsConfig(size_steps=300, hop_steps=60, tail="align_end"),
    threshold=0.42,
    dataset=DatasetInfo(id="d-17", num_windows=812, num_defects=93),
    scores={"auc_roc": 0.93, "auc_pr": 0.71},
)
TENSORS: Tensors = {
    "lstm.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "norm.center_C": np.array([1.5, -2.0], dtype=np.float64),
    "norm.is_fitted": np.array(True),
    "norm.limit": np.array(8.0, dtype=np.float32),
    "steps": np.array([7], dtype=np.int64),
}
DATA = write_artifact(TENSORS, MANIFEST)


def with_metadata(metadata: dict[str, str] | None) -> bytes:
    return bytes(safetensors.numpy.save(TENSORS, metadata=metadata))


def with_manifest(**changes: object) -> bytes:
    fields = json.loads(manifest_json(read_artifact(DATA).manifest)) | changes
    return with_metadata({METADATA_KEY: json.dumps(fields)})


def test_what_is_read_is_what_was_written() -> None:
    artifact = read_artifact(DATA)
    assert set(artifact.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert artifact.tensors[name].dtype == tensor.dtype
        assert artifact.tensors[name].shape == tensor.shape
        np.testing.assert_array_equal(artifact.tensors[name], tensor)
    assert artifact.manifest.model_copy(update={"weights_sha256": ""}) == MANIFEST
    assert artifact.manifest.sensor_names == ("mold_level", "superheat")


def test_the_same_model_gives_the_same_bytes_whatever_the_order_and_layout_of_its_tensors() -> None:
    turned = {name: np.array(TENSORS[name], order="F") for name in reversed(TENSORS)}
    turned["norm.center_C"] = turned["norm.center_C"].astype(">f8")
    fields = MANIFEST.model_dump()
    fields["architecture"] = dict(reversed(fields["architecture"].items()))
    assert write_artifact(turned, Manifest.model_validate(fields)) == DATA
    assert write_artifact(read_artifact(DATA).tensors, read_artifact(DATA).manifest) == DATA


def test_any_safetensors_reader_can_read_it() -> None:
    loaded = safetensors.numpy.load(DATA)
    np.testing.assert_array_equal(loaded["lstm.weight"], TENSORS["lstm.weight"])


def test_fields_that_a_later_trainer_adds_are_let_through() -> None:
    assert read_artifact(with_manifest(calibrated_on="d-18")).manifest.version == 3


def test_a_model_from_before_there_were_baselines_is_read() -> None:
    fields = json.loads(manifest_json(read_artifact(DATA).manifest))
    del fields["baselines"], fields["baseline_gap"]
    manifest = read_artifact(with_metadata({METADATA_KEY: json.dumps(fields)})).manifest
    assert (manifest.baselines, manifest.baseline_gap, manifest.better_baseline) == ({}, None, None)
    assert not manifest.is_behind


def test_a_model_says_which_cycle_trained_it_and_one_from_before_says_nothing() -> None:
    fields = json.loads(manifest_json(read_artifact(DATA).manifest))
    assert read_artifact(with_manifest(cycle=12)).manifest.cycle == 12
    del fields["cycle"]
    assert read_artifact(with_metadata({METADATA_KEY: json.dumps(fields)})).manifest.cycle is None


def beside_baselines(auc_roc: float) -> Manifest:
    baselines = {"linear": {"auc_roc": 0.8, "auc_pr": 0.6}, "boosting": {"auc_roc": 0.9, "auc_pr": 0.5}}
    return read_artifact(with_manifest(baselines=baselines, scores={"auc_roc": auc_roc})).manifest


@pytest.mark.parametrize(
    ("gap", "is_behind"), [(0.2, False), (0.0, False), (-0.0099, False), (-0.0101, True)]
)
def test_a_model_is_behind_when_the_better_baseline_is_ahead_by_more_than_a_hundredth(
    gap: float, is_behind: bool
) -> None:
    manifest = beside_baselines(0.9 + gap)
    assert manifest.baseline_gap == pytest.approx(gap)
    assert (manifest.better_baseline, manifest.is_behind) == ("boosting", is_behind)


@pytest.mark.parametrize(("linear", "gap"), [(0.95, -0.2), (0.5, 0.15)])
def test_the_gap_is_that_to_the_better_baseline(linear: float, gap: float) -> None:
    baselines = {"linear": {"auc_roc": linear}, "boosting": {"auc_roc": 0.6}}
    manifest = read_artifact(with_manifest(baselines=baselines, scores={"auc_roc": 0.75})).manifest
    assert manifest.baseline_gap == pytest.approx(gap)


def test_the_gap_stands_in_the_file_for_those_who_read_nothing_else() -> None:
    assert json.loads(manifest_json(beside_baselines(0.75)))["baseline_gap"] == 0.75 - 0.9


def test_another_format_version_is_refused() -> None:
    with pytest.raises(ArtifactError, match="format version 2, this reader knows 1"):
        read_artifact(with_manifest(format_version=2))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ArtifactError, match="manifest: threshold: "):
        read_artifact(with_manifest(threshold=None))


def test_changed_weights_fail_the_digest() -> None:
    changed = bytearray(DATA)
    changed[-1] ^= 1
    with pytest.raises(ArtifactError, match="digest"):
        read_artifact(bytes(changed))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated: 0 bytes"),
        (b"\x80\x05K\x01.", "truncated: 5 bytes"),
        (pickle.dumps({"lstm.weight": [1.0] * 50}), "header"),
        (b"\x10" + bytes(7) + b"not json at all!", "not JSON"),
        (b"\x02" + bytes(7) + b"[]", "not a JSON object"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + bytes(64), "more than 1048576"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "not JSON"),
        (with_metadata(None), "not one of ours"),
        (with_metadata({"format": "pt"}), "not one of ours"),
        (with_metadata({METADATA_KEY: "{"}), "manifest is not JSON"),
        (with_metadata({METADATA_KEY: "[]"}), "manifest is not a JSON object"),
    ],
)
def test_foreign_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_artifact(data)


@settings(deadline=None, max_examples=60)
@given(end=st.integers(0, len(DATA) - 1))
def test_a_file_cut_off_anywhere_is_refused(end: int) -> None:
    with pytest.raises(ArtifactError):
        read_artifact(DATA[:end])


@settings(deadline=None, max_examples=150)
@given(at=st.integers(0, len(DATA) - 1), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_no_weight(at: int, flip: int) -> None:
    changed = bytearray(DATA)
    changed[at] ^= flip
    try:
        artifact = read_artifact(bytes(changed))
    except ArtifactError:
        return
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(artifact.tensors[name], tensor)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "no tensors"),
        ({"w": np.array([1.0, np.nan])}, "tensor w holds NaN"),
        ({"w": np.array(["a"])}, "tensor w has type"),
        ({"w": np.array([None])}, "tensor w has type"),
    ],
)
def test_tensors_that_no_model_has_are_not_written(tensors: Tensors, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        write_artifact(tensors, MANIFEST)
