"""Does memory stay where it is at full speed, over many millions of readings? `python -m benchmarks.soak [--json]`

Fills a topic with casts, one round of 20 after the other, and lets two members work it off with retention by count.
Memory of each member and of Redis at 20 % and at the end may differ by 5 %; the lag must be zero then, every reading
placed, every window sealed, and the group must not have rebalanced. `docs/benchmarks.md` says how it is measured.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from benchmarks.ingest import report
from benchmarks.ingest.child import Child, CompetitorError
from benchmarks.ingest.load import LOWEST, MSGPACK, NUM_PARTITIONS, PERIOD_MS, SENSORS, START_TS, Record, fill
from benchmarks.ingest.ours import Group
from streamer.config import KafkaConfig
from streamer.embedded import EmbeddedBroker, EmbeddedRedis, EmbeddedServerError
from streamer.kafka import end_offsets

TOPIC = "soak.readings"
NUM_READINGS = 10_000_000
NUM_MEMBERS = 2
CASTS_A_ROUND = 20
CAST_STEPS = 1_200
WINDOWS_A_CAST = CAST_STEPS // 300
# Log time between the rounds: the lateness of one is over before the next begins.
ROUND_MS = (CAST_STEPS + 100) * PERIOD_MS
CHUNK_STEPS = 10
# One cast in so many sends wide JSON, the others MessagePack chunks: the broker keeps all records in memory.
WIDE_JSON_EVERY = 10
# Retention is at work long before the first look at memory, which comes after a fifth of the rounds.
ROUNDS_KEPT = 0.05
# At full speed a plant's hour goes by in a second: limits are looked at more often than a plant would.
INTERVAL_S = 0.05
# The default, but a hundredth of the run at most: what a batch takes is taken well before the first look.
MAX_POLL_RECORDS = 20_000
EARLY, LATE = 0.2, 1.0
# Half the width of a look, in shares of the run. Smaller: Redis is seen in too few of its teeth to find their floor.
LOOK = 0.08
MAX_GROWTH = 0.05
PATIENCE_S = 3_600.0


@dataclass(frozen=True)
class Sample:
    """One look at the group.

    Attributes:
        share: Of the records that are consumed.
        member_mb: Resident memory of each member.
        redis_mb: `used_memory`.
    """

    share: float
    member_mb: tuple[float, ...]
    redis_mb: float


class Campaign:
    """Rounds of casts: 20 side by side, all of one length, each with its end event."""

    def __init__(self, num_readings: int) -> None:
        self.num_rounds = max(1, round(num_readings / (CASTS_A_ROUND * CAST_STEPS)))
        self.num_casts = self.num_rounds * CASTS_A_ROUND
        self.num_readings = self.num_casts * CAST_STEPS
        self.num_windows = self.num_casts * WINDOWS_A_CAST

    def records(self) -> Iterator[Record]:
        """Readings and end events in the order of time; the last round is followed by what closes it."""
        for number in range(self.num_rounds):
            yield from self._round(number)
        # Two readings a partition move log time past the lateness of the last round.
        after = START_TS + self.num_rounds * ROUND_MS
        for k in range(4 * NUM_PARTITIONS):
            for ts in (after, after + PERIOD_MS):
                yield f"clock-{k}", ts, self._wide(f"clock-{k}", ts, LOWEST), ()

    def _round(self, number: int) -> Iterator[Record]:
        dice = np.random.default_rng(number)
        walk_CTF = np.cumsum(dice.integers(-20, 21, (CASTS_A_ROUND, CAST_STEPS, len(SENSORS))), axis=1)
        values_CTF = (np.abs(walk_CTF) / 1000 + np.array(LOWEST)).astype("<f4")
        encode = msgspec.msgpack.Encoder().encode
        start = START_TS + number * ROUND_MS
        for step in range(0, CAST_STEPS, CHUNK_STEPS):
            ts = start + step * PERIOD_MS
            for k in range(CASTS_A_ROUND):
                cast_id, rows_TF = f"S{number:06d}-{k:02d}", values_CTF[k, step : step + CHUNK_STEPS]
                if k % WIDE_JSON_EVERY == 0:
                    for n, row in enumerate(rows_TF.tolist()):
                        at = ts + n * PERIOD_MS
                        yield cast_id, at, self._wide(cast_id, at, row), ()
                    continue
                chunk = {"cast_id": cast_id, "strand": k % 4, "ts": ts, "period_ms": PERIOD_MS}
                value = encode(chunk | {"values": rows_TF.tobytes()})
                yield cast_id, ts + (CHUNK_STEPS - 1) * PERIOD_MS, value, MSGPACK
        last = start + (CAST_STEPS - 1) * PERIOD_MS
        for k in range(CASTS_A_ROUND):
            cast_id = f"S{number:06d}-{k:02d}"
            end = json.dumps({"cast_id": cast_id, "ts": last, "event": "cast_end"}).encode()
            yield cast_id, last, end, ()

    @staticmethod
    def _wide(cast_id: str, ts: int, row: Sequence[float]) -> bytes:
        fields = ",".join(f'"{name}":{value:.3f}' for name, value in zip(SENSORS, row, strict=True))
        return f'{{"cast_id":"{cast_id}","strand":0,"ts":{ts},{fields}}}'.encode()


def soak(num_readings: int, max_growth: float = MAX_GROWTH) -> dict[str, Any]:
    """Runs it and returns all figures.

    Raises:
        CompetitorError: A member ended, or the group stood still.
    """
    campaign, before = Campaign(num_readings), report.machine()
    with ExitStack() as stack:
        broker, redis = stack.enter_context(EmbeddedBroker()), stack.enter_context(EmbeddedRedis())
        kafka = KafkaConfig(bootstrap_servers=broker.bootstrap_servers)
        say(f"filling {TOPIC} with {campaign.num_readings:,} readings")
        num_records = fill(kafka, TOPIC, campaign.records(), compression="zstd")
        kept = max(2, round(ROUNDS_KEPT * campaign.num_rounds))
        retention = {
            "max_casts": kept * CASTS_A_ROUND,
            "stubs_s": kept * ROUND_MS / 1000,
            "interval_s": INTERVAL_S,
        }
        consumer = {"max_poll_records": max(100, min(MAX_POLL_RECORDS, num_records // 100))}
        sections: dict[str, Mapping[str, object]] = {"retention": retention, "consumer": consumer}
        group = Group(broker.bootstrap_servers, redis.url, TOPIC, sections)
        stack.callback(group.close)
        group.start(NUM_MEMBERS)
        assignments = [_assignments(member) for member in group.members]
        group.go()
        samples, seconds = _watch(group, num_records)
        counters = _counters(group)
        ends = end_offsets(kafka, [TOPIC])
        figures: dict[str, Any] = {
            "readings": campaign.num_readings,
            "records": num_records,
            "seconds": round(seconds, 1),
            "readings_per_s": round(campaign.num_readings / seconds),
            "members": [
                _growth(*_two_looks([each.member_mb[k] for each in samples], samples, statistics.median))
                for k in range(NUM_MEMBERS)
            ],
            "redis": _redis_memory([each.redis_mb for each in samples], samples),
            "lag": sum(ends.values()) - group.num_consumed(),
            "rebalances": sum(map(_assignments, group.members)) - sum(assignments),
            "placed": counters["steps_total placed"],
            "windows_sealed": counters["windows_sealed_total"],
            "retention": retention,
            **consumer,
            "samples": len(samples),
            "machine": {"before": before, "after": report.machine()},
        }
    memory = {f"member {k + 1}": each for k, each in enumerate(figures["members"])} | {
        "redis": figures["redis"]
    }
    figures["checks"] = {
        **{
            f"memory of {name} grows by less than {max_growth:.0%}": each["growth"] < max_growth
            for name, each in memory.items()
        },
        "lag is zero": figures["lag"] == 0,
        "no rebalance": figures["rebalances"] == 0,
        "every reading placed": figures["placed"] >= campaign.num_readings,
        "every window sealed": figures["windows_sealed"] >= campaign.num_windows,
    }
    return figures


def _watch(group: Group, num_records: int) -> tuple[list[Sample], float]:
    """Looks at memory until all records are consumed; the seconds that took."""
    samples: list[Sample] = []
    began, deadline = time.monotonic(), time.monotonic() + PATIENCE_S
    while not samples or samples[-1].share < 1:
        for member in group.members:
            member.check()
        if time.monotonic() > deadline:
            raise CompetitorError(f"the group did not get on: {group.members[0].log[-1500:]}")
        time.sleep(0.05)
        consumed = group.num_consumed()
        if consumed == 0:
            began = time.monotonic()
            continue
        used: Any = group.client.info("memory")
        rss = tuple(member.rss_mb() for member in group.members)
        samples.append(Sample(consumed / num_records, rss, used["used_memory"] / 2**20))
    return samples, time.monotonic() - began


def _redis_memory(megabytes: Sequence[float], samples: Sequence[Sample]) -> dict[str, float]:
    """What retention leaves: `used_memory` is a sawtooth, up with each batch and down with each sweep.

    A median would say where in a tooth most of a look fell. What is swept late or never raises the floor too.
    """
    early_peak, late_peak = _two_looks(megabytes, samples, max)
    peaks = {"early_peak_mb": round(early_peak, 2), "late_peak_mb": round(late_peak, 2)}
    return _growth(*_two_looks(megabytes, samples, min)) | peaks


def _growth(early: float, late: float) -> dict[str, float]:
    return {"early_mb": round(early, 2), "late_mb": round(late, 2), "growth": round(late / early - 1, 4)}


def _two_looks(
    megabytes: Sequence[float], samples: Sequence[Sample], summary: Callable[[list[float]], float]
) -> tuple[float, float]:
    """Memory at 20 % and at the end: what a summary makes of the samples near each, or of the nearest one."""
    early, late = (_near(share, megabytes, samples) for share in (EARLY, LATE))
    return summary(early), summary(late)


def _near(share: float, megabytes: Sequence[float], samples: Sequence[Sample]) -> list[float]:
    distances = [abs(each.share - share) for each in samples]
    width = max(LOOK, min(distances))
    return [mb for mb, distance in zip(megabytes, distances, strict=True) if distance <= width]


def _events(member: Child, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in member.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def _assignments(member: Child) -> int:
    """How often its assignment changed, by its log."""
    return len(_events(member, "assignment"))


def _counters(group: Group) -> Counter[str]:
    """Counters of all members together, by name and value of the label."""
    total: Counter[str] = Counter()
    for member in group.members:
        url = f"http://127.0.0.1:{_events(member, 'http')[0]['port']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        for name, label, value in re.findall(
            r'^casting_streamer_(\w+)(?:\{\w+="(\w+)"\})? (\S+)$', text, re.M
        ):
            total[f"{name} {label}".rstrip()] += int(float(value))
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--readings", type=int, default=NUM_READINGS)
    parser.add_argument("--max-growth", type=float, default=MAX_GROWTH, help="of memory, as a share")
    options = parser.parse_args(arguments)
    try:
        figures = soak(options.readings, options.max_growth)
    except (CompetitorError, EmbeddedServerError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(figures) if options.json else table(figures))
    return 0 if all(figures["checks"].values()) else 1


def table(figures: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"{name:18}{value}" for name, value in figures.items() if name not in {"checks", "machine"}]
    lines += [f"{'ok' if passed else 'FAILED':7}{name}" for name, passed in figures["checks"].items()]
    return "\n".join(lines)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
