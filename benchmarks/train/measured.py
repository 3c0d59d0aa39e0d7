"""One training of one competitor in a process of its own, and the medians of several."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ingest.child import Child, CompetitorError
from benchmarks.ingest.environment import ROOT, peers_python
from benchmarks.train.job import Job

MODULES = {
    "ours": "benchmarks.train.ours",
    "lightning": "benchmarks.train.peers.lightning_trainer",
    "skorch": "benchmarks.train.peers.skorch_net",
    "plain": "benchmarks.train.peers.plain_loop",
}
# 60 epochs of a peer that computes subnormals take a quarter of an hour.
PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        seconds: From the call that trains to its return, validation after each epoch included.
        cpu_s: CPU time over the same stretch, all threads.
        peak_rss_mb: Peak resident memory of the process and its children, start-up included.
        val_loss: After the last epoch.
        auc: Validation AUC-ROC after each epoch, where it was asked for.
        champion_auc: Of the weights that the training began with.
    """

    seconds: float
    cpu_s: float
    peak_rss_mb: float
    torch: str
    val_loss: float
    auc: tuple[float, ...]
    champion_auc: float | None


def train(name: str, job: Job) -> Run:
    """Runs one competitor.

    Raises:
        CompetitorError: It failed, or took longer than anyone has patience.
        PeersMissingError: It is a peer, and there is no environment for it.
    """
    told, peak_rss_mb = run_child(name, MODULES[name], job.to_argument(), python=python_of(name))
    return Run(
        seconds=told["seconds"],
        cpu_s=told["cpu_s"],
        peak_rss_mb=peak_rss_mb,
        torch=told["torch"],
        val_loss=told["val_loss"],
        auc=tuple(told["auc"]),
        champion_auc=told.get("champion_auc"),
    )


def python_of(name: str) -> str:
    """The interpreter of a competitor: ours has the product's environment, the peers have their own."""
    if name == "ours":
        return sys.executable
    return peers_python(ROOT / "benchmarks" / "train" / "peers.txt", ROOT / "constraints.txt")


def ceiling() -> tuple[float, float]:
    """Of one core: its matrix-multiply rate in GFLOP/s, and how many times longer subnormal numbers take."""
    told, _ = run_child("ceiling", "benchmarks.train.ceiling", python=sys.executable)
    return float(told["gflops"]), float(told["subnormal_cost"])


def run_child(name: str, module: str, *arguments: str, python: str) -> tuple[dict[str, Any], float]:
    """Runs a module to its end; what its last line says, and its peak memory in MB.

    Raises:
        CompetitorError: It failed, did not end with its figures, or took longer than anyone has patience.
    """
    with tempfile.TemporaryDirectory(prefix="castloop-bench-") as folder:
        with Child(name, [python, "-m", module, *arguments], Path(folder)) as child:
            child.finish(PATIENCE_S)
        said = child.output.strip().rpartition("\n")[2]
        try:
            told: dict[str, Any] = json.loads(said)
        except ValueError as exc:
            raise CompetitorError(f"{name} said {said!r} in place of figures: {child.log[-1500:]}") from exc
        return told, child.peak_rss_mb


def medians(runs: Sequence[Run], num_sequences: int) -> dict[str, Any]:
    """The figures of one competitor: medians over its runs, the largest for memory.

    Args:
        runs: On the same job.
        num_sequences: Trained by each, all epochs together.
    """
    return {
        "sequences_per_s": round(statistics.median(num_sequences / run.seconds for run in runs), 1),
        "peak_rss_mb": round(max(run.peak_rss_mb for run in runs), 1),
        "cpu_s_per_thousand": round(statistics.median(1000 * run.cpu_s / num_sequences for run in runs), 2),
        "val_loss": statistics.median(run.val_loss for run in runs),
        "torch": runs[-1].torch,
        "runs": [round(num_sequences / run.seconds, 1) for run in runs],
    }
