"""The demo's scoring service: takes every model from the topic and scores casts as they are sealed.

Writes JSON lines to stdout; a line `{"score_casts": [...]}` on stdin asks for the scores of those casts by the
model of the moment.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamer.config import StreamerSettings
from streamer.logs import configure_logging
from streamer.process import StopRequest
from streamer.settings import load_settings
from streamer.store.connection import connect
from streamer.store.keys import Keys
from streamer.store.reading import WindowReader
from streamer.windows import Address
from trainer.data.dataset import load_windows
from trainer.release import ModelInputs, ModelSubscriber, ModelUpdate
from trainer.release.scorer import Scorer

POLL_S = 0.5
# After a swap the newest windows are scored again with the new model.
RESCORED_WINDOWS = 32
BATCH_WINDOWS = 256


class DemoScorer:
    """Holds the model of the moment; a new one replaces it between two batches."""

    def __init__(self, reader: WindowReader) -> None:
        self._reader = reader
        self._scorer: Scorer | None = None
        self._seen: set[Address] = set()

    def swap(self, update: ModelUpdate) -> None:
        """Takes a model into service."""
        self._scorer = Scorer(update.artifact)
        manifest = update.manifest
        _tell(
            "received", version=update.version, parent=manifest.parent, bytes=len(update.data),
            **{name: manifest.scores.get(name) for name in ("auc_roc", "auc_pr")},
        )  # fmt: skip
        self._score(self._reader.sealed()[-RESCORED_WINDOWS:])

    def score_fresh(self) -> None:
        """Scores what was sealed since the last turn."""
        fresh = [window for window in self._reader.sealed() if window not in self._seen]
        self._seen.update(fresh)
        self._score(fresh)

    def _score(self, windows: Sequence[Address]) -> None:
        if self._scorer is None or not windows:
            return
        scores = self._probabilities(windows)
        scores = scores[~np.isnan(scores)]  # the others say too little to be called either
        _tell(
            "scored",
            version=self._scorer.manifest.version,
            windows=len(scores),
            left_out=len(windows) - len(scores),
            called_defective=int((scores >= self._scorer.manifest.threshold).sum()),
        )

    def score_casts(self, cast_ids: Iterable[str]) -> None:
        """Tells the highest window score of each cast that has one."""
        if self._scorer is None:
            _tell("cast_scores", version=None, scores={})
            return
        wanted = set(cast_ids)
        windows = [window for window in self._reader.sealed() if window.cast_id in wanted]
        scores: dict[str, float] = defaultdict(float)
        for window, score in zip(windows, self._probabilities(windows).tolist(), strict=True):
            if not np.isnan(score):
                scores[window.cast_id] = max(scores[window.cast_id], score)
        _tell("cast_scores", version=self._scorer.manifest.version, scores=dict(scores))

    def _probabilities(self, windows: Sequence[Address]) -> np.ndarray[Any, np.dtype[np.float64]]:
        parts = []
        for begin in range(0, len(windows), BATCH_WINDOWS):
            batch = windows[begin : begin + BATCH_WINDOWS]
            x_NTF, mask_NT = load_windows(self._reader, batch)
            assert self._scorer is not None  # noqa: S101 - asked before
            length_N = [window.length for window in batch]
            parts.append(self._scorer.score(x_NTF, mask_NT, length_N=length_N))
        return np.concatenate(parts) if parts else np.empty(0)


def _tell(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)  # noqa: T201 - this is the result


def _requests(lines: Iterable[str]) -> queue.Queue[dict[str, Any]]:
    requests: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in lines:
            requests.put(json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    return requests


def main(config: Path) -> int:
    """Runs until SIGTERM."""
    settings = load_settings(StreamerSettings, config)
    configure_logging(settings.logging)
    stop = StopRequest()
    stop.install()
    client = connect(settings.redis)
    scorer = DemoScorer(WindowReader(client, Keys(settings.redis.namespace), settings.data, settings.windows))
    requests = _requests(sys.stdin)
    inputs = ModelInputs.of(settings.data, settings.windows)
    with ModelSubscriber(settings.kafka, settings.topics.models, inputs=inputs) as models:
        while not stop():
            update = models.poll(timeout_s=POLL_S)
            if update is not None:
                scorer.swap(update)
            scorer.score_fresh()
            while not requests.empty():
                scorer.score_casts(requests.get()["score_casts"])
    client.close()
    return stop.exit_code()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
