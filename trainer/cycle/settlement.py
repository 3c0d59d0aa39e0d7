"""Brings the registry up to what the state of the cycles says, wherever a kill or a full disk cut it off."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime

from trainer.cycle.journal import CycleJournal
from trainer.cycle.state import Cycle
from trainer.release.registry.event import Decision
from trainer.release.registry.registry import Registry


class Settlement:
    """Carries out what is written down: the state is the decision, the registry follows.

    Doing it again changes nothing; what was interrupted is completed by the next call.
    """

    def __init__(self, registry: Registry, journal: CycleJournal, now: Callable[[], datetime]) -> None:
        self._registry, self._journal, self._now = registry, journal, now
        self._is_done = False  # unknown at the start of a process

    def reopen(self) -> None:
        """A cycle has ended: there is something to carry out."""
        self._is_done = False

    def settle(self) -> None:
        """Decides the version of a decided cycle, refuses those of cycles that were given up, tells of failures.

        Raises:
            DiskUnavailableError: Call again.
        """
        if self._is_done:
            return
        cycle, undecided = self._journal.state.cycle, self._registry.undecided()
        if cycle is not None and cycle.version in undecided:
            self._carry_out(cycle)
        current = self._journal.state.in_progress
        mine = None if current is None else self._registry.trained_in(current.number)
        for version in self._registry.undecided():
            if version != mine:
                self._refuse(version, _why_undecided(cycle, version))
        if cycle is not None and cycle.ending == "failed" and not cycle.is_told:
            self._tell_failed(cycle)
        self._is_done = True

    def _carry_out(self, cycle: Cycle) -> None:
        version, decision, result = cycle.version, cycle.decision, cycle.result
        if version is None or decision is None or result is None:
            return
        details = result.model_dump(mode="json", exclude={"number", "decision", "version", "reasons"})
        self._registry.decide(version, decision, {"cycle": cycle.number, "dataset": cycle.dataset, **details})

    def _refuse(self, version: int, reason: str) -> None:
        manifest = self._registry.manifest(version)
        decision = Decision(
            kind="refused", reasons=(reason,), at=self._now(), ce_id=self._id(f"version-{version}-refused")
        )
        details = {"cycle": manifest.cycle, "dataset": manifest.dataset.id}
        self._registry.decide(version, decision, details)

    def _id(self, name: str) -> str:
        """Of an event: the same however often it is told."""
        return str(uuid.uuid5(uuid.UUID(self._registry.identity().id), name))

    def _tell_failed(self, cycle: Cycle) -> None:
        details = {
            "cycle": cycle.number,
            "dataset": cycle.dataset,
            "trigger": cycle.trigger,
            "phase": cycle.phase,
            "faults": cycle.faults,
        }
        self._registry.tell_failed(self._id(f"cycle-{cycle.number}-failed"), cycle.reasons, details)
        self._journal.write(self._journal.state.moved(cycle.told()))


def _why_undecided(cycle: Cycle | None, version: int) -> str:
    if cycle is not None and cycle.ending in ("failed", "abandoned") and cycle.version in (None, version):
        return "; ".join(cycle.reasons)
    return "its cycle ended before it was decided"
