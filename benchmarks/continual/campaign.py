"""A recording as windows in time, with the moments at which what is known of their labels changes.

Shape suffixes: N windows, T steps, F sensors, G groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.labelled import WINDOW_STEPS, Cast, Floats, Ints, labelled_windows
from streamer.config import DataConfig, SensorConfig, WindowsConfig
from streamer.windows import Address, valid_steps
from trainer.errors import NotEnoughDataError

# Share of the windows that are labelled before the first one is scored, but for those whose label is on its way.
START_SHARE = 0.3


class LabelChange(NamedTuple):
    """From a moment on, epoch ms, a window counts as defective, good, or (None) as not labelled."""

    at_ms: int
    window: int
    defective: bool | None


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is labelled at a moment.

    Attributes:
        index_N: Places of the labelled windows in their campaign.
        y_N: Labels as they were known then; True = defective.
    """

    at_ms: int
    index_N: Ints
    y_N: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Campaign:
    """All windows that are labelled sooner or later: groups in the order of their beginnings, each together.

    Attributes:
        start_ms_N: Time of the first step of each window, epoch ms.
        end_N: End of each window on the step grid.
        x_NTF: Raw values, NaN = missing, padded to the longest window.
        mask_NT: Steps at which a sensor said something.
        y_N: The label that stood at last.
        changes: In the order of their moments.
    """

    data: DataConfig
    spec: WindowsConfig
    addresses: tuple[Address, ...]
    groups: tuple[str, ...]
    start_ms_N: Ints
    end_N: Ints
    x_NTF: Floats
    mask_NT: npt.NDArray[np.bool_]
    y_N: npt.NDArray[np.bool_]
    changes: tuple[LabelChange, ...]

    def __len__(self) -> int:
        return len(self.addresses)

    def known(self, at_ms: int) -> Known:
        """What is labelled at a moment."""
        standing = {change.window: change.defective for change in self.changes if change.at_ms <= at_ms}
        labelled = sorted((n, defective) for n, defective in standing.items() if defective is not None)
        index_N = np.array([n for n, _ in labelled], dtype=np.int64)
        return Known(at_ms, index_N, np.array([defective for _, defective in labelled], dtype=np.bool_))

    def chunks(self, num_chunks: int, start_share: float = START_SHARE) -> list[Ints]:
        """Places of the windows behind the start, in chunks of about the same size, whole groups.

        Raises:
            NotEnoughDataError: There is no group in front of them, or none behind.
        """
        names = list(dict.fromkeys(self.groups))
        rank = {name: g for g, name in enumerate(names)}
        size_G = np.bincount([rank[group] for group in self.groups], minlength=len(names))
        begin_G = np.cumsum(size_G) - size_G
        middle_G = (begin_G + size_G / 2) / max(1, len(self))
        shares = np.linspace(start_share, 1.0, num_chunks + 1)[:-1]
        cuts = sorted({int(begin_G[g]) for g in np.searchsorted(middle_G, shares) if 0 < g < len(names)})
        if not cuts:
            raise NotEnoughDataError(f"{len(names)} groups of casts cannot be cut into a start and chunks")
        return [np.arange(low, high) for low, high in pairwise([*cuts, len(self)])]


def campaign_of(casts: Iterable[Cast], max_steps: int, max_windows: int | None = None) -> Campaign:
    """Cuts casts into windows, and finds out when the label of each was known.

    Args:
        max_steps: Longer casts are cut into windows of `WINDOW_STEPS`.
        max_windows: The first groups with so many windows; None: all.

    Raises:
        NotEnoughDataError: No window is ever labelled.
    """
    found = _first(
        _in_order([_Window(cast, *each) for cast in casts for each in _histories(cast, max_steps)]),
        max_windows,
    )
    if not found:
        raise NotEnoughDataError("no window is ever labelled")
    longest, num_sensors = max(len(each.x_TF) for each in found), found[0].x_TF.shape[1]
    x_NTF = np.full((len(found), longest, num_sensors), np.nan, dtype=np.float32)
    for n, each in enumerate(found):
        x_NTF[n, : len(each.x_TF)] = each.x_TF
    changes = [LabelChange(at_ms, n, what) for n, each in enumerate(found) for at_ms, what in each.history]
    return Campaign(
        data=DataConfig(
            sensors=tuple(SensorConfig(name=f"sensor_{f}") for f in range(num_sensors)),
            period_ms=found[0].cast.grid.period_ms,
        ),
        spec=_spec(found),
        addresses=tuple(each.address for each in found),
        groups=tuple(each.cast.group for each in found),
        start_ms_N=np.array([each.start_ms for each in found], dtype=np.int64),
        end_N=np.array([each.address.end for each in found], dtype=np.int64),
        x_NTF=x_NTF,
        mask_NT=valid_steps(x_NTF),
        y_N=np.array([each.history[-1][1] for each in found], dtype=np.bool_),
        changes=tuple(sorted(changes, key=lambda change: (change.at_ms, change.window))),
    )


class _Window(NamedTuple):
    cast: Cast
    address: Address
    x_TF: Floats
    history: list[tuple[int, bool | None]]  # the last one says defective or good

    @property
    def start_ms(self) -> int:
        return self.cast.grid.time(self.address.start)


def _histories(cast: Cast, max_steps: int) -> Iterator[tuple[Address, Floats, list[tuple[int, bool | None]]]]:
    """The windows of a cast that are labelled at last, and when what is known of them changed."""
    moments = sorted({label.inspected_at for label in cast.labels})
    known_at = [
        {address: defective for address, _, defective in labelled_windows(arrived, max_steps)}
        for arrived in (_arrived(cast, moment) for moment in moments)
    ]
    for address, x_TF, _ in labelled_windows(cast, max_steps):
        sealed_ms = cast.grid.time(address.end)
        history: list[tuple[int, bool | None]] = []
        before: bool | None = None
        for moment, known in zip(moments, known_at, strict=True):
            if (defective := known.get(address)) is not before:
                # A verdict that is there before its window waits for it.
                history.append((max(moment, sealed_ms), defective))
                before = defective
        yield address, x_TF, history


def _arrived(cast: Cast, moment: int) -> Cast:
    return replace(cast, labels=[label for label in cast.labels if label.inspected_at <= moment])


def _in_order(windows: list[_Window]) -> list[_Window]:
    """By the beginnings of their groups, so that no chunk begins before the one in front of it."""
    begins: dict[str, int] = {}
    for each in windows:
        group = each.cast.group
        begins[group] = min(each.start_ms, begins.get(group, each.start_ms))
    return sorted(
        windows,
        key=lambda each: (begins[each.cast.group], each.cast.group, each.start_ms, each.address),
    )


def _first(windows: list[_Window], max_windows: int | None) -> list[_Window]:
    if max_windows is None or len(windows) <= max_windows:
        return windows
    last = windows[max_windows - 1].cast.group
    end = max(n for n, each in enumerate(windows) if each.cast.group == last)
    return windows[: end + 1]


def _spec(windows: list[_Window]) -> WindowsConfig:
    """Windows of one size where all casts were cut, else whole casts, padded to the longest."""
    if all(each.address.length == WINDOW_STEPS for each in windows):
        return WindowsConfig(size_steps=WINDOW_STEPS, hop_steps=WINDOW_STEPS)
    return WindowsConfig(size_steps="cast")
