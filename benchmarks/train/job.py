"""What a competitor is told, as JSON in its only argument, and what it tells, as JSON in its last line.

Imports nothing that is not in Python itself.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

# So many validations running must reach the target: one alone may be luck.
NUM_RUNNING = 2


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        data: Path of the arrays, as `data.write` leaves them.
        readout: Of the plain LSTM; None: the default configuration of ours.
        target_auc: Training ends when the validation AUC-ROC has reached it; None: after `max_epochs`.
        champion: Path of the weights to begin with; None: from scratch.
        save_to: Where the weights go that come of it; None: nowhere.
    """

    data: str
    readout: Literal["last", "mean"] | None
    max_epochs: int
    seed: int = 0
    batch_size: int = 32
    learning_rate: float = 1e-3
    grad_clip_norm: float = 1.0
    target_auc: float | None = None
    champion: str | None = None
    save_to: str | None = None

    @classmethod
    def from_arguments(cls) -> Job:
        """Reads the command line."""
        return cls(**json.loads(sys.argv[1]))

    def to_argument(self) -> str:
        """The command line."""
        return json.dumps(asdict(self))

    def is_reached(self, auc_E: Sequence[float]) -> bool:
        """Whether the last validations so far have all reached the target."""
        last = auc_E[-NUM_RUNNING:]
        return self.target_auc is not None and len(last) == NUM_RUNNING and min(last) >= self.target_auc


class Clock:
    """Runs from the call that trains to its return; imports and reading the data lie before it."""

    def __init__(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def report(self, *, torch_version: str, val_loss: float, auc_E: Sequence[float], **more: object) -> str:
        """Stops it.

        Args:
            torch_version: Must be the same for all.
            val_loss: After the last epoch.
            auc_E: Validation AUC-ROC after each epoch, where the job asks for it.
            more: What only one competitor has to tell.
        """
        figures = {
            "seconds": time.perf_counter() - self._started,
            "cpu_s": time.process_time() - self._cpu_started,
            "torch": torch_version,
            "val_loss": val_loss,
            "auc": list(auc_E),
        }
        return json.dumps(figures | more)
