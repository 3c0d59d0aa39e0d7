"""Runs one peer as a process of its own environment."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ingest.child import Child, CompetitorError
from benchmarks.ingest.load import PERIOD_MS, SENSORS, WINDOW_STEPS, Load, Window, checksum
from benchmarks.ingest.measured import Run
from benchmarks.ingest.ours import PATIENCE_S, SESSION_MS
from benchmarks.peers.job import Job
from streamer.store.connection import Client

MODULES = {
    "raw_consume": "raw_consume",
    "confluent_orjson": "confluent_orjson",
    "bytewax": "bytewax_windows",
    "quix": "quix",
    "kafka_python_plain": "kafka_python_plain",
}
LATENESS_S = 30


def run(name: str, load: Load, *, python: str, kafka: str, redis_url: str, topic: str, client: Client) -> Run:
    """Runs one peer over a full topic and measures it.

    Raises:
        CompetitorError: It failed, or took longer than anyone has patience.
    """
    job = Job(
        bootstrap_servers=kafka,
        topic=topic,
        group_id=f"peer-{uuid.uuid4().hex[:8]}",
        redis_url=redis_url,
        num_records=load.num_readings,
        sensors=SENSORS,
        window_steps=WINDOW_STEPS,
        period_ms=PERIOD_MS,
        lateness_s=LATENESS_S,
        session_timeout_ms=SESSION_MS,
    )
    command = [python, "-m", f"benchmarks.peers.{MODULES[name]}", json.dumps(dataclasses.asdict(job))]
    with tempfile.TemporaryDirectory(prefix="castloop-bench-") as folder:
        with Child(name, command, Path(folder)) as child:
            child.finish(PATIENCE_S)
        marks = json.loads(child.output.strip().splitlines()[-1])
    if not marks:
        raise CompetitorError(f"{name} processed nothing: {child.name}")
    return Run(
        name,
        load.num_readings,
        seconds=marks["ended"] - marks["began"],
        cpu_s=marks["cpu_s"],
        peak_rss_mb=child.peak_rss_mb,
        windows=None if name == "raw_consume" else checksum(_windows(client)),
    )


def _windows(client: Client) -> Iterator[Window]:
    keys = list(client.scan_iter("w:*", count=1000))
    for key in keys:
        _, cast_id, start = key.decode().split(":")
        rows = client.get(key)
        assert isinstance(rows, bytes)
        yield cast_id, int(start), rows
