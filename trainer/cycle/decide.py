"""Holds a registered challenger against the champion, on the same gate windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime

import numpy as np
import structlog

from trainer.cycle.candidate import TrainingSummary
from trainer.cycle.result import CycleResult
from trainer.cycle.state import Cycle
from trainer.data.dataset import Dataset
from trainer.data.split import Split
from trainer.errors import ArtifactError
from trainer.gate.config import GateConfig
from trainer.gate.policy import GateDecision, decide
from trainer.learn.scores.evaluate import Probabilities
from trainer.release.client.artifact import Artifact, Manifest
from trainer.release.client.inputs import ModelInputs
from trainer.release.registry.event import Decision
from trainer.release.scorer import Scorer

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """A challenger, and what it is held against.

    Attributes:
        champion: None if there is none, or if its file is damaged.
        fault: Why the champion that there is cannot be read.
        baselines: Scores of the baselines on the windows of the gate, by name.
    """

    challenger: Artifact
    champion: Artifact | None
    fault: str | None = None
    baselines: Mapping[str, Probabilities] = dataclasses.field(default_factory=dict)


def judge(
    contest: Contest, dataset: Dataset, split: Split, config: GateConfig, num_threads: int
) -> tuple[GateDecision, str | None]:
    """Decides. A champion that cannot score these windows is told, and the challenger judged as a first model.

    Returns:
        The decision, and why the champion could not score, None if it could or there is none.

    Raises:
        ArtifactError: The challenger itself cannot score.
        NotEnoughDataError: Too few casts in the gate part.
    """
    champion_N, fault = _champion_scores(contest, dataset, split, num_threads)
    if fault:
        log.warning("champion cannot score", error=fault, decided_as="first model")
    gate_N = split.gate_N
    decision = decide(
        dataset.y_N[gate_N],
        np.asarray(dataset.casts)[gate_N],
        _score(contest.challenger, dataset, split, num_threads),
        champion_N,
        config,
        baselines=contest.baselines,
    )
    return decision, fault


def result_of(
    cycle: Cycle,
    manifest: Manifest,
    training: TrainingSummary,
    decided: Decision,
    gate: GateDecision,
    *,
    champion: int | None,
) -> CycleResult:
    """What a cycle came to.

    Args:
        champion: The version that served meanwhile.
    """
    champion_scores = None if gate.champion is None else dataclasses.asdict(gate.champion)
    return CycleResult(
        number=cycle.number,
        trigger=cycle.trigger,
        version=manifest.version,
        parent=manifest.parent,
        windows=manifest.dataset.num_windows,
        defects=manifest.dataset.num_defects,
        seconds=round(seconds_since(cycle.due_at or cycle.began_at, decided.at), 3),
        epochs=training.epochs,
        decision=decided.kind,
        reasons=decided.reasons,
        scores=manifest.scores,
        champion=champion,
        champion_scores=champion_scores,
        baselines=manifest.baselines,
        baseline_gap=manifest.baseline_gap,
        checks=gate.checks,
    )


def warn_if_behind(manifest: Manifest, *, decision: str) -> None:
    """Says that a baseline ranks better than a model does, when it does."""
    if manifest.baseline_gap is not None and manifest.is_behind:
        log.warning(
            "behind a baseline",
            version=manifest.version,
            decision=decision,
            baseline=manifest.better_baseline,
            baseline_gap=round(manifest.baseline_gap, 4),
            mend="see 'The model is behind a baseline' in docs/operations.md",
        )


def seconds_since(began_at: datetime, at: datetime) -> float:
    """Seconds from one moment to the other, 0 where a clock was set back."""
    return max(0.0, (at - began_at).total_seconds())


def _champion_scores(
    contest: Contest, dataset: Dataset, split: Split, num_threads: int
) -> tuple[Probabilities | None, str | None]:
    champion = contest.champion
    if champion is None:
        return None, contest.fault
    frozen = dataset.manifest
    differing = ModelInputs.of(frozen.data, frozen.spec).differences(champion.manifest.inputs)
    if differing:
        return None, f"version {champion.manifest.version} has other inputs: {'; '.join(differing)}"
    try:
        prob_N = _score(champion, dataset, split, num_threads)
    except ArtifactError as exc:
        return None, f"version {champion.manifest.version}: {exc}"
    if not np.isfinite(prob_N).all():
        return None, f"version {champion.manifest.version}: some of its scores are NaN"
    return prob_N, None


def _score(artifact: Artifact, dataset: Dataset, split: Split, num_threads: int) -> Probabilities:
    scorer = Scorer(artifact, num_threads=num_threads)
    return scorer.probabilities(dataset.x_NTF, dataset.mask_NT, index_N=split.gate_N)
