"""Labelled windows of recordings and of simulated casts, split as `benchmarks.recordings` splits them.

Shape suffixes: N windows, T steps, F sensors, R rows of a cast, K its steps with a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamer.config import WindowsConfig
from streamer.plant.recording import Recording
from streamer.plant.recording_csv import RecordedRow
from streamer.plant.simulator import Simulator, SimulatorConfig
from streamer.schema import Label
from streamer.timeline import Grid
from streamer.windows import Address, Verdict, valid_steps, windows_between
from trainer.data.config import DatasetConfig
from trainer.data.split import require_classes, split_by_time
from trainer.learn.members.labelled import LabelledPart

WINDOW_STEPS = 300
# What comes later is not in a window: allowed lateness of configs/streamer.yaml.
LATENESS_MS = 30_000

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
# train, validation, test
Parts = tuple[LabelledPart, LabelledPart, LabelledPart]


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """A cast on its grid: the steps that have a row, and the rows; NaN where a sensor said nothing."""

    cast_id: str
    group: str
    grid: Grid
    step_K: Ints
    x_KF: Floats
    labels: Sequence[Label]


def recorded(directory: Path) -> Iterator[Cast]:
    """The casts of a recording, each on a grid that begins with its first row, in the order of their ends."""
    recording = Recording.open(directory)
    casts = {cast.cast_id: cast for cast in recording.casts}
    labels = defaultdict(list)
    for label in recording.labels():
        labels[label.cast_id].append(label)
    rows = defaultdict(list)
    for row in recording.rows():
        rows[row.cast_id].append(row)
        cast = casts[row.cast_id]
        if row.ts == cast.last_ts:
            grid = Grid(recording.period_ms, cast.first_ts % recording.period_ms)
            step_K, x_KF = place(rows.pop(row.cast_id), grid)
            yield Cast(row.cast_id, cast.group or row.cast_id, grid, step_K, x_KF, labels[row.cast_id])


def place(rows: Sequence[RecordedRow], grid: Grid) -> tuple[Ints, Floats]:
    """step_K and x_KF of rows: on each step, for each sensor, the value nearest to its time, then the later one."""
    ts_R = np.asarray([row.ts for row in rows], dtype=np.int64)
    value_RF = np.asarray([row.values for row in rows], dtype=np.float32)
    step_R = grid.step(ts_R)
    step_K, at_R = np.unique(step_R, return_inverse=True)
    x_KF = np.full((len(step_K), value_RF.shape[1]), np.nan, dtype=np.float32)
    # The last one that is written stays.
    order_R = np.lexsort((ts_R, -np.abs(ts_R - grid.time(step_R))))
    for f in range(value_RF.shape[1]):
        said = order_R[~np.isnan(value_RF[order_R, f])]
        x_KF[at_R[said], f] = value_RF[said, f]
    return step_K, x_KF


def simulated(seed: int, num_casts: int, plant: SimulatorConfig | None = None) -> Iterator[Cast]:
    """The casts of a campaign, without what came too late.

    Args:
        plant: What else is simulated; None: one change of regime in the middle.
    """
    config = (plant or SimulatorConfig()).model_copy(update={"seed": seed, "num_casts": num_casts})
    for cast in Simulator(config).casts():
        grid = Grid(cast.period_ms, cast.start_ts % cast.period_ms)
        x_TF = np.where((cast.delay_ms_T > LATENESS_MS)[:, None], np.nan, cast.values_TF)
        step_T = grid.step(cast.start_ts) + np.arange(cast.num_steps)
        yield Cast(cast.cast_id, cast.group, grid, step_T, x_TF.astype(np.float32), cast.labels)


def split(casts: Iterator[Cast], max_steps: int) -> Parts:
    """Cuts casts into labelled windows, and the windows into parts.

    Raises:
        NotEnoughDataError: There are fewer than three groups, or a part has one class only.
    """
    windows = [(cast, *window) for cast in casts for window in labelled_windows(cast, max_steps)]
    num_steps = max((len(x_TF) for _, _, x_TF, _ in windows), default=0)
    num_sensors = windows[0][2].shape[1] if windows else 0
    x_NTF = np.full((len(windows), num_steps, num_sensors), np.nan, dtype=np.float32)
    mask_NT = np.zeros(x_NTF.shape[:2], dtype=np.bool_)
    for n, (_, _, x_TF, _) in enumerate(windows):
        x_NTF[n, : len(x_TF)] = x_TF
        mask_NT[n, : len(x_TF)] = valid_steps(x_TF)
    y_N = np.asarray([defective for *_, defective in windows], dtype=np.bool_)
    end_N = [cast.grid.time(address.end) for cast, address, _, _ in windows]
    parts = split_by_time([cast.group for cast, *_ in windows], end_N, y_N, DatasetConfig())
    require_classes(parts, y_N)
    index = (parts.train_N, parts.validation_N, parts.gate_N)
    train_part, validation, test = (
        LabelledPart(x_NTF[n], mask_NT[n], y_N[n], order_N=parts.rank_N[n]) for n in index
    )
    return train_part, validation, test


def labelled_windows(cast: Cast, max_steps: int) -> Iterator[tuple[Address, Floats, bool]]:
    """The windows of a cast that its labels decide: the whole cast, or windows of 300 steps of a longer one."""
    first, sealed = int(cast.step_K[0]), int(cast.step_K[-1]) + 1
    size = min(WINDOW_STEPS, max_steps)
    whole = sealed - first <= max_steps
    spec = WindowsConfig(size_steps="cast") if whole else WindowsConfig(size_steps=size, hop_steps=size)
    for address in windows_between(
        spec, cast.cast_id, first_step=first, begin=first, sealed=sealed, ended=True
    ):
        x_TF = np.full((address.length, cast.x_KF.shape[1]), np.nan, dtype=np.float32)
        low, high = np.searchsorted(cast.step_K, (address.start, address.end))
        x_TF[cast.step_K[low:high] - address.start] = cast.x_KF[low:high]
        seen = _verdicts(cast, address)[valid_steps(x_TF)]
        defective = bool((seen == Verdict.DEFECTIVE).any())
        if defective or (len(seen) and bool((seen == Verdict.GOOD).all())):
            yield address, x_TF, defective


def _verdicts(cast: Cast, address: Address) -> npt.NDArray[np.int8]:
    """verdict_T: the newest inspection that covers a step wins, on a tie the defect."""
    verdict_T = np.full(address.length, Verdict.UNLABELLED, dtype=np.int8)
    # From the weakest to the strongest: the last one that is written stays.
    for label in sorted(cast.labels, key=lambda each: (each.inspected_at, bool(each.defect))):
        low = address.start if label.from_ts is None else cast.grid.step(label.from_ts)
        high = address.end if label.to_ts is None else cast.grid.step(label.to_ts) + 1
        steps = slice(max(0, low - address.start), max(0, high - address.start))
        verdict_T[steps] = Verdict.UNLABELLED if label.defect is None else Verdict(int(label.defect))
    return verdict_T
