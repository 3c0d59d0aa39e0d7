"""Training on an NVIDIA GPU. Deselected where there is none (`conftest.py`); `make test-gpu` fails there instead."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from small_training import loaders, model, same, settings, weights, windows

from trainer.errors import TrainingDivergedError, TrainingSetupError
from trainer.learn.device import find_device
from trainer.learn.engine.batch import Batch
from trainer.learn.engine.distributed import Group
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.engine.loss import DefectLoss
from trainer.learn.engine.optim import build_optimizer
from trainer.learn.engine.precision import Precision, resolve
from trainer.learn.engine.step import Stepper
from trainer.learn.engine.workers import Workers
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.report.training_metrics import TrainingResult

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning"),
]

GPU, CPU = torch.device("cuda"), torch.device("cpu")
TESTS = Path(__file__).parents[1]
STEPS_AN_EPOCH = 5
# Half precision moves the losses of a training by less.
CLOSE = 0.05
# And a gradient by less, as a share of its length; TF32, in which a GPU may multiply float32, by far less.
CLOSE_GRADIENTS = {"off": 0.02, "bf16": 0.2, "fp16": 0.05}
MODELS: list[dict[str, Any]] = [
    {},
    {"readout": "last", "bidirectional": True, "num_layers": 2},
    {
        "stem_stride": 1,
        "window_statistics": False,
        "center_windows": False,
        "linear_path": False,
        "readout": "mean",
        "head_norm": "batch",
    },
    {"head_norm": "layer", "num_layers": 3, "dropout": 0.0},
]


@pytest.fixture(autouse=True)
def _gpu_as_it_was() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.empty_cache()


def _train(
    device: torch.device, architecture: dict[str, Any] | None = None, **training: Any
) -> TrainingResult:
    configured = settings(architecture=architecture or {}, training={"max_epochs": 6} | training)
    return LSTMTrainer(model(configured), configured, device).train(*loaders())


def _gradients(device: torch.device, architecture: dict[str, Any], amp: str) -> dict[str, torch.Tensor]:
    """Of one step, by parameter."""
    configured = settings(architecture=architecture | {"dropout": 0.0}, training={"amp": amp})
    x, mask, y = map(torch.from_numpy, windows(64, 3))
    trained = model(configured).to(device)
    trained.fit_normalisation(x.to(device), mask.to(device))
    stepper = Stepper(
        trained,
        Workers(trained, 1, num_threads=1),
        loss=DefectLoss(configured.loss, num_good=7, num_defects=3),
        optimizer=build_optimizer(trained, configured.optimizer),
        precision=Precision(configured.training.amp, device, configured.architecture.hidden_size),
        config=configured.training,
        num_slices=2,
        group=Group(),
        device=device,
        sync=False,
    )
    for batch in range(8):  # fp16 leaves steps out until its scale fits
        stepper.step([Batch(x, mask, y.float())], 1, batch, 1)
        found = {name: each.grad.flatten().cpu() for name, each in trained.named_parameters()}
        if all(bool(torch.isfinite(each).all()) for each in found.values()):
            break
    return found


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("architecture", MODELS, ids=str)
def test_a_gpu_has_the_gradients_of_a_processor(amp: str, architecture: dict[str, Any]):
    here, there = _gradients(CPU, architecture, "off"), _gradients(GPU, architecture, amp)

    whole = torch.cat(list(here.values())).norm()
    off = {
        name: float((there[name] - each).norm() / (each.norm() + 0.002 * whole))
        for name, each in here.items()
    }
    assert {name: each for name, each in off.items() if each > CLOSE_GRADIENTS[amp]} == {}


def test_the_gpu_is_found_and_computes_in_half_precision_where_layers_are_wide():
    half = "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"

    assert find_device() == GPU
    assert [resolve("auto", GPU, hidden) for hidden in (16, 255, 256, 512)] == ["off", "off", half, half]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("architecture", MODELS, ids=str)
def test_a_gpu_learns_what_a_processor_learns(amp: str, architecture: dict[str, Any]):
    # Dropout draws from another generator there, and a batch is one slice.
    architecture = architecture | {"dropout": 0.0}
    here = _train(CPU, architecture, num_slices=2)
    there = _train(GPU, architecture, num_slices=2, amp=amp)

    assert len(there.epochs) == len(here.epochs)
    for ours, theirs in zip(here.epochs, there.epochs, strict=True):
        assert theirs.train_loss == pytest.approx(ours.train_loss, rel=CLOSE)
        assert theirs.val_loss == pytest.approx(ours.val_loss, rel=CLOSE)
    assert there.epochs[-1].gpu_mb > 0


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("architecture", MODELS, ids=str)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_step_waits_for_the_gpu(amp: str, architecture: dict[str, Any], accumulate: int):
    configured = settings(architecture=architecture, training={"amp": amp, "accumulate_batches": accumulate})
    steps = -(-STEPS_AN_EPOCH // accumulate)
    asked = itertools.count(1)

    def watch() -> bool:
        # From behind the first step of an epoch to the end of its last one: each wait in between is an error.
        is_last = next(asked) % steps == 0
        torch.cuda.set_sync_debug_mode("default" if is_last else "error")
        return False

    result = LSTMTrainer(model(configured), configured, GPU).train(*loaders(), should_stop=watch)

    assert len(result.epochs) == configured.training.max_epochs
    assert next(asked) == steps * len(result.epochs) + 1


def test_the_windows_move_to_the_gpu_once():
    train, val = loaders()
    configured = settings()
    LSTMTrainer(model(configured), configured).train(train, val)

    assert (train.x_NTF.is_cuda, train.y_N.is_cuda, val.mask_NT.is_cuda) == (True, True, True)


def test_a_loader_of_torch_trains_as_well():
    x, mask, y = map(torch.from_numpy, windows(160, 0))
    data = torch.utils.data.TensorDataset(x, mask, y.float())
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, pin_memory=True)
    configured = settings(training={"max_epochs": 12})

    result = LSTMTrainer(model(configured), configured).train(loader, loaders()[1])

    assert result.epochs[-1].train_loss < result.epochs[0].train_loss


def test_a_batch_that_does_not_fit_is_computed_in_parts():
    x, mask, y = windows(2_048, 0, steps=600)
    configured = settings(
        architecture={"hidden_size": 128, "stem_stride": 1, "dropout": 0.0},
        training={"max_epochs": 2, "batch_size": 2_048, "amp": "off"},
    )

    def train() -> TrainingResult:
        parts = WindowLoader(x, mask, y, batch_size=2_048), WindowLoader(x, mask, y, batch_size=64)
        return LSTMTrainer(model(configured), configured, GPU).train(*parts)

    roomy = train()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction(roomy.epochs[-1].gpu_mb * 2**20 * 0.6 / total)
    with structlog.testing.capture_logs() as logs:
        narrow = train()

    assert [line["num_slices"] for line in logs if line["event"] == "out of memory"][:1] == [2]
    assert [epoch.train_loss for epoch in narrow.epochs] == pytest.approx(
        [epoch.train_loss for epoch in roomy.epochs], rel=1e-3
    )


def test_a_gpu_without_room_for_one_window_says_so():
    x, mask, y = windows(8, 4, steps=20_000)
    configured = settings(architecture={"hidden_size": 256, "stem_stride": 1, "num_layers": 4})
    parts = [WindowLoader(x, mask, y, batch_size=8) for _ in range(2)]
    trainer = LSTMTrainer(model(configured), configured, GPU)
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 256 * 2**20) / total)

    with pytest.raises(TrainingSetupError, match="no memory for a single window of 8: lower hidden_size"):
        trainer.train(*parts)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_step_that_is_not_finite_moves_no_weight_and_ends_the_run(amp: str):
    configured = settings(architecture={"linear_path": False, "head_norm": "batch"}, training={"amp": amp})
    train, val = loaders()
    x, mask, y = (each.numpy() for each in (train.x_NTF, train.mask_NT, train.y_N))
    weighted = WindowLoader(x, mask, y, batch_size=32, weight_N=np.ones_like(y))
    weighted.to(GPU)
    assert weighted.weight_N is not None
    weighted.weight_N[70] = torch.inf  # in the third batch; what lies on a GPU is not looked at
    trained, before = model(configured), list[dict[str, Any]]()

    def note() -> bool:
        before.append({name: each for name, each in weights(trained).items() if "num_batches" not in name})
        return False

    with pytest.raises(TrainingDivergedError, match="lower the learning rate"):
        LSTMTrainer(trained, configured, GPU).train(weighted, val, should_stop=note)

    assert len(before) == STEPS_AN_EPOCH
    # Windows come in order here: the third step is the one.
    assert [same(each, before[1]) for each in before] == [False, True, True, True, True]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_training_that_was_stopped_goes_on_from_its_step(tmp_path: Path, amp: str):
    configured = settings(
        architecture={"head_norm": "batch"}, training={"amp": amp}, checkpoint={"every_steps": 1}
    )
    whole, halves = model(configured), model(configured)
    LSTMTrainer(whole, configured, GPU).train(*loaders(), run_dir=tmp_path / "whole")
    asked = itertools.count(1)

    first = LSTMTrainer(halves, configured, GPU).train(
        *loaders(), run_dir=tmp_path / "halves", should_stop=lambda: next(asked) == 8
    )
    again = model(configured)
    second = LSTMTrainer(again, configured, GPU).train(*loaders(), run_dir=tmp_path / "halves", resume=True)

    assert (first.stop_reason, second.stop_reason) == ("stopped", "max_epochs")
    assert second.inexact == ("only a CPU adds up in the same order again",)
    expected, found = weights(whole), weights(again)
    assert {name for name in expected if not torch.allclose(expected[name], found[name], atol=1e-4)} == set()


def test_a_processor_goes_on_from_a_checkpoint_of_a_gpu_and_says_that_bits_differ(tmp_path: Path):
    configured = settings(checkpoint={"every_steps": 1})
    asked = itertools.count(1)
    LSTMTrainer(model(configured), configured, GPU).train(
        *loaders(), run_dir=tmp_path, should_stop=lambda: next(asked) == 8
    )

    result = LSTMTrainer(model(configured), configured, CPU).train(*loaders(), run_dir=tmp_path, resume=True)

    assert result.stop_reason == "max_epochs"
    assert any("device" in reason for reason in result.inexact)


def test_both_score_alike():
    configured = settings()
    trained = model(configured)
    LSTMTrainer(trained, configured, GPU).train(*loaders())
    x, mask, _ = map(torch.from_numpy, windows(200, 9))

    with torch.no_grad():
        there = torch.sigmoid(trained(x.to(GPU), mask.to(GPU))).cpu()
        here = torch.sigmoid(trained.cpu()(x, mask))

    np.testing.assert_allclose(there.numpy(), here.numpy(), atol=2e-3)


GROUP = """
import sys, torch
sys.path.insert(0, {tests!r})
import torch.distributed as dist
from small_training import loaders, model, settings, weights
from trainer.learn.engine.distributed import joined
from trainer.learn.lstm_trainer import LSTMTrainer

with joined() as group:
    configured = settings(
        architecture={{"head_norm": "batch"}}, training={{"num_slices": 2, "amp": "off"}}
    )
    trained = model(configured)
    result = LSTMTrainer(trained, configured, torch.device("cuda")).train(*loaders())
    if group.writes:
        backend = dist.get_backend() if dist.is_initialized() else "none"
        torch.save(weights(trained), {path!r})
        print("backend", backend, "size", group.size)
"""


@pytest.mark.parametrize(("processes", "backend"), [(1, "nccl"), (2, "gloo")])
def test_a_group_on_one_gpu_ends_like_one_process(tmp_path: Path, processes: int, backend: str):
    if torch.cuda.device_count() >= 2:
        backend = "nccl"
    alone, together = tmp_path / "alone.pt", tmp_path / "together.pt"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    }
    scripts = {}
    for path in (alone, together):
        scripts[path] = tmp_path / f"{path.stem}.py"
        scripts[path].write_text(GROUP.format(tests=str(TESTS), path=str(path)))
    subprocess.run([sys.executable, str(scripts[alone])], env=environment, check=True, timeout=80)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    done = subprocess.run(
        [*torchrun, str(scripts[together])],
        env=environment,
        check=False,
        timeout=80,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert f"backend {backend} size {processes}" in done.stdout
    expected, found = (torch.load(path, weights_only=True) for path in (alone, together))
    assert {name for name in expected if not torch.allclose(expected[name], found[name], atol=1e-4)} == set()
