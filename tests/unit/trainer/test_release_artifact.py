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
from odd_names import ODD_NAMES

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
from trainer.release.client.manifest_digest import DIGEST, json_with_digest

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
SMALL = write_artifact({"w": TENSORS["steps"]}, MANIFEST)


def with_metadata(metadata: dict[str, str] | None) -> bytes:
    return bytes(safetensors.numpy.save(TENSORS, metadata=metadata))


def manifest_fields(data: bytes = DATA) -> dict[str, Any]:
    """The manifest as it stands in a file."""
    (text,) = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"].values()
    fields = json.loads(text)
    assert isinstance(fields, dict)
    return fields


def with_manifest(**changes: object) -> bytes:
    """The file as another writer would write it."""
    return with_metadata({METADATA_KEY: json_with_digest(manifest_fields() | changes)})


def without(*names: str, **changes: object) -> bytes:
    """A file from before there was a digest of the manifest."""
    fields = {name: value for name, value in manifest_fields().items() if name not in {DIGEST, *names}}
    return with_metadata({METADATA_KEY: json.dumps(fields | changes)})


def test_what_is_read_is_what_was_written() -> None:
    artifact = read_artifact(DATA)
    assert set(artifact.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert artifact.tensors[name].dtype == tensor.dtype
        assert artifact.tensors[name].shape == tensor.shape
        np.testing.assert_array_equal(artifact.tensors[name], tensor)
    assert artifact.manifest.model_copy(update={"weights_sha256": ""}) == MANIFEST
    assert artifact.manifest.sensor_names == ("mold_level", "superheat")


def test_sensors_of_any_name_are_read_back() -> None:
    sensors = tuple(SensorConfig(name=name, unit="°C") for name in ODD_NAMES)
    artifact = read_artifact(write_artifact(TENSORS, MANIFEST.model_copy(update={"sensors": sensors})))
    assert artifact.manifest.sensors == sensors
    assert artifact.has_manifest_digest


def test_the_longest_names_of_the_most_sensors_fit() -> None:
    sensors = tuple(SensorConfig(name=f"{number:\u00e9>128}", unit="°C") for number in range(1024))
    data = write_artifact(TENSORS, MANIFEST.model_copy(update={"sensors": sensors}))
    assert read_artifact(data).manifest.sensors == sensors


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
    manifest = read_artifact(without("baselines", "baseline_gap")).manifest
    assert (manifest.baselines, manifest.baseline_gap, manifest.better_baseline) == ({}, None, None)
    assert not manifest.is_behind


def test_a_model_says_which_cycle_trained_it_and_one_from_before_says_nothing() -> None:
    assert read_artifact(with_manifest(cycle=12)).manifest.cycle == 12
    assert read_artifact(without("cycle")).manifest.cycle is None


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


@pytest.mark.parametrize(
    ("scores", "baselines", "better"),
    [
        ({"auc_pr": 0.7}, {"linear": {"auc_roc": 0.8}}, "linear"),
        ({"auc_roc": 0.9}, {"linear": {"auc_pr": 0.8}}, None),
        ({}, {}, None),
    ],
)
def test_a_model_without_a_score_has_no_gap_and_is_not_behind(
    scores: dict[str, float], baselines: dict[str, dict[str, float]], better: str | None
) -> None:
    manifest = MANIFEST.model_copy(update={"scores": scores, "baselines": baselines})
    assert (manifest.better_baseline, manifest.baseline_gap, manifest.is_behind) == (better, None, False)
    assert read_artifact(write_artifact(TENSORS, manifest)).manifest.baseline_gap is None


def test_a_baseline_without_a_score_is_passed_over() -> None:
    baselines = {"linear": {"auc_pr": 0.9}, "boosting": {"auc_roc": 0.6}}
    manifest = MANIFEST.model_copy(update={"baselines": baselines})
    assert (manifest.better_baseline, manifest.baseline_gap) == ("boosting", pytest.approx(0.33))


def test_another_format_version_is_refused() -> None:
    with pytest.raises(ArtifactError, match="format version 3, this reader knows up to 2"):
        read_artifact(with_manifest(format_version=3))


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


@settings(deadline=None, max_examples=400)
@given(at=st.integers(0, len(SMALL) - 1), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(at: int, flip: int) -> None:
    changed = bytearray(SMALL)
    changed[at] ^= flip
    try:
        artifact = read_artifact(bytes(changed))
    except ArtifactError:
        return
    assert (artifact.manifest, artifact.has_manifest_digest) == (read_artifact(SMALL).manifest, True)
    assert set(artifact.tensors) == {"w"}
    np.testing.assert_array_equal(artifact.tensors["w"], TENSORS["steps"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'\\"threshold\\":0.42', b'\\"threshold\\":0.92'),
        (
            b'[{\\"name\\":\\"mold_level\\",\\"unit\\":\\"mm\\"},{\\"name\\":\\"superheat\\",\\"unit\\":\\"degC\\"}]',
            b'[{\\"name\\":\\"superheat\\",\\"unit\\":\\"degC\\"},{\\"name\\":\\"mold_level\\",\\"unit\\":\\"mm\\"}]',
        ),
        (b'\\"size_steps\\":300', b'\\"size_steps\\":200'),
        (b'\\"period_ms\\":1000', b'\\"period_ms\\":2000'),
        (b'\\"later\\":7', b'\\"later\\":8'),
    ],
    ids=["threshold", "sensors", "window", "period", "a key of a later writer"],
)
def test_a_changed_manifest_fails_its_digest(before: bytes, after: bytes) -> None:
    data = with_manifest(later=7)
    assert data.count(before) == 1
    with pytest.raises(
        ArtifactError, match=r"manifest: its digest is \w{12}, it says \w{12}: thresholds, sensors"
    ):
        read_artifact(data.replace(before, after))


def test_a_file_from_before_the_digest_is_read_and_says_so() -> None:
    old = read_artifact(without("cycle"))
    assert (old.manifest, old.has_manifest_digest) == (read_artifact(DATA).manifest, False)
    assert read_artifact(DATA).has_manifest_digest
    again = read_artifact(write_artifact(old.tensors, old.manifest))
    assert (again.manifest, again.has_manifest_digest) == (old.manifest, True)


def test_a_file_that_lost_the_name_of_its_digest_does_not_pass_for_an_old_one() -> None:
    with pytest.raises(
        ArtifactError, match=r"no manifest_sha256, but keys of a later writer \(manifest_sha25x\)"
    ):
        read_artifact(DATA.replace(b"manifest_sha256", b"manifest_sha25x"))


def test_a_digest_that_is_no_text_is_refused() -> None:
    fields = manifest_fields() | {DIGEST: None}
    with pytest.raises(ArtifactError, match="it says None"):
        read_artifact(with_metadata({METADATA_KEY: json.dumps(fields)}))


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
