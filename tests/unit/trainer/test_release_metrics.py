"""What a scoring service shows to Prometheus."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry, generate_latest

from trainer.release import UpdateResult
from trainer.release.client.metrics import SubscriberMetrics
from trainer.release.client.results import SKIP_REASONS


def shown(registry: CollectorRegistry) -> list[str]:
    return [
        line
        for line in generate_latest(registry).decode().splitlines()
        if line.startswith("casting_") and "_created" not in line
    ]


def test_every_reason_is_there_at_zero_before_anything_came() -> None:
    registry = CollectorRegistry()
    SubscriberMetrics(registry)
    assert shown(registry) == [
        "casting_model_updates_total 0.0",
        *(f'casting_model_updates_skipped_total{{reason="{reason}"}} 0.0' for reason in SKIP_REASONS),
    ]


def test_the_version_is_that_handed_out_last_and_what_was_skipped_does_not_move_it() -> None:
    registry = CollectorRegistry()
    metrics = SubscriberMetrics(registry)
    for result in (
        UpdateResult(None, "defect-lstm", 3),
        UpdateResult("older", "defect-lstm", 2),
        UpdateResult("unreadable"),
        UpdateResult(None, "other", 1),
        UpdateResult(None, "defect-lstm", 1),
    ):
        metrics.on_result(result)
    lines = shown(registry)
    assert "casting_model_updates_total 3.0" in lines
    assert 'casting_model_update_version{model="defect-lstm"} 1.0' in lines
    assert 'casting_model_update_version{model="other"} 1.0' in lines
    assert 'casting_model_updates_skipped_total{reason="older"} 1.0' in lines
    assert 'casting_model_updates_skipped_total{reason="repeated"} 0.0' in lines


def test_a_subscriber_does_not_import_what_counts_it() -> None:
    code = (
        "import sys, trainer.release.client.subscriber; "
        "sys.exit('trainer.release.client.metrics' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
