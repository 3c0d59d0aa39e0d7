"""How fast do readings become windows in Redis, beside peers? `python -m benchmarks.ingest [--json]`

Fills topics with readings of 20 casts at once and lets each competitor make windows of 300 steps of them, one
after the other. All of them must leave the same windows. `docs/benchmarks.md` says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ingest import ours, peers, report
from benchmarks.ingest.child import CompetitorError
from benchmarks.ingest.environment import PeersMissingError, peers_python
from benchmarks.ingest.load import WINDOW_STEPS, Load, checksum, fill
from benchmarks.ingest.measured import Run, check_windows, medians
from streamer.config import KafkaConfig, RedisConfig
from streamer.embedded import EmbeddedBroker, EmbeddedRedis, EmbeddedServerError
from streamer.store.connection import connect

NUM_CASTS = 20
NUM_READINGS = 400_000
# Behind the last full window of a cast, so that the watermark passes its end.
TAIL_STEPS = 200
# One record holds ten readings, and they are fast: enough of them for the clock.
CHUNK_FACTOR = 5
CHUNK_STEPS = 10


def make_load(num_readings: int) -> Load:
    """The load nearest to a number of readings: whole windows and a tail."""
    num_windows = max(1, round((num_readings / NUM_CASTS - TAIL_STEPS) / WINDOW_STEPS))
    return Load(NUM_CASTS, num_windows * WINDOW_STEPS + TAIL_STEPS)


@dataclass(frozen=True)
class Competitor:
    """Who reads which topic, and how."""

    topic: str = "json"
    is_peer: bool = False
    num_members: int = 1
    sections: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


COMPETITORS = {
    "raw_consume": Competitor(is_peer=True),
    "ours": Competitor(),
    "ours_public": Competitor(sections={"consumer": {"fast_path": "off"}}),
    "confluent_orjson": Competitor(is_peer=True),
    "bytewax": Competitor(is_peer=True),
    "quix": Competitor(is_peer=True),
    "kafka_python_plain": Competitor(is_peer=True),
    "ours_zstd": Competitor(topic="zstd"),
    "ours_msgpack_chunks": Competitor(topic="chunks"),
    "ours_two_members": Competitor(num_members=2),
    "ours_zstd_two_members": Competitor(topic="zstd", num_members=2),
}


class Benchmark:
    """Both servers, the topics that were asked for, and a way to run each competitor."""

    def __init__(self, num_readings: int, stack: ExitStack) -> None:
        self.load, self.chunk_load = make_load(num_readings), make_load(CHUNK_FACTOR * num_readings)
        broker, redis = stack.enter_context(EmbeddedBroker()), stack.enter_context(EmbeddedRedis())
        self._kafka = KafkaConfig(bootstrap_servers=broker.bootstrap_servers)
        self._redis_url, self._pids = redis.url, (broker.pid, redis.pid)
        self._client = connect(RedisConfig(url=self._redis_url))
        stack.callback(self._client.close)
        self._filled: dict[str, int] = {}

    def run(self, name: str) -> Run:
        """Runs one competitor on an empty Redis.

        Raises:
            CompetitorError: It failed, or its windows are not those of the load.
        """
        competitor = COMPETITORS[name]
        load = self.chunk_load if competitor.topic == "chunks" else self.load
        topic, num_records = self._topic(competitor.topic)
        servers = {"kafka": self._kafka.bootstrap_servers, "redis_url": self._redis_url}
        self._client.flushall()
        if competitor.is_peer:
            result = peers.run(name, load, python=peers_python(), topic=topic, client=self._client, **servers)
        else:
            result = ours.run(
                name,
                load,
                num_records,
                topic=topic,
                num_members=competitor.num_members,
                sections=competitor.sections,
                servers=self._pids,
                **servers,
            )
        check_windows(result, load, checksum(load.windows()))
        return result

    def _topic(self, form: str) -> tuple[str, int]:
        """Name and number of records of a topic, filled when it is first asked for."""
        name = f"bench.{form}"
        if form not in self._filled:
            say(f"filling {name}")
            if form == "chunks":
                records = self.chunk_load.msgpack_chunks(CHUNK_STEPS)
                self._filled[form] = fill(self._kafka, name, records)
            else:
                compression = "zstd" if form == "zstd" else None
                self._filled[form] = fill(self._kafka, name, self.load.wide_json(), compression=compression)
        return name, self._filled[form]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns 1 when a check fails or a run is void."""
    options = _options(arguments)
    runs: dict[str, list[Run]] = {name: [] for name in options.only}
    before = report.machine()
    try:
        with ExitStack() as stack:
            benchmark = Benchmark(options.readings, stack)
            for number in range(options.repeat):
                for name in options.only:
                    runs[name].append(benchmark.run(name))
                    say(
                        f"{number + 1}/{options.repeat} {name}: {runs[name][-1].readings_per_s:,.0f} readings/s"
                    )
            load = benchmark.load
    except (CompetitorError, PeersMissingError, EmbeddedServerError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    figures = {name: medians(each) for name, each in runs.items()}
    num_windows, digest = checksum(load.windows())
    result: dict[str, Any] = figures | {
        "ratios": report.ratios(figures),
        "checks": report.checks(figures),
        "path": figures["ours"]["path"] if "ours" in figures else None,
        "readings": load.num_readings,
        "repeat": options.repeat,
        "windows": {"number": num_windows, "checksum": digest},
        "machine": {"before": before, "after": report.machine()},
    }
    print(json.dumps(result) if options.json else report.table(result))
    return 0 if all(result["checks"].values()) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.ingest", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--readings", type=int, default=NUM_READINGS, help="of all casts together")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each; the median counts")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(COMPETITORS), help=",".join(COMPETITORS)
    )
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.only) - set(COMPETITORS)):
        parser.error(f"--only: no such competitor: {', '.join(unknown)}; there are {', '.join(COMPETITORS)}")
    if options.repeat < 1 or options.readings < 1:
        parser.error("--readings and --repeat must be at least 1")
    return options


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
