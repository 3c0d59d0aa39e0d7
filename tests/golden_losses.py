"""Golden loss curves: `python tests/golden_losses.py` writes tests/assets/losses/ anew, on the machine it names.

A curve that changes is a change of the arithmetic: write it anew only when that was meant, and say why.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from streamer.plant.simulator import Simulator, SimulatorConfig
from trainer.learn.config import ArchitectureConfig, ModelSettings, TrainingConfig
from trainer.learn.engine.arithmetic import arithmetic
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model.network import build_model

FOLDER = Path(__file__).parent / "assets" / "losses"
WINDOW_STEPS, NUM_WINDOWS, NUM_TRAINED = 300, 240, 160
CURVES = {
    "default": ArchitectureConfig(),
    "standard": ArchitectureConfig(preset="standard"),
    "attention": ArchitectureConfig(readout="mean_max_attention", bidirectional=True, head_norm="layer"),
}


def header() -> str:
    """What the bits depend on."""
    found = arithmetic(torch.device("cpu"), num_threads=1)
    return f"# cpu {found['cpu']}, {found['capability']}, torch {found['torch']}\n"


def curve(name: str) -> str:
    """Trains for three epochs on simulated casts and returns metrics.csv."""
    x_NTF, y_N = _windows()
    mask_NT = np.isfinite(x_NTF).any(axis=2)
    settings = ModelSettings(architecture=CURVES[name], training=TrainingConfig(max_epochs=3))
    model = build_model(settings.architecture, x_NTF.shape[2], seed=0)
    parts = [slice(0, NUM_TRAINED), slice(NUM_TRAINED, NUM_WINDOWS)]
    train, val = (WindowLoader(x_NTF[n], mask_NT[n], y_N[n], batch_size=32, shuffle=True) for n in parts)
    with tempfile.TemporaryDirectory() as folder:
        LSTMTrainer(model, settings, torch.device("cpu")).train(train, val, run_dir=Path(folder))
        return (Path(folder) / "metrics.csv").read_text()


def rows(text: str) -> list[dict[str, str]]:
    """The epochs of a curve."""
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def _windows() -> tuple[np.ndarray, np.ndarray]:
    x, y = [], []
    for cast in Simulator(SimulatorConfig(seed=5, num_casts=200)).casts():
        defect_T = np.zeros(cast.num_steps, dtype=bool)
        ts_T = cast.start_ts + np.arange(cast.num_steps) * cast.period_ms
        for label in sorted(cast.labels, key=lambda each: each.inspected_at):
            first = cast.start_ts if label.from_ts is None else label.from_ts
            last = cast.end_ts if label.to_ts is None else label.to_ts
            defect_T[(ts_T >= first) & (ts_T <= last)] = bool(label.defect)
        for start in range(0, cast.num_steps - WINDOW_STEPS + 1, WINDOW_STEPS):
            x.append(cast.values_TF[start : start + WINDOW_STEPS])
            y.append(defect_T[start : start + WINDOW_STEPS].any())
            if len(x) == NUM_WINDOWS:
                return np.asarray(x, np.float32), np.asarray(y)
    raise AssertionError(f"only {len(x)} windows")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for each in sys.argv[1:] or CURVES:
        (FOLDER / f"{each}.csv").write_text(header() + curve(each))
