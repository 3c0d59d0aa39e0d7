"""The runs: calm, chaos, and one for each broken variant; and what they say."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos_ingest.broken import VARIANTS
from benchmarks.chaos_ingest.cluster import Assignment, Cluster, Feeder
from benchmarks.chaos_ingest.generator import Plan, plant
from benchmarks.chaos_ingest.group import RANDOM, Group
from benchmarks.chaos_ingest.log import LABELS, READINGS, Expected
from benchmarks.chaos_ingest.member import END_INDEX, VARIANT, MemberPlan
from benchmarks.chaos_ingest.observe import difference, digest, ledger_faults, observe
from benchmarks.reference import expected
from streamer.config import StreamerSettings

# Of a batch, while members are to be killed: so that the log lasts as long as the kills.
PAUSE_S = 0.15
# A power cut comes after so many acknowledged records: that many are lost.
CUT_RECORDS = 150


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to servers, each at a number of kills."""

    broker_cuts: Sequence[int] = ()
    redis_restarts: Sequence[int] = ()
    power_cuts: Sequence[int] = ()


@dataclass
class Breaker:
    """Breaks servers while a group runs, and sends labels as it goes on."""

    cluster: Cluster
    trouble: Trouble
    feeder: Feeder | None = None
    num_deaths: int = 1
    bytes_lost: int = 0
    records_lost: int = 0
    done: dict[str, int] = field(
        default_factory=lambda: {"broker_cuts": 0, "redis_restarts": 0, "power_cuts": 0}
    )
    _kept: tuple[dict[Any, int], int] | None = None

    def __call__(self, group: Group) -> None:
        """One turn."""
        kills = group.kills.total()
        if self.feeder is not None:
            # The last ones come when all is said and done: someone has to move every position to the end.
            most = 1.0 if self.is_done() else 0.9
            self.feeder.send(LABELS, min(most, (kills + 1) / self.num_deaths))
        if self._due("broker_cuts", kills):
            self.cluster.broker.proxy.cut()
        if self._due("redis_restarts", kills):
            self.cluster.redis.restart()
        self._cut_power(group, kills)

    def _due(self, name: str, kills: int) -> bool:
        times: Sequence[int] = getattr(self.trouble, name)
        if self.done[name] < len(times) and kills >= times[self.done[name]]:
            self.done[name] += 1
            return True
        return False

    def _cut_power(self, group: Group, kills: int) -> None:
        """Notes how long Redis' file is, lets more be written and acknowledged, and cuts it to that length."""
        if self._kept is None:
            if self._due("power_cuts", kills):
                self._kept = self.cluster.redis.sizes(), group.consumed
        elif group.consumed - self._kept[1] >= CUT_RECORDS:
            group.look()
            before = group.consumed
            self.bytes_lost += self.cluster.redis.power_cut(self._kept[0])
            while not group.look():  # it reads its file
                time.sleep(0.01)
            self.records_lost += before - group.consumed
            self._kept = None

    def is_done(self) -> bool:
        """Whether everything that was to happen has happened."""
        return self._kept is None and all(
            number == len(getattr(self.trouble, name)) for name, number in self.done.items()
        )


@dataclass(frozen=True, slots=True)
class Size:
    """How large a chaos run is."""

    num_casts: int
    num_partitions: int
    num_members: int
    kills: int
    trouble: Trouble
    seed: int = 1
    assignment: Assignment = "range"


def full_size(kills: int, seed: int = 1, assignment: Assignment = "range") -> Size:
    """The run of the command line: the log grows with the kills."""
    tenth = max(1, kills // 10)
    return Size(
        num_casts=40 + 10 * kills,
        num_partitions=4,
        num_members=3,
        kills=kills,
        trouble=Trouble(
            broker_cuts=range(tenth, kills, tenth),
            redis_restarts=(kills // 4, 3 * kills // 4),
            power_cuts=(kills // 2,),
        ),
        seed=seed,
        assignment=assignment,
    )


def deaths(kills: int, dice: random.Random) -> list[str]:
    """What the members die of: each point at least five times in a run of fifty, the rest at random."""
    each = max(1, min(6, kills // 8))
    write_commit = [("rows-position", "position-commit")[k % 2] for k in range(each)]
    points = write_commit + each * ["seal-index", "letter-commit", "revoke-assign"]
    others = [RANDOM] * (kills - len(points))
    # A member that waits for a rebalance needs others that die: the last deaths are none of those.
    mixed = points + others[:-3]
    dice.shuffle(mixed)
    return mixed + others[-3:]


def chaos(size: Size, say: Callable[[str], None]) -> dict[str, Any]:
    """The chaos run, the calm run over the same log, and both against the reference and the plan."""
    plan = plant(seed=size.seed, num_casts=size.num_casts, num_partitions=size.num_partitions)
    wanted = expected(plan.log)
    began = time.monotonic()
    with Cluster() as cluster:
        settings = cluster.settings("log", "chaos", size.num_partitions, size.assignment)
        group = _group(cluster, settings, plan, seed=size.seed)
        with Feeder(settings, plan) as feeder:
            feeder.send(READINGS)
            say(f"fed {plan.num_records} records")
            breaker = Breaker(cluster, size.trouble, feeder, size.kills)
            group.run(size.num_members, deaths(size.kills, group.dice), breaker)
        seen = observe(settings)
        say(f"chaos: {dict(group.kills)} in {time.monotonic() - began:.0f} s")
        calm_settings = cluster.settings("log", "calm", size.num_partitions)
        _group(cluster, calm_settings, plan, pause_s=0).run(1, ())
        calm = observe(calm_settings)
        say(f"calm run read after {time.monotonic() - began:.0f} s")
    return _verdict(plan, wanted, calm, seen) | {
        "assignment": size.assignment,
        "kills": group.kills.total(),
        "kills_by_point": dict(sorted(group.kills.items())),
        "least_lag": group.least_lag,
        "broker_cuts": breaker.done["broker_cuts"],
        "broker_connections_cut": cluster.broker.proxy.num_cut,
        "redis_restarts": breaker.done["redis_restarts"] + breaker.done["power_cuts"],
        "redis_bytes_cut": breaker.bytes_lost,
        "redis_records_cut": breaker.records_lost,
        "troubles_done": breaker.is_done(),
        "seconds": round(time.monotonic() - began, 1),
    }


def _verdict(plan: Plan, wanted: Expected, calm: Expected, seen: Expected) -> dict[str, Any]:
    planted = wanted._replace(records=plan.records, steps=plan.steps)
    faults = {
        f"{run} against {book}": found
        for run, said in (("chaos", seen), ("calm", calm))
        for book, counts in (("plan", planted), ("reference", wanted))
        if (found := ledger_faults(said, counts))
    }
    hashes = {"calm": digest(calm), "chaos": digest(seen), "reference": digest(wanted)}
    differences = {
        run: other for run, said in (("chaos", seen), ("calm", calm)) if (other := difference(said, wanted))
    }
    return {
        "hash_equal": len(set(hashes.values())) == 1,
        "ledger_balanced": not faults,
        "hashes": hashes,
        "differences": differences,
        "ledger_faults": faults,
        "records": plan.num_records,
        "windows": len(wanted.windows),
        "labelled_windows": sum(verdict is not None for _, verdict in wanted.windows.values()),
        "planted": dict(sorted(plan.troubles.items())),
    }


def broken_variant(name: str, cluster: Cluster, seed: int = 1) -> str | None:
    """Runs one broken variant over a small log, with kills where it hurts: what noticed it, None if nothing did."""
    points, trouble = HARM[name]
    # A straggler has its cast looked at again, which mends the index by chance.
    plan = plant(seed=seed, num_casts=12, num_partitions=1, stragglers=name != "no_index_mend")
    settings = cluster.settings(name, "broken", 1)
    with Feeder(settings, plan) as feeder:
        feeder.send(READINGS)
        group = _group(cluster, settings, plan, variant=name)
        group.run(1, points, Breaker(cluster, trouble, feeder))
    seen, wanted = observe(settings), expected(plan.log)
    if digest(seen) != digest(wanted):
        return "hash"
    return "ledger" if ledger_faults(seen, wanted) else None


# Where each broken variant is sure to do harm: deaths, and what happens to servers.
HARM = {
    "commit_first": ([VARIANT] * 2, Trouble()),
    "no_applied_check": (["rows-position"] * 2, Trouble()),
    "no_index_mend": ([END_INDEX] * 2, Trouble()),
    "position_not_compared": ([RANDOM], Trouble(power_cuts=(0,))),
    "dead_letters_after_commit": ([VARIANT] * 2, Trouble()),
}


def broken_variants(say: Callable[[str], None]) -> dict[str, str | None]:
    """What noticed each broken variant; they run side by side, each on servers of its own."""

    def one(name: str) -> str | None:
        with Cluster() as cluster:
            found = broken_variant(name, cluster)
        say(f"broken variant {name}: noticed by {found or 'nothing'}")
        return found

    with ThreadPoolExecutor(len(VARIANTS)) as pool:
        return dict(zip(VARIANTS, pool.map(one, VARIANTS), strict=True))


def _group(
    cluster: Cluster,
    settings: StreamerSettings,
    plan: Plan,
    *,
    pause_s: float = PAUSE_S,
    seed: int = 1,
    variant: str | None = None,
) -> Group:
    ends = {
        (settings.topics.readings, number): len(entries)
        for (kind, number), entries in plan.log.items()
        if kind == READINGS
    }
    name = settings.redis.namespace
    return Group(
        plan=MemberPlan(
            settings=settings,
            ends=ends,
            notes=cluster.folder / f"{name}.notes",
            log=cluster.folder / f"{name}.log",
            pause_s=pause_s,
            variant=variant,
        ),
        num_records=plan.num_records,
        dice=random.Random(seed),
    )
