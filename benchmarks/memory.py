"""How many copies of its data set does a trainer hold at its worst? `python -m benchmarks.memory [--json]`

Two fresh processes, each of which does its work on little once before it is measured: one freezes a data set from a
real Redis, the other runs a cycle on one of the same size, from the loaders to the decision of the gate. What
resident memory reached above its level before, by the number of windows; a copy is the bytes of values and mask.
`docs/benchmarks.md` says how it is measured.

Shape suffixes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from benchmarks.ingest.child import Child, CompetitorError
from benchmarks.stored import StoredPlant
from streamer.config import DataConfig, RedisConfig, SensorConfig, WindowsConfig
from streamer.embedded import EmbeddedRedis, EmbeddedServerError
from streamer.store.connection import Client, connect
from streamer.store.keys import Keys
from streamer.store.reading import WindowReader
from trainer.cycle.candidate import candidate
from trainer.cycle.challenger import train_challenger
from trainer.cycle.decide import Contest, judge
from trainer.data.config import DatasetConfig
from trainer.data.dataset import Dataset, DatasetManifest, freeze
from trainer.data.split import split_by_time
from trainer.gate.config import GateConfig
from trainer.learn.config import ArchitectureConfig, ModelSettings, TrainingConfig
from trainer.release import read_artifact

NUM_WINDOWS, WINDOW_STEPS, NUM_SENSORS = 20_000, 300, 5
# Windows of a cast overlap: rows lie in Redis once, a window is an address.
HOP_STEPS = 30
NUM_CASTS = 40
# What a first call brings with it, such as imports, threads and arenas, is no part of a data set.
WARM_UP_WINDOWS = 200
PATIENCE_S = 1_800.0


@dataclass(frozen=True)
class Size:
    """Of a data set: N, T, F, and by how many steps one window of a cast lies behind the other."""

    windows: int = NUM_WINDOWS
    steps: int = WINDOW_STEPS
    sensors: int = NUM_SENSORS
    hop: int = HOP_STEPS

    @property
    def windows_a_cast(self) -> int:
        """The same for each of them."""
        return self.windows // NUM_CASTS

    @property
    def bytes_a_window(self) -> int:
        """Values in float32 and a mask."""
        return self.steps * (4 * self.sensors + 1)

    @property
    def data(self) -> DataConfig:
        """What the plant measures."""
        return DataConfig(sensors=tuple(SensorConfig(name=f"s{f}", unit="mm") for f in range(self.sensors)))

    @property
    def spec(self) -> WindowsConfig:
        """What a window is; a cast has no tail."""
        return WindowsConfig(size_steps=self.steps, hop_steps=self.hop)


@dataclass(frozen=True)
class Peak:
    """What a piece of work took."""

    bytes: int
    seconds: float


def measured(work: Callable[[], object]) -> Peak:
    """Runs it once; resident memory at its worst, less what there was before."""
    before, began = _status_bytes("VmRSS"), time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return Peak(_status_bytes("VmHWM") - before, seconds)


def _status_bytes(field: str) -> int:
    # Not ru_maxrss: a child inherits that from the process that started it.
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return 1024 * int(found[1])


# Freezing


def write_casts(client: Client, namespace: str, size: Size) -> None:
    """Writes the casts of a data set as a streamer does, every second one defective."""
    num_steps = size.steps + (size.windows_a_cast - 1) * size.hop
    StoredPlant(client, namespace, size.data, size.spec, num_steps=num_steps).write(range(NUM_CASTS))


def _values(number: int, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Of a cast: a defective one swings wider in its first sensor."""
    x = np.random.default_rng(number).standard_normal(shape, np.float32)
    x[..., 0] *= 4.0 if number % 2 == 0 else 1.0
    x += 150
    return x


def measure_freeze(url: str, size: Size) -> Peak:
    """Freezes all windows that the namespace `size` has, after those of `warm-up`."""
    client = connect(RedisConfig(url=url))
    warm_up, reader = (WindowReader(client, Keys(name), size.data, size.spec) for name in ("warm-up", "size"))
    freeze(warm_up, WARM_UP_WINDOWS)
    frozen: list[Dataset] = []
    peak = measured(lambda: frozen.append(freeze(reader, size.windows)))
    assert len(frozen[0].y_N) == size.windows
    return peak


# Training


def measure_training(size: Size) -> Peak:
    """Makes a data set and runs a cycle on it, after a small one."""
    run_cycle(Size(WARM_UP_WINDOWS, size.steps, size.sensors, size.hop))
    return measured(lambda: run_cycle(size))


def run_cycle(size: Size) -> None:
    """A first model on a data set in memory, as a cycle trains, scores and decides it, for one epoch."""
    dataset = _dataset(size)
    settings = ModelSettings(
        architecture=ArchitectureConfig(num_layers=1, hidden_size=8, head_hidden_dims=(8,), stem_stride=20),
        training=TrainingConfig(max_epochs=1, batch_size=64),
    )
    split = split_by_time(dataset.groups, dataset.end_N, dataset.y_N, DatasetConfig())
    with tempfile.TemporaryDirectory() as folder:
        challenger = train_challenger(
            dataset,
            split,
            None,
            settings,
            cycle=1,
            run_dir=Path(folder),
            tensorboard_dir=None,
            on_epoch=lambda _: None,
            should_stop=lambda: False,
        )
    files = candidate(
        challenger,
        dataset,
        settings,
        model_name="memory",
        version=1,
        cycle=1,
        now=datetime.now(UTC),
    )
    contest = Contest(read_artifact(files.judged or files.published), None)
    judge(contest, dataset, split, GateConfig(min_defective_casts=2, min_good_casts=2), num_threads=1)


def _dataset(size: Size) -> Dataset:
    """As if frozen, without a copy of anything."""
    shape = (size.windows, size.steps, size.sensors)
    x_NTF = np.empty(shape, np.float32)
    windows = []
    for number in range(NUM_CASTS):
        for n in range(number * size.windows_a_cast, (number + 1) * size.windows_a_cast):
            x_NTF[n] = _values(2 * n + number % 2, shape[1:])
            windows.append((f"C{number:05d}", 1_000_000 + n * size.steps, size.steps, number % 2 == 0))
    casts = {window[0]: (window[0], "") for window in windows}
    manifest = DatasetManifest(
        id="memory",
        namespace="memory",
        arrival=len(windows),
        data=size.data,
        spec=size.spec,
        windows=tuple(windows),
        casts=casts,
        content_sha256="",
    )
    return Dataset(
        y_N=np.array([window[3] for window in windows]),
        casts=tuple(window[0] for window in windows),
        groups=tuple(window[0] for window in windows),
        end_N=np.array([window[1] + window[2] for window in windows]),
        manifest=manifest,
        x_NTF=x_NTF,
        mask_NT=np.ones(shape[:2], np.bool_),
    )


# The command


def compare(size: Size) -> dict[str, Any]:
    """Measures both phases.

    Raises:
        CompetitorError: One of them failed.
        EmbeddedServerError: There is no Redis.
    """
    with EmbeddedRedis() as redis, connect(RedisConfig(url=redis.url)) as client:
        write_casts(client, "warm-up", Size(WARM_UP_WINDOWS, size.steps, size.sensors, size.hop))
        write_casts(client, "size", size)
        frozen = _in_child("freeze", size, redis.url)
    trained = _in_child("training", size)
    figures: dict[str, Any] = {"windows": size.windows, "dataset_bytes_per_window": size.bytes_a_window}
    for name, peak in (("freeze", frozen), ("training", trained)):
        figures[f"{name}_bytes_per_window"] = round(peak.bytes / size.windows)
        figures[f"{name}_copies"] = round(peak.bytes / size.windows / size.bytes_a_window, 2)
        figures[f"{name}_seconds"] = round(peak.seconds, 2)
    return figures


def _in_child(phase: str, size: Size, url: str = "") -> Peak:
    sizes = [f"--{name}={value}" for name, value in asdict(size).items()]
    command = [sys.executable, "-m", "benchmarks.memory", *sizes, f"--phase={phase}", f"--url={url}"]
    with tempfile.TemporaryDirectory() as folder, Child(phase, command, Path(folder)) as child:
        child.finish(PATIENCE_S)
        return Peak(**json.loads(child.output))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 when something failed."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--phase", choices=("freeze", "training"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    for name, default in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    windows = max(options.windows, WARM_UP_WINDOWS) // NUM_CASTS * NUM_CASTS
    size = Size(windows, options.steps, options.sensors, options.hop)
    if options.phase:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        peak = measure_freeze(options.url, size) if options.phase == "freeze" else measure_training(size)
        print(json.dumps(asdict(peak)))
        return 0
    try:
        figures = compare(size)
    except (CompetitorError, EmbeddedServerError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(figures) if options.json else "\n".join(f"{k:26}{v:>12}" for k, v in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
