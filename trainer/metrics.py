"""Metrics of the trainer."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trainer.cycle.runner import CycleResult
from trainer.learn.report.training_metrics import EpochResult


class TrainerMetrics:
    """What the trainer counts. Scores are those of the gate windows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self.cycles = counter("casting_trainer_cycles", "Finished cycles by decision.", "decision")
        self.failures = counter("casting_trainer_failures", "Cycles that ended in an error.", "error")
        self.epochs = counter("casting_trainer_epochs", "Epochs trained.")
        self.new_windows = gauge(
            "casting_trainer_new_labelled_windows", "Labelled windows since the last cycle."
        )
        self.unpublished = gauge(
            "casting_trainer_unpublished_events", "Decisions not yet acknowledged by Kafka."
        )
        self.training = gauge("casting_trainer_cycle_in_progress", "1 while a cycle runs.")
        self.ready = gauge("casting_trainer_ready", "1 while Redis and the registry can be used.")
        self.train_loss = gauge("casting_trainer_train_loss", "Of the last epoch.")
        self.val_loss = gauge("casting_trainer_validation_loss", "Of the last epoch.")
        self.val_auc_pr = gauge("casting_trainer_validation_auc_pr", "Of the last epoch.")
        self.val_auc_roc = gauge("casting_trainer_validation_auc_roc", "Of the last epoch.")
        self.sequences_per_s = gauge("casting_trainer_sequences_per_second", "Of the last epoch.")
        self.learning_rate = gauge("casting_trainer_learning_rate", "Of the LSTM in the last epoch.")
        self.grad_norm = gauge("casting_trainer_gradient_norm", "Mean of the last epoch, before clipping.")
        self.clipped = counter("casting_trainer_clipped_steps", "Steps whose gradient was clipped.")
        self.batch_s = gauge("casting_trainer_step_seconds", "Median optimizer step of the last epoch.")
        self.gpu_bytes = gauge("casting_trainer_gpu_memory_bytes", "Most that tensors took so far.")
        self.version = gauge("casting_model_version", "Version that serves, 0 before the first.")
        self.auc_roc = gauge("casting_model_auc_roc", "Of the champion when it was promoted.")
        self.auc_pr = gauge("casting_model_auc_pr", "Of the champion when it was promoted.")
        self.baseline_gap = gauge(
            "casting_model_baseline_gap",
            "AUC-ROC of the champion less that of the better baseline when it was promoted; NaN if not known.",
        )
        self.baseline_gap.set(math.nan)
        self.promoted_at = gauge(
            "casting_model_promoted_timestamp_seconds",
            "When the champion was promoted, seconds since the epoch.",
        )
        self.cycle_seconds = Histogram(
            "casting_trainer_cycle_seconds",
            "From the freeze of the data set to the decision.",
            registry=self.registry,
            buckets=(5, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 14_400),
        )

    def on_epoch(self, epoch: EpochResult) -> None:
        """Shows the last epoch."""
        self.epochs.inc()
        self.train_loss.set(epoch.train_loss)
        self.val_loss.set(epoch.val_loss)
        self.val_auc_roc.set(epoch.val_auc_roc)
        self.val_auc_pr.set(epoch.val_auc_pr)
        self.learning_rate.set(epoch.learning_rate)
        self.grad_norm.set(epoch.grad_norm)
        self.clipped.inc(epoch.num_clipped)
        self.batch_s.set(epoch.batch_ms_median / 1000)
        self.gpu_bytes.set(epoch.gpu_mb * 2**20)
        self.sequences_per_s.set(epoch.sequences_per_s)

    def on_cycle(self, result: CycleResult) -> None:
        """Counts a finished cycle."""
        self.cycles.labels(result.decision).inc()
        self.cycle_seconds.observe(result.seconds)
