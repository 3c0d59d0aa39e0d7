"""One cycle as a state machine: what it is, where it stands, and the ways from there. No clock, no disk, no network.

    waiting --> frozen --> trained --> decided --> published
       |          |           |
       `----------+-----------+--> failed | abandoned

    waiting     it was begun: a trigger fired, windows are chosen
    frozen      its data set lies on disk and is held in Redis
    trained     its model is a version of the registry, not yet decided
    decided     the version is promoted or refused; the decision may still wait for Kafka
    published   Kafka has acknowledged all that was decided

A cycle number is used once, whatever becomes of the cycle. The windows of one that failed or was abandoned stay news.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field

from trainer.cycle.config import CycleConfig
from trainer.cycle.result import CycleResult, Record
from trainer.data.config import DatasetConfig
from trainer.release.registry.event import Decision
from trainer.triggers import Trigger

Phase = Literal["waiting", "frozen", "trained", "decided", "published"]
Ending = Literal["promoted", "refused", "failed", "abandoned"]

# Raised when an older version could not understand what this one writes.
FORMAT = 2
# Of the attempts of one cycle: enough to see whether they fail alike.
FAULTS_KEPT = 5
# More failures in a row are more than any wait lasts, and more than a float holds.
MAX_DOUBLINGS = 64


class Cycle(Record):
    """One cycle.

    Attributes:
        number: Never used twice.
        due_at: Since when nothing was missing; None while it waits for windows.
        config: How the data set is split; a configuration changed in mid-cycle does not move the parts.
        configuration: Digest of all that a decision depends on beside the data.
        attempts: Of the present phase; kills behind a new checkpoint are forgiven.
        progress: Which checkpoint the last attempt went on from; another one is progress.
        faults: What ended attempts, the newest last.
        is_forgiven: Whether the last attempt counts for nothing if it left a new checkpoint: it was killed.
        dataset: Id of the frozen data set.
        arrival: Label decisions after this number are news for the next cycle.
        windows: Which are read: namespace and name.
        news_after: Label decisions after this number were news when it began.
        version: That it has registered.
        ending: None while it goes on.
        is_told: Whether the event of its failure was queued.
    """

    number: int = Field(ge=1)
    trigger: Trigger
    began_at: AwareDatetime
    due_at: AwareDatetime | None = None
    config: DatasetConfig
    configuration: str
    phase: Phase = "waiting"
    attempts: int = 0
    progress: str = ""
    faults: tuple[str, ...] = ()
    is_forgiven: bool = True
    dataset: str | None = None
    arrival: int | None = None
    windows: str = ""
    news_after: int = 0
    version: int | None = None
    decision: Decision | None = None
    result: CycleResult | None = None
    ending: Ending | None = None
    reasons: tuple[str, ...] = ()
    ended_at: AwareDatetime | None = None
    is_told: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it is decided, failed or abandoned."""
        return self.ending is not None

    def attempt(self, progress: str) -> Self:
        """One attempt more of the phase; the first again if the last one was killed behind a new checkpoint."""
        was_killed_further_on = progress != self.progress and self.is_forgiven
        attempts = 1 if was_killed_further_on else self.attempts + 1
        return self.with_(attempts=attempts, progress=progress, is_forgiven=True)

    def due(self, now: datetime) -> Self:
        """An attempt begins: from here on it is due."""
        return self.with_(due_at=self.due_at or now)

    def uncounted(self) -> Self:
        """The last attempt was ended from outside (a stop, an outage): it does not count."""
        attempts = max(0, self.attempts - 1)
        waits = self.phase == "waiting" and attempts == 0
        return self.with_(attempts=attempts, due_at=None if waits else self.due_at)

    def faulted(self, fault: str) -> Self:
        """The last attempt failed."""
        return self.with_(faults=(*self.faults, fault)[-FAULTS_KEPT:], is_forgiven=False)

    def why_given_up(self) -> str:
        """Why it is not tried again, from what its attempts said."""
        silent = (
            f"the process ended in the phase after '{self.phase}' without a word: killed, or out of memory?"
        )
        return f"{self.attempts} attempts failed: {self.faults[-1] if self.faults else silent}"

    def frozen(self, dataset: str, arrival: int) -> Self:
        """Its data set lies on disk and is held."""
        return self._entered("frozen", dataset=dataset, arrival=arrival)

    def trained(self, version: int) -> Self:
        """Its model is in the registry."""
        return self._entered("trained", version=version)

    def decided(self, decision: Decision, result: CycleResult) -> Self:
        """What becomes of its version."""
        fields = {
            "decision": decision,
            "result": result,
            "ending": decision.kind,
            "reasons": decision.reasons,
        }
        return self._entered("decided", ended_at=decision.at, **fields)

    def published(self) -> Self:
        """Kafka has it all."""
        return self._entered("published")

    def ended(self, ending: Ending, reason: str, now: datetime) -> Self:
        """It failed or is abandoned; its phase says how far it came."""
        return self.with_(ending=ending, reasons=(reason,), ended_at=now)

    def begun_anew(self, fault: str) -> Self:
        """The phase is begun from its start; what its checkpoints had reached is no progress."""
        return self.faulted(fault).with_(progress="", is_forgiven=True)

    def told(self) -> Self:
        """The event of its failure was queued."""
        return self.with_(is_told=True)

    def _entered(self, phase: Phase, **changes: Any) -> Self:
        return self.with_(phase=phase, attempts=0, progress="", faults=(), is_forgiven=True, **changes)


class ServingScores(Record):
    """How the model that serves ranks the newest gate windows, scored with the last decision."""

    version: int
    auc_pr: float | None = None
    auc_roc: float | None = None


class State(Record):
    """All that a trainer knows of its cycles, in one record on disk.

    Attributes:
        last_number: The highest number of a cycle there ever was.
        cycle: In progress, or the last one.
        windows: Which were read for the last decision: namespace and name; empty: not known.
        dataset: That was frozen for it; held in Redis for as long as it is the last one.
        arrival: Label decisions on these windows after this number are news.
        arrival_before: The same before the last decision.
        refused_configuration: With which the last decision refused; None: it promoted, or there is none.
        decided_at: When the last decision was taken.
        failures: Cycles that failed in a row.
        failing_since: When the first of them was begun.
        retry_at: No cycle begins before, as long as the configuration is the same; None once one has.
    """

    format: int = FORMAT
    last_number: int = 0
    cycle: Cycle | None = None
    windows: str = ""
    dataset: str | None = None
    arrival: int = 0
    arrival_before: int = 0
    refused_configuration: str | None = None
    decided_at: AwareDatetime | None = None
    failures: int = 0
    failing_since: AwareDatetime | None = None
    retry_at: AwareDatetime | None = None
    serving: ServingScores | None = None

    @property
    def in_progress(self) -> Cycle | None:
        """The cycle that is not over, if there is one."""
        return self.cycle if self.cycle and not self.cycle.is_over else None

    def due_since(self) -> datetime | None:
        """Since when a training is due that has not come through: in progress, or failed and not yet tried again.

        A cycle that waits for more windows is not due.
        """
        if self.failing_since is not None:
            return self.failing_since
        return self.in_progress.due_at if self.in_progress else None

    def news_after(self, configuration: str, windows: str, *, is_remembered: bool) -> int:
        """Label decisions after this number are news.

        The windows of a challenger that was refused are news again when the configuration is another one: a gate
        or a model that was set wrong can be set right. All are news where others are read than before, or where
        Redis has forgotten: it counts from the beginning again, and may have passed the number.

        Args:
            configuration: Digest of today's.
            windows: Which are read: namespace and name.
            is_remembered: Whether Redis still holds the data set of the last decision.
        """
        if windows != (self.windows or windows) or not is_remembered:
            return 0
        if self.refused_configuration not in (None, configuration):
            return self.arrival_before
        return self.arrival

    def waits_until(self, configuration: str) -> datetime | None:
        """No cycle begins before this moment; a configuration that was changed is tried at once."""
        is_same = self.cycle is None or self.cycle.configuration == configuration
        return self.retry_at if is_same else None

    def begun(self, cycle: Cycle) -> Self:
        """A new cycle."""
        return self.with_(cycle=cycle, last_number=cycle.number, retry_at=None)

    def moved(self, cycle: Cycle) -> Self:
        """The same cycle somewhere else."""
        return self.with_(cycle=cycle)

    def decided(self, cycle: Cycle) -> Self:
        """The cycle is decided: its windows are used up."""
        arrival = self.arrival if cycle.arrival is None else cycle.arrival
        return self.with_(
            cycle=cycle,
            windows=cycle.windows,
            dataset=cycle.dataset,
            arrival=arrival,
            arrival_before=cycle.news_after,
            refused_configuration=cycle.configuration if cycle.ending == "refused" else None,
            decided_at=cycle.ended_at,
            failures=0,
            failing_since=None,
            retry_at=None,
            serving=_serving(cycle),
        )

    def failed(self, reason: str, now: datetime, config: CycleConfig) -> Self:
        """The cycle failed: the next one waits, longer with each that fails in a row."""
        if self.cycle is None:
            return self
        wait_s = min(config.backoff_s * 2.0 ** min(self.failures, MAX_DOUBLINGS), config.max_backoff_s)
        return self.with_(
            cycle=self.cycle.ended("failed", reason, now),
            failures=self.failures + 1,
            failing_since=self.failing_since or self.cycle.due_at or now,
            retry_at=now + timedelta(seconds=wait_s),
        )

    def abandoned(self, reason: str, now: datetime) -> Self:
        """The cycle is given up through no fault of its own; the next one may begin at once."""
        return self if self.cycle is None else self.with_(cycle=self.cycle.ended("abandoned", reason, now))

    def numbered_from(self, number: int) -> Self:
        """Cycles up to this number are taken: the topics know of them."""
        return self.with_(last_number=max(number, self.last_number))


def _serving(cycle: Cycle) -> ServingScores | None:
    result = cycle.result
    if result is None:
        return None
    if result.decision == "promoted":
        return _scores_of(result.version, result.scores)
    return None if result.champion is None else _scores_of(result.champion, result.champion_scores or {})


def _scores_of(version: int, scores: dict[str, float]) -> ServingScores:
    return ServingScores(version=version, auc_pr=scores.get("auc_pr"), auc_roc=scores.get("auc_roc"))
