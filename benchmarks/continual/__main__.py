"""The command line: `python -m benchmarks.continual [DIR|simulator ...] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.continual import __doc__ as question
from benchmarks.continual.campaign import Campaign, campaign_of
from benchmarks.continual.run import METHODS, methods_of, test_then_train
from benchmarks.continual.verdict import checks_of, mean_of, table
from benchmarks.labelled import recorded, simulated
from benchmarks.recordings import MAX_STEPS, SIMULATOR, from_least, named
from streamer.config import LoggingConfig
from streamer.errors import CastingError
from streamer.logs import configure_logging
from streamer.plant.simulator import SimulatorConfig
from streamer.settings import load_settings
from trainer.errors import NotEnoughDataError
from trainer.learn.config import ModelSettings

NUM_CHUNKS = 10
# Five regimes, the last one like the first: scored are the second half of the second one and the three behind it. A
# cast is one window, so that the gate, which counts casts, has enough of them at the start.
PLANT = SimulatorConfig(regime_changes=(0.2, 0.4, 0.6, 0.8), min_steps=240, max_steps=300)
# Smaller: the gate part of the first cycle has too few defective casts. Larger: a cycle of ours takes minutes.
NUM_CASTS = 1500


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns 1 unless all holds."""
    parser = argparse.ArgumentParser(prog="benchmarks.continual", description=question)
    parser.add_argument(
        "sources", nargs="*", metavar="DIR", default=[SIMULATOR], help=f"a recording, or {SIMULATOR}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--seeds", type=from_least(0), nargs="+", default=(0,))
    parser.add_argument("--chunks", type=from_least(1), default=NUM_CHUNKS)
    parser.add_argument("--windows", type=from_least(1), help="the first ones of each source; left out: all")
    parser.add_argument("--casts", type=from_least(1), default=NUM_CASTS, help="of each simulated campaign")
    parser.add_argument("--config", type=Path, help="model_config.yaml of ours; left out: the defaults")
    options = parser.parse_args(arguments)
    configure_logging(LoggingConfig(level="error"))
    try:
        settings = load_settings(ModelSettings, options.config) if options.config else ModelSettings()
        result = measure(options, settings)
    except CastingError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(result) if options.json else table(result))
    return 0 if all(result["checks"].values()) else 1


def measure(options: argparse.Namespace, settings: ModelSettings) -> dict[str, Any]:
    """Works all sources off, with every seed.

    Returns:
        `{name: {method: figures}}`, means over the seeds, and beside the names "windows", "mean" and "checks".
    """
    recordings, windows = {}, {}
    # All are read before the first training: a fault is told in seconds.
    campaigns = {name: _open(source, options) for name, source in named(options.sources).items()}
    for name, campaign_by_seed in campaigns.items():
        reports = []
        for seed, campaign in campaign_by_seed.items():

            def say(text: str, head: str = f"{name} seed {seed}") -> None:
                print(f"{head} {text}", file=sys.stderr, flush=True)

            with methods_of(campaign, settings, seed, options.methods) as methods:
                reports.append(test_then_train(campaign, methods, options.chunks, say))
        recordings[name] = {method: mean_of([report[method] for report in reports]) for method in reports[0]}
        windows[name] = mean_of([_sizes(each, options.chunks) for each in campaign_by_seed.values()])
    mean = {
        method: {
            figure: mean_of([report[method] for report in recordings.values()])[figure]
            for figure in ("auc_roc", "auc_pr")
        }
        for method in next(iter(recordings.values()))
    }
    return {**recordings, "windows": windows, "mean": mean, "checks": checks_of(recordings, mean)}


def _open(source: str, options: argparse.Namespace) -> dict[int, Campaign]:
    """The campaign of each seed: a recording is the same for all."""
    try:
        if source == SIMULATOR:
            return {
                seed: campaign_of(simulated(seed, options.casts, PLANT), MAX_STEPS, options.windows)
                for seed in options.seeds
            }
        campaign = campaign_of(recorded(Path(source)), MAX_STEPS, options.windows)
    except NotEnoughDataError as exc:
        raise NotEnoughDataError(f"{source}: {exc}") from exc
    return dict.fromkeys(options.seeds, campaign)


def _sizes(campaign: Campaign, num_chunks: int) -> dict[str, float]:
    chunks = campaign.chunks(num_chunks)
    begin = int(chunks[0][0])
    return {
        "start": begin,
        "scored": len(campaign) - begin,
        "chunks": len(chunks),
        "base_rate": float(campaign.y_N[begin:].mean()),
    }


if __name__ == "__main__":
    sys.exit(main())
