"""Metrics of the trainer."""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trainer.cycle.state import Cycle, State
from trainer.learn.config import MEMBERS
from trainer.learn.report.training_metrics import EpochResult
from trainer.release.client.artifact import Manifest
from trainer.release.registry.event import Decision

ENDINGS = ("promoted", "refused", "failed", "abandoned")
# Kinds of errors that an attempt of a cycle is known to end in; created at 0, so that the first one is an increase.
FAULTS = (
    "ArtifactError",
    "ConfigError",
    "InputsChangedError",
    "ModelInputError",
    "RegistryBehindError",
    "RegistryError",
    "RuntimeError",
    "TrainingDivergedError",
    "TrainingSetupError",
)


class TrainerMetrics:
    """What the trainer counts. Scores are those of the gate windows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=self.registry)

        def counter(name: str, text: str, *labels: str, known: Iterable[str] = ()) -> Counter:
            made = Counter(name, text, labels, registry=self.registry)
            for value in known:
                made.labels(value)
            return made

        self.cycles = counter(
            "casting_trainer_cycles", "Cycles by what became of them.", "decision", known=ENDINGS
        )
        self.failures = counter(
            "casting_trainer_failures",
            "Attempts of a cycle that ended in an error, by its kind.",
            "error",
            known=FAULTS,
        )
        self.write_failures = counter(
            "casting_trainer_write_failures", "Times that the disk of the registry took no write."
        )
        self.epochs = counter("casting_trainer_epochs", "Epochs trained.")
        self.new_windows = gauge(
            "casting_trainer_new_labelled_windows", "Labelled windows since the last cycle."
        )
        self.attempts = gauge(
            "casting_trainer_cycle_attempts", "Attempts of the phase that the cycle is in, without progress."
        )
        self.due_since = gauge(
            "casting_trainer_cycle_due_since_timestamp_seconds",
            "Since when a cycle is due, or in progress, that has not come through; 0: none is.",
        )
        self.unpublished = gauge(
            "casting_trainer_unpublished_events", "Decisions not yet acknowledged by Kafka."
        )
        self.refused_events = gauge(
            "casting_trainer_refused_events",
            "Of these, those that cannot go: too large for Kafka, or files that cannot be read.",
        )
        self.training = gauge("casting_trainer_cycle_in_progress", "1 while a cycle runs.")
        self.ready = gauge(
            "casting_trainer_ready",
            "1 while Redis, lease and disk can be used, and windows fit the champion.",
        )
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
        self.member_weight = Gauge(
            "casting_model_member_weight",
            "What each member counts in the scores of the champion; they sum to 1.",
            ["member"],
            registry=self.registry,
        )
        for member in MEMBERS:
            self.member_weight.labels(member)
        self.auc_roc = gauge("casting_model_auc_roc", "Of the champion when it was promoted.")
        self.auc_pr = gauge("casting_model_auc_pr", "Of the champion when it was promoted.")
        self.newest_auc_roc = gauge(
            "casting_model_newest_auc_roc",
            "Of the champion on the newest gate windows, scored with the last decision; NaN if not known.",
        )
        self.newest_auc_pr = gauge(
            "casting_model_newest_auc_pr",
            "Of the champion on the newest gate windows, scored with the last decision; NaN if not known.",
        )
        self.baseline_gap = gauge(
            "casting_model_baseline_gap",
            "AUC-ROC of the champion less that of the better baseline when it was promoted; NaN if not known.",
        )
        for unknown in (self.baseline_gap, self.newest_auc_roc, self.newest_auc_pr):
            unknown.set(math.nan)
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

    def on_ended(self, cycle: Cycle) -> None:
        """Counts a cycle that is over."""
        self.cycles.labels(cycle.ending).inc()
        if cycle.result is not None:
            self.cycle_seconds.observe(cycle.result.seconds)

    def show_champion(self, manifest: Manifest, decision: Decision | None) -> None:
        """Shows the model that serves."""
        self.version.set(manifest.version)
        self.promoted_at.set(decision.at.timestamp() if decision else 0.0)
        self.auc_roc.set(_or_nan(manifest.scores.get("auc_roc")))
        self.auc_pr.set(_or_nan(manifest.scores.get("auc_pr")))
        for member in MEMBERS:
            self.member_weight.labels(member).set(manifest.members.get(member, 0.0))
        self.baseline_gap.set(_or_nan(manifest.baseline_gap))

    def show_state(self, state: State) -> None:
        """Shows where the cycles stand."""
        in_progress, due_since, serving = state.in_progress, state.due_since(), state.serving
        self.attempts.set(in_progress.attempts if in_progress else 0)
        self.due_since.set(due_since.timestamp() if due_since else 0.0)
        self.newest_auc_roc.set(_or_nan(serving.auc_roc if serving else None))
        self.newest_auc_pr.set(_or_nan(serving.auc_pr if serving else None))


def _or_nan(figure: float | None) -> float:
    return math.nan if figure is None else figure
