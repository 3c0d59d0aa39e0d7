"""What must hold, and the table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.continual.run import FIGURES, METHODS

# Behind the best rival on one recording.
MOST_BEHIND = 0.01
RANKING = {"auc_roc": "AUC-ROC", "auc_pr": "AUC-PR"}

Report = dict[str, Any]


def mean_of(reports: list[Report]) -> Report:
    """The mean of each figure."""
    return {key: float(np.mean([report[key] for report in reports])) for key in reports[0]}


def checks_of(recordings: Mapping[str, Mapping[str, Report]], mean: Mapping[str, Report]) -> dict[str, bool]:
    """What must hold; empty where ours, or every rival, was left out."""
    rivals = [name for name in mean if name != "ours"]
    if "ours" not in mean or not rivals:
        return {}
    checks = {}
    for figure, title in RANKING.items():
        for name, report in recordings.items():
            ahead = _ahead(report, rivals, figure)
            checks[f"{name}: at most {MOST_BEHIND} {title} behind the best rival"] = ahead >= -MOST_BEHIND
        checks[f"mean {title} ahead of every rival"] = _ahead(mean, rivals, figure) > 0
    if "lstm_refit" in rivals:
        for name, report in recordings.items():
            cheaper = report["ours"]["seconds"] <= report["lstm_refit"]["seconds"]
            checks[f"{name}: trains no longer than lstm_refit"] = bool(cheaper)
    return checks


def _ahead(report: Mapping[str, Report], rivals: list[str], figure: str) -> float:
    return float(report["ours"][figure]) - max(float(report[name][figure]) for name in rivals)


def table(result: Report) -> str:
    """The result for people."""
    titles = ("AUC-ROC", "AUC-PR", "Brier", "ECE", "seconds", "published", "refused", "unscored")
    lines = [f"{'':26}" + "".join(f"{title:>10}" for title in titles)]
    for name, sizes in result["windows"].items():
        lines.append(f"{name}: " + ", ".join(f"{number:g} {what}" for what, number in sizes.items()))
        for method in METHODS:
            if method in result[name]:
                lines.append(f"  {method:24}" + _row(result[name][method]))
    lines.append("mean")
    for method, report in result["mean"].items():
        lines.append(f"  {method:24}" + "".join(f"{report[figure]:10.3f}" for figure in RANKING))
    lines += [f"  {'ok' if holds else 'FAILED':7}{text}" for text, holds in result["checks"].items()]
    return "\n".join(lines)


def _row(report: Report) -> str:
    counts = ("published", "refused", "unscored")
    return (
        "".join(f"{report[figure]:10.3f}" for figure in FIGURES)
        + f"{report['seconds']:10.1f}"
        + "".join(f"{report[count]:10.4g}" for count in counts)
    )
