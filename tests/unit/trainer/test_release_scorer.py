"""The scorer: what comes out of the model file scores as the model that went in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pytest
import torch
from defect_models import ALONE, network_alone
from plants import DATA, Cast, Plant, casts

from streamer.config import RedisConfig, SensorConfig, WindowsConfig
from trainer.data.dataset import freeze, load_windows
from trainer.errors import ArtifactError, ModelInputError
from trainer.learn.config import ArchitectureConfig
from trainer.learn.model.network import SteelDefectLSTM, build_model
from trainer.learn.scores.evaluate import predict
from trainer.release import Artifact, DatasetInfo, Manifest, read_artifact, write_artifact
from trainer.release.scorer import Scorer

STEPS = 12
SENSORS = ("mold_level", "superheat", "casting_speed")
ARCHITECTURES = [
    ArchitectureConfig(hidden_size=8, **ALONE),
    ArchitectureConfig(
        hidden_size=8, num_layers=1, bidirectional=True, readout="last", head_hidden_dims=(), **ALONE
    ),
    ArchitectureConfig(hidden_size=8, stem_stride=3, stem_channels=4, **ALONE),
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
    model: SteelDefectLSTM,
    architecture: ArchitectureConfig,
    size_steps: int | Literal["cast"] = STEPS,
    *,
    min_valid_ratio: float = 0.5,
    sensors: tuple[SensorConfig, ...] = tuple(SensorConfig(name=name) for name in SENSORS),
) -> Artifact:
    manifest = Manifest(
        model_name="defect-lstm",
        version=1,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        architecture=architecture.model_dump(mode="json"),
        sensors=sensors,
        period_ms=1000,
        window=WindowsConfig(size_steps=size_steps, hop_steps=STEPS, min_valid_ratio=min_valid_ratio),
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
    )
    return read_artifact(write_artifact(network_alone(model).tensors(), manifest))


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
    assert scorer.score(windows(0)).shape == scorer.score(windows(0), length_N=[]).shape == (0,)
    assert scorer.is_defective(windows(0)).shape == (0,)


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
    artifact = artifact_of(trained(ARCHITECTURES[0]), ArchitectureConfig(hidden_size=16, **ALONE))
    with pytest.raises(ArtifactError, match="defect-lstm 1: the tensors do not fit"):
        Scorer(artifact)


def test_a_model_from_before_the_digest_of_the_manifest_scores_and_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sealed = artifact_of(trained(ARCHITECTURES[0]), ARCHITECTURES[0])
    expected_N = Scorer(sealed).score(windows(3))
    assert "digest" not in capsys.readouterr().out
    scorer = Scorer(Artifact(sealed.manifest, sealed.tensors, has_manifest_digest=False))
    np.testing.assert_array_equal(scorer.score(windows(3)), expected_N)
    assert capsys.readouterr().out.count("no digest over the manifest") == 1


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


# Casts of one window each, as the streamer would cut them; two sensors.
GAPS = WindowsConfig(size_steps=20, hop_steps=20, min_valid_ratio=0.5)
SILENT = 10
# Without a stem each step counts by itself.
STEP_BY_STEP = ArchitectureConfig(hidden_size=8, stem_stride=1, **ALONE)


def with_gaps(num: int, silent: int = SILENT) -> list[Cast]:
    """Casts of one window, in which all sensors are silent at some steps and one of them at another."""
    made = casts(range(num), num_steps=20)
    for number, cast in enumerate(made):
        quiet_T = 1 + np.random.default_rng(number).permutation(19)
        cast.x_TF[quiet_T[:silent]] = np.nan
        cast.x_TF[quiet_T[-1], 0] = np.nan
    return made


def scorer_of_two(spec: WindowsConfig) -> tuple[SteelDefectLSTM, Scorer]:
    """A model for the test plant, and its scorer."""
    model = build_model(STEP_BY_STEP, 2, seed=1)
    model.fit_normalisation(torch.tensor(np.stack([cast.x_TF for cast in casts(range(8))])))
    artifact = artifact_of(
        model.eval(),
        STEP_BY_STEP,
        spec.size_steps,
        min_valid_ratio=spec.min_valid_ratio,
        sensors=DATA.sensors,
    )
    return model, Scorer(artifact)


def test_steps_at_which_no_sensor_spoke_score_as_they_were_trained_to_the_bit(redis: RedisConfig) -> None:
    plant = Plant(redis, spec=GAPS)
    plant.write(with_gaps(6))
    frozen = freeze(plant.reader(), 100)
    plant.close()
    assert frozen.mask_NT.sum(axis=1).tolist() == [10] * 6
    model, scorer = scorer_of_two(GAPS)
    trained_N = network_alone(model).probabilities(frozen.x_NTF, frozen.mask_NT)
    np.testing.assert_array_equal(scorer.score(frozen.x_NTF), trained_N)
    np.testing.assert_array_equal(scorer.score(frozen.x_NTF.astype(np.float64)), trained_N)
    np.testing.assert_array_equal(scorer.score(frozen.x_NTF, frozen.mask_NT), trained_N)
    assert (trained_N != predict(model, frozen.x_NTF)).all()
    # The gate scores with champions of another rule, too.
    _, strict = scorer_of_two(GAPS.model_copy(update={"min_valid_ratio": 1.0}))
    np.testing.assert_array_equal(strict.probabilities(frozen.x_NTF, frozen.mask_NT), trained_N)
    assert np.isnan(strict.score(frozen.x_NTF, frozen.mask_NT)).all()


@pytest.mark.parametrize("size_steps", [20, "cast"])
@pytest.mark.parametrize("min_valid_ratio", [0.0, 0.3, 0.5, 0.6, 0.8, 1.0])
def test_a_score_is_there_for_exactly_the_windows_that_the_streamer_lets_through(
    redis: RedisConfig, size_steps: int | Literal["cast"], min_valid_ratio: float
) -> None:
    spec = WindowsConfig(size_steps=size_steps, hop_steps=20, min_valid_ratio=min_valid_ratio)
    made = casts(range(8), num_steps=20)
    for silent, cast in zip((0, 4, 8, 10, 12, 14, 16, 19), made, strict=True):
        cast.x_TF[1 : 1 + silent] = np.nan
    # A short cast is measured by its own length: 6 of 10 steps.
    short = casts([8], num_steps=10)
    short[0].x_TF[2:6] = np.nan
    plant = Plant(redis, spec=spec)
    plant.write([*made, *short])
    sealed = plant.reader().sealed()
    let_through = {window for window, _ in plant.reader().labelled()}
    x_NTF, mask_NT = load_windows(plant.reader(), sealed)
    plant.close()
    assert len(sealed) == 9
    length_N = [window.length for window in sealed]
    _, scorer = scorer_of_two(spec)
    for prob_N in (
        scorer.score(x_NTF, length_N=length_N),
        scorer.score(x_NTF, mask_NT, length_N=length_N),
    ):
        assert {sealed[n] for n in np.flatnonzero(~np.isnan(prob_N))} == let_through


def test_a_window_that_says_too_little_has_no_score_and_is_never_called_good() -> None:
    _, scorer = scorer_of_two(GAPS)
    x_NTF = np.stack([cast.x_TF for cast in with_gaps(4)])
    x_NTF[1, :] = np.nan
    x_NTF[3, :11] = np.nan
    prob_N = scorer.score(x_NTF)
    assert np.isnan(prob_N).tolist() == [False, True, False, True]
    with pytest.raises(
        ModelInputError,
        match=r"windows 1, 3 have valid steps at less than 0\.5 of their length .* whose score is NaN",
    ):
        scorer.is_defective(x_NTF)
    told = ~np.isnan(prob_N)
    np.testing.assert_array_equal(scorer.is_defective(x_NTF[told]), prob_N[told] >= 0.5)
    assert np.isfinite(scorer.probabilities(x_NTF)).all()


def test_of_many_windows_without_a_score_the_first_are_named() -> None:
    _, scorer = scorer_of_two(GAPS)
    silent = np.full((25, 20, 2), np.nan, np.float32)
    with pytest.raises(ModelInputError, match=r"windows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 15 more have"):
        scorer.is_defective(silent)


def test_a_short_window_is_measured_by_the_steps_it_really_has() -> None:
    _, scorer = scorer_of_two(GAPS)
    x_NTF = np.stack([cast.x_TF for cast in with_gaps(2, silent=0)])
    x_NTF[0, 8:] = np.nan
    x_NTF[1, 8:] = 0.0  # padded with something else than NaN
    assert np.isnan(scorer.score(x_NTF)).tolist() == [True, False]
    scored_N = scorer.score(x_NTF, length_N=[8, 8])
    x_NTF[1, 8:] = np.nan
    np.testing.assert_array_equal(scored_N, scorer.score(x_NTF, length_N=np.array([8, 8])))
    assert scorer.is_defective(x_NTF, length_N=[8, 8]).shape == (2,)


def test_a_whole_cast_without_a_length_ends_with_its_last_valid_step() -> None:
    _, scorer = scorer_of_two(WindowsConfig(size_steps="cast", min_valid_ratio=0.5))
    x_NTF = np.stack([cast.x_TF for cast in with_gaps(3, silent=0)])
    x_NTF[0, 8:] = np.nan  # 8 of 8
    x_NTF[1, 3:7], x_NTF[1, 8:] = np.nan, np.nan  # 4 of 8
    x_NTF[2, 2:7], x_NTF[2, 8:] = np.nan, np.nan  # 3 of 8
    assert np.isnan(scorer.score(x_NTF)).tolist() == [False, False, True]
    assert np.isnan(scorer.score(np.full_like(x_NTF, np.nan))).all()


@pytest.mark.parametrize("length_N", [[8], [8, 21], [-1, 8], [8.0, 8.0], 8])
def test_lengths_that_no_window_has_are_refused(length_N: object) -> None:
    _, scorer = scorer_of_two(GAPS)
    with pytest.raises(ModelInputError, match=r"expected 2 lengths of 0 to 20 steps"):
        scorer.score(np.zeros((2, 20, 2), np.float32), length_N=length_N)  # type: ignore[arg-type]  # refused


def test_some_windows_are_scored_as_a_copy_of_them_is() -> None:
    x_NTF, index_N = windows(9), np.array([7, 2, 5])
    scorer = Scorer(artifact_of(trained(ARCHITECTURES[0]), ARCHITECTURES[0]))

    assert np.array_equal(scorer.probabilities(x_NTF, index_N=index_N), scorer.probabilities(x_NTF[index_N]))
