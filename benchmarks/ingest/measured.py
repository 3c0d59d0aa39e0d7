"""What one run of one competitor gave, and the medians of several."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.ingest.child import CompetitorError
from benchmarks.ingest.load import Load


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        seconds: From the first record received to the last offset processed and its windows written.
        cpu_s: CPU time of the competitor over that stretch, all threads and processes.
        peak_rss_mb: Peak resident memory of its processes, start-up included.
        windows: Number and checksum of what it left in Redis; None for a run that writes nothing.
        path: How records were taken from the client, where there are two ways.
        servers_cpu_s: CPU time of broker and Redis meanwhile, where it was measured.
    """

    name: str
    num_readings: int
    seconds: float
    cpu_s: float
    peak_rss_mb: float
    windows: tuple[int, str] | None
    path: str | None = None
    servers_cpu_s: float | None = None

    @property
    def readings_per_s(self) -> float:
        """Speed."""
        return self.num_readings / self.seconds


def check_windows(run: Run, load: Load, expected: tuple[int, str]) -> None:
    """Compares what a run left in Redis with what must come of the load.

    Raises:
        CompetitorError: It differs, so no figure of the whole benchmark counts.
    """
    if run.windows is not None and run.windows != expected:
        raise CompetitorError(
            f"void: {run.name} left {run.windows[0]} windows with checksum {run.windows[1]}, but "
            f"{load.num_readings} readings make {expected[0]} windows with checksum {expected[1]}"
        )


def medians(runs: Sequence[Run]) -> dict[str, Any]:
    """The figures of one competitor: medians over its runs, the largest for memory."""
    figures: dict[str, Any] = {
        "readings_per_s": round(statistics.median(run.readings_per_s for run in runs)),
        "peak_rss_mb": round(max(run.peak_rss_mb for run in runs), 1),
        "cpu_s_per_million": round(statistics.median(1e6 * run.cpu_s / run.num_readings for run in runs), 3),
        "runs": [round(run.readings_per_s) for run in runs],
    }
    if runs[0].path is not None:
        figures["path"] = runs[0].path
    if shares := [_busy_cores(run) for run in runs if run.servers_cpu_s is not None]:
        figures["busy_cores"] = round(statistics.median(shares), 2)
    return figures


def _busy_cores(run: Run) -> float:
    """Cores that the competitor and both servers kept busy: the machine has no more than its cores to give."""
    return (run.cpu_s + (run.servers_cpu_s or 0.0)) / run.seconds
