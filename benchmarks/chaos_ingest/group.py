"""A group of members as child processes: started, killed, started again until the log is read."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from benchmarks.chaos_ingest.cluster import SESSION_MS, num_consumed
from benchmarks.chaos_ingest.member import POINTS, MemberPlan, run_member
from streamer.errors import StoreUnavailableError

# Enough for a loaded machine; a run that goes well does not wait for it.
PATIENCE_S = 120.0
# A member that waits for a rebalance to die in may wait for ever.
STALL_S = 15.0
TURN_S = 0.1
# Longer than a dead member stays in its group.
REJOIN_S = 2 * SESSION_MS / 1000
# How much longer the pauses are while the log is read faster than members die.
SLOWER = 5
RANDOM, REVOKE = "random", "revoke-assign"


class ChaosError(Exception):
    """The run itself failed: a member ended otherwise than it was told to, or nothing moved any more."""


@dataclass
class Slot:
    """One member that runs, and what it is to die of.

    Attributes:
        death: A point, `RANDOM`, or None for a member that is to live.
        due: When it is killed from outside, monotonic seconds.
        killed_in: Lag at the moment at which it was killed from outside.
    """

    process: ForkServerProcess
    death: str | None
    due: float | None = None
    killed_in: int | None = None


@dataclass
class Group:
    """Members of one consumer group over one log.

    Attributes:
        plan: What every member is told; its death is filled in for each.
        num_records: Records of both topics: what the positions come to.
        kills: Kills so far, by kind.
        least_lag: The smallest lag at a kill.
    """

    plan: MemberPlan
    num_records: int
    dice: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    least_lag: int | None = None
    consumed: int = 0
    _died_at: float = 0.0
    _slots: list[Slot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        # Members are forked from a process that has imported everything: one is up in no time.
        self._context.set_forkserver_preload(["benchmarks.chaos_ingest.member"])
        self.pause = self._context.Value("d", self.plan.pause_s)

    def run(
        self, num_members: int, deaths: Sequence[str], on_turn: Callable[[Group], None] = lambda _: None
    ) -> None:
        """Lets members die one after another, a new one in the place of each; the last ones read to the end.

        Args:
            deaths: Points, or `RANDOM`, in order.
            on_turn: Called over and over: what breaks servers.

        Raises:
            ChaosError: A member ended by itself, there is no progress, or the log is over before the last death.
        """
        queue, progress, calm = deque(deaths), _Stall(), _Stall()
        try:
            while queue or self._armed() or not self.at_end():
                self._reap()
                if self.at_end() and (queue or self._armed()):
                    raise ChaosError(f"the log was read after {self.kills.total()} kills: it is too short")
                self._pace(len(deaths))
                self._fill(num_members, queue)
                self._kill_due()
                if calm.seconds(self.kills.total()) > STALL_S:
                    self._provoke(num_members)
                    calm = _Stall()
                if progress.seconds((self.kills.total(), self.consumed)) > PATIENCE_S:
                    raise ChaosError(f"nothing moved for {PATIENCE_S} s: {_tail(self.plan.log)}")
                on_turn(self)
                time.sleep(TURN_S)
                self.look()
            self._stop()
        finally:
            for slot in self._slots:
                slot.process.kill()
                slot.process.join()

    def _pace(self, num_deaths: int) -> None:
        """Slows members down where the log would be over before the last death, and lets the last ones go."""
        if self.kills.total() >= num_deaths:
            self.pause.value = 0.0
        else:
            ahead = self.consumed / self.num_records - self.kills.total() / num_deaths
            self.pause.value = self.plan.pause_s * (SLOWER if ahead > 0 else 1)

    def _fill(self, num_members: int, queue: deque[str]) -> None:
        waits = any(slot.death == REVOKE for slot in self._slots)
        if waits and time.monotonic() < self._died_at + REJOIN_S:
            return  # the others take over first, and give back when it joins: that is a revocation
        while len(self._slots) < num_members:
            others = [death for death in queue if death != REVOKE]
            death = (others if waits and others else queue or [None])[0]
            if death is not None:
                queue.remove(death)
            self._start(death)
            waits = waits or death == REVOKE

    def _provoke(self, num_members: int) -> None:
        """No one has died for a while: one more member makes the group share anew, else one is killed at random."""
        if len(self._slots) == num_members and any(slot.death == REVOKE for slot in self._slots):
            self._start(None)
            return
        for slot in [
            slot for slot in self._slots if slot.death is not None or len(self._slots) > num_members
        ][-1:]:
            slot.due = time.monotonic()

    def at_end(self) -> bool:
        """Whether the positions say that the log is read."""
        return self.consumed >= self.num_records

    def look(self) -> bool:
        """Asks how far the log is read; False if Redis does not answer."""
        try:
            self.consumed = num_consumed(self.plan.settings)
        except StoreUnavailableError:
            return False
        return True

    def _armed(self) -> bool:
        return any(slot.death is not None for slot in self._slots)

    def _start(self, death: str | None) -> None:
        plan = replace(self.plan, point=death, skip=self.dice.randrange(3))
        process = self._context.Process(target=run_member, args=(plan, self.pause))
        process.start()
        due = time.monotonic() + self.dice.uniform(0.5, 9) if death == RANDOM else None
        self._slots.append(Slot(process, death, due))

    def _kill_due(self) -> None:
        self.look()
        for slot in self._slots:
            if slot.due is not None and time.monotonic() >= slot.due and not self.at_end():
                slot.due, slot.killed_in = None, self.num_records - self.consumed
                slot.process.kill()
                slot.process.join()

    def _reap(self) -> None:
        for slot in [slot for slot in self._slots if slot.process.exitcode is not None]:
            self._slots.remove(slot)
            self._died_at = time.monotonic()
            kind, lag = self._last_words(slot.process.pid) or (RANDOM, slot.killed_in)
            if slot.process.exitcode != -signal.SIGKILL or lag is None:
                raise ChaosError(f"a member ended with {slot.process.exitcode}: {_tail(self.plan.log)}")
            self.kills[kind] += 1
            self.least_lag = lag if self.least_lag is None else min(lag, self.least_lag)

    def _last_words(self, pid: int | None) -> tuple[str, int] | None:
        """What a member said before it killed itself: (kind, lag)."""
        if self.plan.notes.exists():
            for line in self.plan.notes.read_text().splitlines():
                note = json.loads(line)
                if note["pid"] == pid:
                    return POINTS.get(note["point"], note["point"]), note["lag"]
        return None

    def _stop(self) -> None:
        """Ends the last members in order."""
        for slot in self._slots:
            slot.process.terminate()
        for slot in self._slots:
            slot.process.join(30)
            if slot.process.exitcode != 128 + signal.SIGTERM:
                raise ChaosError(f"a member ended with {slot.process.exitcode}: {_tail(self.plan.log)}")
        self._slots.clear()


class _Stall:
    """Measures for how long nothing has changed."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = time.monotonic()

    def seconds(self, now: object) -> float:
        if now != self._seen:
            self._seen, self._since = now, time.monotonic()
        return time.monotonic() - self._since


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1500:] if log.exists() else "no log"
