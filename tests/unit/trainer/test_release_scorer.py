"""The scorer: what comes out of the model file scores as the model that went in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pytest
import torch

from streamer.config import SensorConfig, WindowsConfig
from trainer.errors import ArtifactError, ModelInputError
from trainer.learn.config import ArchitectureConfig
from trainer.learn.model.network import SteelDefectLSTM, build_model
from trainer.release import Artifact, DatasetInfo, Manifest, read_artifact, write_artifact
from trainer.release.scorer import Scorer

STEPS = 12
SENSORS = ("mold_level", "superheat", "casting_speed")
ARCHITECTURES = [
    ArchitectureConfig(hidden_size=8),
    ArchitectureConfig(hidden_size=8, num_layers=1, bidirectional=True, readout="last", head_hidden_dims=()),
    ArchitectureConfig(hidden_size=8, stem_stride=3, stem_channels=4),
    ArchitectureConfig(preset="lightweight", readout="attention", head_norm="batch"),
]
IDS = ["default", "bidirectional", "stem", "preset"]


def windows(num: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """Raw values far from zero, some of them missing."""
    rng = np.random.default_rng(1)
    x_NTF = rng.normal(1500, 40, size=(num, STEPS, len(SENSORS))).astype(np.float32)
    x_NTF[rng.random(x_NTF.shape) < 0.1] = np.nan
    return x_NTF


def trained(architecture: ArchitectureConfig) -> SteelDefectLSTM:
    model = build_model(architecture, len(SENSORS), seed=1)
    model.fit_normalisation(torch.tensor(windows(20)))
    return model.eval()


def artifact_of(
    model: SteelDefectLSTM, architecture: ArchitectureConfig, size_steps: int | Literal["cast"] = STEPS
) -> Artifact:
    manifest = Manifest(
        model_name="defect-lstm",
        version=1,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        architecture=architecture.model_dump(mode="json"),
        sensors=tuple(SensorConfig(name=name) for name in SENSORS),
        period_ms=1000,
        window=WindowsConfig(size_steps=size_steps, hop_steps=STEPS),
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
    )
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return read_artifact(write_artifact(tensors, manifest))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=IDS)
def test_raw_windows_score_as_with_the_model_that_was_trained(architecture: ArchitectureConfig) -> None:
    model = trained(architecture)
    x_NTF = windows(5)
    mask_NT = np.ones(x_NTF.shape[:2], dtype=bool)
    mask_NT[2, 7:] = False
    with torch.inference_mode():
        expected_N = torch.sigmoid(model(torch.tensor(x_NTF), torch.tensor(mask_NT)).double()).numpy()
    scorer = Scorer(artifact_of(model, architecture))
    prob_N = scorer.score(x_NTF, mask_NT)
    assert prob_N.dtype == np.float64
    np.testing.assert_allclose(prob_N, expected_N, rtol=1e-5)
    np.testing.assert_array_equal(scorer.is_defective(x_NTF, mask_NT), prob_N >= 0.5)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=IDS)
def test_a_whole_cast_scores_the_same_however_far_it_is_padded(architecture: ArchitectureConfig) -> None:
    scorer = Scorer(artifact_of(trained(architecture), architecture, "cast"))
    x_NTF = windows(4)[:, :7]
    mask_NT = np.ones(x_NTF.shape[:2], dtype=bool)
    padded_NTF = np.pad(x_NTF, ((0, 0), (0, 9), (0, 0)), constant_values=np.nan)
    prob_N = scorer.score(padded_NTF, np.pad(mask_NT, ((0, 0), (0, 9))))
    np.testing.assert_allclose(prob_N, scorer.score(x_NTF, mask_NT), rtol=1e-5)
    with pytest.raises(ModelInputError, match=r"\[N, cast, 3\]"):
        scorer.score(x_NTF[:, :, :2])


def test_values_of_twice_the_precision_and_no_windows_are_fine() -> None:
    scorer = Scorer(artifact_of(trained(ARCHITECTURES[0]), ARCHITECTURES[0]))
    np.testing.assert_allclose(scorer.score(windows(3).astype(np.float64)), scorer.score(windows(3)))
    assert scorer.score(windows(0)).shape == (0,)


def test_windows_that_do_not_fit_say_what_the_model_wants() -> None:
    scorer = Scorer(artifact_of(trained(ARCHITECTURES[0]), ARCHITECTURES[0]))
    with pytest.raises(
        ModelInputError, match=r"\[N, 12, 3\] with sensors mold_level, superheat, casting_speed"
    ):
        scorer.score(windows(2)[:, :, :2])
    with pytest.raises(ModelInputError, match="expected windows"):
        scorer.score(windows(2)[:, :6])
    with pytest.raises(ModelInputError, match="floating point"):
        scorer.score(np.zeros((2, STEPS, 3), dtype=np.int64))  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ModelInputError, match="bool mask"):
        scorer.score(windows(2), np.ones((2, 3), dtype=bool))


def test_tensors_of_another_architecture_are_refused() -> None:
    artifact = artifact_of(trained(ARCHITECTURES[0]), ArchitectureConfig(hidden_size=16))
    with pytest.raises(ArtifactError, match="defect-lstm 1: the tensors do not fit"):
        Scorer(artifact)


def test_an_architecture_that_this_scorer_does_not_know_is_refused() -> None:
    artifact = artifact_of(trained(ARCHITECTURES[0]), ARCHITECTURES[0])
    architecture = {**artifact.manifest.architecture, "num_experts": 4}
    manifest = artifact.manifest.model_copy(update={"architecture": architecture})
    with pytest.raises(ArtifactError, match="num_experts"):
        Scorer(Artifact(manifest, artifact.tensors))


def test_an_architecture_that_leaves_something_open_is_refused_not_guessed() -> None:
    artifact = artifact_of(trained(ARCHITECTURES[0]), ARCHITECTURES[0])
    architecture = {**artifact.manifest.architecture}
    del architecture["readout"]
    manifest = artifact.manifest.model_copy(update={"architecture": architecture})
    with pytest.raises(ArtifactError, match="does not say readout"):
        Scorer(Artifact(manifest, artifact.tensors))


def test_some_windows_are_scored_as_a_copy_of_them_is() -> None:
    x_NTF, index_N = windows(9), np.array([7, 2, 5])
    scorer = Scorer(artifact_of(trained(ARCHITECTURES[0]), ARCHITECTURES[0]))

    assert np.array_equal(scorer.score(x_NTF, index_N=index_N), scorer.score(x_NTF[index_N]))
