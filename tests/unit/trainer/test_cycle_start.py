"""What trainings start from: the weights of the champion where they fit, else new ones; and new ones if asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from defect_models import ALONE, network_alone

from streamer.config import SensorConfig, WindowsConfig
from trainer.cycle.start import starts
from trainer.learn.config import ArchitectureConfig, ModelSettings, TrainingConfig
from trainer.learn.model.network import build_model
from trainer.release import Artifact, DatasetInfo, Manifest, read_artifact, write_artifact
from trainer.release.client.inputs import ModelInputs

SENSORS = tuple(SensorConfig(name=name) for name in ("mold_level", "superheat"))
WINDOW = WindowsConfig(size_steps=10, hop_steps=10)
ARCHITECTURE = ArchitectureConfig(hidden_size=4, num_layers=1, **ALONE)
INPUTS = ModelInputs(SENSORS, 1000, 10)


def champion(architecture=ARCHITECTURE) -> Artifact:
    network = build_model(architecture, len(SENSORS), seed=7)
    network.fit_normalisation(
        torch.tensor(np.random.default_rng(0).normal(size=(5, 10, 2)).astype(np.float32))
    )
    manifest = Manifest(
        model_name="defect-lstm",
        version=3,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        architecture=architecture.model_dump(mode="json"),
        sensors=SENSORS,
        period_ms=1000,
        window=WINDOW,
        threshold=0.5,
        dataset=DatasetInfo(id="d", num_windows=10, num_defects=2),
    )
    return read_artifact(write_artifact(network_alone(network).tensors(), manifest))


def of(*candidates, architecture=ARCHITECTURE):
    return ModelSettings(architecture=architecture, training=TrainingConfig(candidates=candidates))


def told(found):
    return [(start, version, network.is_normalised) for start, network, version in found]


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        (("finetune",), [("finetune", 3, True)]),
        (("scratch",), [("scratch", None, False)]),
        (("finetune", "scratch"), [("finetune", 3, True), ("scratch", None, False)]),
    ],
)
def test_each_candidate_starts_from_what_it_says(candidates, expected):
    assert told(starts(champion(), of(*candidates), INPUTS)) == expected


@pytest.mark.parametrize("candidates", [("finetune",), ("finetune", "scratch")])
def test_without_a_champion_that_fits_one_starts_from_scratch(candidates):
    from_scratch = [("scratch", None, False)]
    wider = ArchitectureConfig(hidden_size=8, num_layers=1, **ALONE)
    assert told(starts(None, of(*candidates), INPUTS)) == from_scratch
    assert told(starts(champion(), of(*candidates, architecture=wider), INPUTS)) == from_scratch
    assert told(starts(champion(), of(*candidates), ModelInputs(SENSORS, 500, 10))) == from_scratch


def test_weights_of_other_names_are_told_and_left(capsys):
    damaged = champion()
    tensors = {name.replace("head", "tail"): each for name, each in damaged.tensors.items()}
    assert told(starts(Artifact(damaged.manifest, tensors), of("finetune"), INPUTS)) == [
        ("scratch", None, False)
    ]
    assert "cannot be gone on from" in capsys.readouterr().out
