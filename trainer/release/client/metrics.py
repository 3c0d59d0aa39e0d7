"""Metrics of a scoring service: which models came, and which were skipped.

metrics = SubscriberMetrics()
with ModelSubscriber(kafka, on_result=metrics.on_result) as models:
    ...
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from trainer.release.client.results import SKIP_REASONS, UpdateResult


class SubscriberMetrics:
    """What a `ModelSubscriber` counts, fed by its hook `on_result`.

    Args:
        registry: Where the metrics are registered; by default that of the process.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.updates = Counter("casting_model_updates", "Models handed out.", registry=registry)
        self.skipped = Counter(
            "casting_model_updates_skipped", "Updates not handed out.", ["reason"], registry=registry
        )
        self.version = Gauge(
            "casting_model_update_version", "Version handed out last.", ["model"], registry=registry
        )
        for reason in SKIP_REASONS:
            self.skipped.labels(reason)

    def on_result(self, result: UpdateResult) -> None:
        """Counts an update."""
        if result.skipped is not None:
            self.skipped.labels(result.skipped).inc()
            return
        self.updates.inc()
        if result.version is not None:
            self.version.labels(result.model_name).set(result.version)
