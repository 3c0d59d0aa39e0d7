"""Ratios, checks and a table of the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.train.peers.plain_model import HIDDEN_SIZE, NUM_SENSORS

# {"last" | "pooled": {engine: figures}}
Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
Seconds = Mapping[str, float | None]

READOUTS = {"last": "last", "pooled": "mean"}
WINDOW_STEPS = 300
# Sequences/s that peers reached where a core multiplied matrices at 160 GFLOP/s. What runs more than a fifth below,
# measured against the rate of its own run, is not a peer but a mistake of ours.
KNOWN_CEILING = 160.0
KNOWN = {
    "last": {"lightning": 88.0, "skorch": 87.0, "plain": 84.0},
    "pooled": {"lightning": 590.0, "skorch": 590.0, "plain": 590.0},
}
KNOWN_SLACK = 0.8
# What is to be reached.
TO_LIGHTNING = {"last": 6.0, "pooled": 1.25}
# The gradient of the last output fades into subnormals. Where they cost nothing, both readouts are the same work.
COSTLY = 2.0
RACES = {"scratch": 5.0, "finetune": 15.0}
MAX_VAL_LOSS_RATIO = 1.01
# The default work: an epoch of 1,000 sequences, a batch of 32, a full training of 60 epochs.
MAX_EPOCH_S, MAX_BATCH_S, MAX_TRAINING_S, MAX_RSS_MB = 30.0, 0.05, 600.0, 1000.0


@dataclass
class Core:
    """What one core can do.

    Attributes:
        gflops: GFLOP/s of a large matrix multiplication in float32.
        subnormal_cost: How many times longer a small one takes that reads and writes subnormal numbers.
    """

    gflops: float
    subnormal_cost: float


def like(readout: str, core: Core) -> str:
    """The readout whose known figures and whose target hold on such a core."""
    return readout if core.subnormal_cost >= COSTLY else "pooled"


def flops_a_sequence() -> float:
    """Multiplications and additions of the LSTM's matrices, backwards twice as many as forwards."""
    num_inputs = (NUM_SENSORS, HIDDEN_SIZE)
    forward = sum(2 * 4 * HIDDEN_SIZE * (inputs + HIDDEN_SIZE) for inputs in num_inputs) * WINDOW_STEPS
    return 3.0 * forward


def ceiling_share(sequences_per_s: float, ceiling_gflops: float, num_cpus: int) -> float:
    """Which share of what all cores could multiply went into the LSTM."""
    return round(sequences_per_s * flops_a_sequence() / (ceiling_gflops * 1e9 * num_cpus), 4)


def ratios(figures: Figures) -> dict[str, float]:
    """How many times faster ours is, where both were measured."""
    return {
        f"{readout}_ours_to_{name}": round(speed(engines, "ours") / speed(engines, name), 3)
        for readout, engines in figures.items()
        for name in engines
        if name != "ours" and "ours" in engines
    }


def speed(engines: Mapping[str, Mapping[str, Any]], name: str) -> float:
    """Sequences/s."""
    return float(engines[name]["sequences_per_s"])


def checks(
    figures: Figures, found: Mapping[str, float], seconds: Seconds, core: Core | None
) -> dict[str, bool]:
    """What is to be reached, where it was measured.

    Args:
        figures: Of the throughput.
        found: All ratios.
        seconds: Of the race.
        core: None without throughput.
    """
    result = dict(_race_checks(found, seconds))
    if core is not None:
        result |= dict(_speed_checks(figures, found, core)) | dict(_peer_checks(figures, core))
    return result | agreement(figures)


def agreement(figures: Figures) -> dict[str, bool]:
    """Whether all engines did the same; it must hold however little is measured."""
    result = {}
    for readout, engines in figures.items():
        losses = [each["val_loss"] for each in engines.values()]
        if len(losses) > 1:
            # Each by itself: max() may pass over a NaN.
            within = all(loss <= MAX_VAL_LOSS_RATIO * min(losses) for loss in losses)
            result[f"{readout}: validation losses within 1 %"] = within
            result[f"{readout}: the same torch"] = len({each["torch"] for each in engines.values()}) == 1
    return result


def _speed_checks(figures: Figures, found: Mapping[str, float], core: Core) -> Iterator[tuple[str, bool]]:
    for readout, engines in figures.items():
        name = f"{readout}_ours_to_lightning"
        if name in found:
            least = TO_LIGHTNING[like(readout, core)]
            why = ", as subnormals cost nothing here" if least < TO_LIGHTNING[readout] else ""
            yield f"{name} is at least {least:g}{why}", found[name] >= least
        if "ours" in engines:
            ours = speed(engines, "ours")
            yield f"{readout}: ours, an epoch under {MAX_EPOCH_S:g} s", 1000 / ours < MAX_EPOCH_S
            yield f"{readout}: ours, a batch under {MAX_BATCH_S:g} s", 32 / ours < MAX_BATCH_S
            yield f"{readout}: ours, 60 epochs under {MAX_TRAINING_S:g} s", 60_000 / ours < MAX_TRAINING_S
            yield f"{readout}: ours under {MAX_RSS_MB:g} MB", engines["ours"]["peak_rss_mb"] < MAX_RSS_MB


def _peer_checks(figures: Figures, core: Core) -> Iterator[tuple[str, bool]]:
    for readout, engines in figures.items():
        for name in KNOWN[readout].keys() & engines.keys():
            share = share_of_known(figures, readout, name, core)
            yield f"{readout}: {name} runs as fast as it is known to", share >= KNOWN_SLACK


def share_of_known(figures: Figures, readout: str, name: str, core: Core) -> float:
    """Speed of a peer by what is known of it, both against the matrix-multiply rate of the same machine."""
    known = KNOWN[like(readout, core)][name]
    return speed(figures[readout], name) / known / (core.gflops / KNOWN_CEILING)


def _race_checks(found: Mapping[str, float], seconds: Seconds) -> Iterator[tuple[str, bool]]:
    for name, least in RACES.items():
        if name in seconds:
            yield f"{name} reaches the target", seconds[name] is not None
        if "lightning_at_least" in seconds:
            ratio = found.get(f"seconds_lightning_to_{name}", 0.0)
            yield f"{name} is at least {least:g} times faster than Lightning", ratio >= least


def table(result: Mapping[str, Any]) -> str:
    """The result for people."""
    details = result["details"]
    lines = [f"{'':20}{'sequences/s':>12}{'peak MB':>10}{'CPU s/1000':>12}{'val loss':>10}{'ceiling':>9}"]
    for readout in READOUTS:
        for name, each in details.get(readout, {}).items():
            lines.append(
                f"{readout + ' ' + name:20}{each['sequences_per_s']:>12,.0f}{each['peak_rss_mb']:>10.1f}"
                f"{each['cpu_s_per_thousand']:>12.2f}{each['val_loss']:>10.4f}{each['ceiling_share']:>9.3f}"
            )
    for name, value in (result.get("seconds_to_auc_plain", {}) | result.get("seconds_to_auc", {})).items():
        lines.append(f"{'seconds, ' + name:40}" + ("not reached" if value is None else f"{value:8.2f}"))
    lines += [f"{name:40}{ratio:8.2f}" for name, ratio in result["ratios"].items()]
    lines += [f"{'ok' if passed else 'FAILED':7}{name}" for name, passed in result["checks"].items()]
    return "\n".join(lines)
