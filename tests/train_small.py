"""Trains the task of `small_training` as a process: `python tests/train_small.py FOLDER [STEP SIGNAL]`.

Behind optimizer step STEP it sends itself the signal, KILL or TERM. Several processes, started by torchrun, train
together. The first one leaves the weights in FOLDER/weights.pt; RANK in the name of the folder is the number of the
process.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path

import torch
from small_training import loaders, model, settings, weights

from trainer.learn.engine.distributed import joined
from trainer.learn.lstm_trainer import LSTMTrainer


def main(folder: Path, step: int, number: int) -> int:
    """Returns 143 when it was asked to stop."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda received, _: asked.append(received))
    steps = itertools.count(1)

    def should_stop() -> bool:
        if next(steps) == step:
            os.kill(os.getpid(), number)
        return bool(asked)

    with joined() as group:
        configured = settings(checkpoint={"every_steps": 4}, architecture={"head_norm": "batch"})
        trained = model(configured)
        result = LSTMTrainer(trained, configured, torch.device("cpu")).train(
            *loaders(), run_dir=folder, resume=True, should_stop=should_stop
        )
        if group.writes and not asked:
            torch.save(weights(trained), folder / "weights.pt")
    sys.stdout.write(f"{result.stop_reason} {result.inexact}\n")
    return 143 if asked else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = sys.argv[2:] or ["0", "KILL"]
    folder = sys.argv[1].replace("RANK", os.environ.get("RANK", "0"))
    sys.exit(main(Path(folder), int(wanted[0]), signal.Signals[f"SIG{wanted[1]}"]))
