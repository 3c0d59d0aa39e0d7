"""Ratios, checks and a table of the figures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Mapping[str, Any]]

# Readings/s that peers reached beside a raw consume of 1,370,000 on a machine of this kind. What runs more than a
# fifth below, measured against the raw consume of its own run, is not a peer but a mistake of ours.
KNOWN_RAW = 1_370_000
KNOWN = {"confluent_orjson": 305_000, "bytewax": 110_000, "quix": 23_000, "kafka_python_plain": 10_000}
KNOWN_SLACK = 0.8

# What is to be reached: (name, dividend, divisor, at least).
RATIOS = (
    ("ours_to_confluent_orjson", "ours", "confluent_orjson", 0.9),
    ("ours_to_bytewax", "ours", "bytewax", 2.5),
    ("ours_to_quix", "ours", "quix", 12.0),
    ("msgpack_chunks_to_wide_json", "ours_msgpack_chunks", "ours", 3.0),
    ("two_members_to_one", "ours_two_members", "ours", None),
    ("zstd_two_members_to_one", "ours_zstd_two_members", "ours_zstd", None),
    ("zstd_to_uncompressed", "ours_zstd", "ours", None),
    ("seam_to_public", "ours", "ours_public", None),
    ("ours_to_kafka_python_plain", "ours", "kafka_python_plain", None),
)
# Members, broker and Redis share the cores: where all are busy, no second member could bring more.
MEMBERS_RATIO = 1.7
FULL_SHARE = 0.9
MAX_RSS_MB = 250
MIN_CHUNK_READINGS = 1_000_000


def ratios(figures: Figures) -> dict[str, float]:
    """Speeds by each other, where both were measured."""
    return {
        name: round(figures[one]["readings_per_s"] / figures[other]["readings_per_s"], 3)
        for name, one, other, _ in RATIOS
        if one in figures and other in figures
    }


def checks(figures: Figures) -> dict[str, bool]:
    """What is to be reached, where it was measured."""
    found = ratios(figures)
    result = {
        f"{name} is at least {least:g}": found[name] >= least
        for name, _, _, least in RATIOS
        if name in found and least is not None
    }
    result |= {
        f"{name} is at least {MEMBERS_RATIO:g}, or no core is left": found[name] >= MEMBERS_RATIO
        or figures[members].get("busy_cores", 0.0) >= FULL_SHARE * (os.cpu_count() or 1)
        for name, members, _, _ in RATIOS
        if name in found and members.endswith("two_members")
    }
    if "ours" in figures:
        result[f"ours stays under {MAX_RSS_MB} MB"] = figures["ours"]["peak_rss_mb"] < MAX_RSS_MB
    if "ours_msgpack_chunks" in figures:
        speed = figures["ours_msgpack_chunks"]["readings_per_s"]
        result[f"MessagePack chunks above {MIN_CHUNK_READINGS:,} readings/s"] = speed > MIN_CHUNK_READINGS
    for name in KNOWN:
        if name in figures and "raw_consume" in figures:
            result[f"{name} runs as fast as it is known to"] = share_of_known(figures, name) >= KNOWN_SLACK
    return result


def share_of_known(figures: Figures, name: str) -> float:
    """Speed of a peer by what is known of it, both against the raw consume of the same machine."""
    raw = figures["raw_consume"]["readings_per_s"]
    share: float = figures[name]["readings_per_s"] / raw / (KNOWN[name] / KNOWN_RAW)
    return share


def machine() -> dict[str, Any]:
    """Where it was measured, and how busy that was."""
    return {"cpus": os.cpu_count(), "load_average": [round(each, 2) for each in os.getloadavg()]}


def table(result: Mapping[str, Any]) -> str:
    """The result for people."""
    lines = [f"{'':22}{'readings/s':>12}{'peak MB':>10}{'CPU s/million':>15}  path"]
    for name, figures in result.items():
        if isinstance(figures, dict) and "readings_per_s" in figures:
            lines.append(
                f"{name:22}{figures['readings_per_s']:>12,}{figures['peak_rss_mb']:>10.1f}"
                f"{figures['cpu_s_per_million']:>15.3f}  {figures.get('path', '')}"
            )
    lines += [f"{name:34}{ratio:8.2f}" for name, ratio in result["ratios"].items()]
    lines += [f"{'ok' if passed else 'FAILED':7}{name}" for name, passed in result["checks"].items()]
    return "\n".join(lines)
