"""A data set is frozen as a manifest: which windows, with which labels. The same manifest, the same tensors.

Shape suffixes: N windows, T steps, F sensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from streamer.columns import FloatArray
from streamer.config import DataConfig, WindowsConfig
from streamer.store.reading import CastFacts
from streamer.windows import Address, valid_steps
from trainer.data.source import WindowSource
from trainer.errors import DatasetChangedError, NotEnoughDataError

OWNER = "trainer"
NEXT = "next"  # what is being frozen; an id is a digest, so no data set is called so


class DatasetManifest(BaseModel):
    """What a data set is made of.

    Attributes:
        id: Digest of everything else but `arrival`: the same content has the same id.
        arrival: Number of the newest label decision when it was frozen.
        windows: (cast, start, length, defective), sorted.
        casts: cast -> (group, label revision).
        content_sha256: Digest of values and labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    namespace: str
    arrival: int
    data: DataConfig
    spec: WindowsConfig
    windows: tuple[tuple[str, int, int, bool], ...]
    casts: dict[str, tuple[str, str]]
    content_sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class LabelledWindows:
    """What is known of windows without their rows; enough to split them.

    Attributes:
        y_N: True = defective.
        casts: Cast of each window.
        groups: Group of each window.
        end_N: End of each window on the step grid.
    """

    y_N: npt.NDArray[np.bool_]
    casts: tuple[str, ...]
    groups: tuple[str, ...]
    end_N: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Selection(LabelledWindows):
    """The windows that a data set would have now.

    Attributes:
        arrival: Number of the newest label decision.
        windows: (cast, start, length, defective), sorted.
        facts: By cast.
    """

    arrival: int
    windows: tuple[tuple[str, int, int, bool], ...]
    facts: dict[str, CastFacts]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset(LabelledWindows):
    """A frozen data set in memory.

    Attributes:
        x_NTF: Raw values, NaN = missing; short windows are padded at their end.
        mask_NT: Steps at which a sensor said something.
    """

    manifest: DatasetManifest
    x_NTF: FloatArray
    mask_NT: npt.NDArray[np.bool_]


def freeze(
    reader: WindowSource,
    max_windows: int,
    check: Callable[[Selection], object] | None = None,
    *,
    owner: str = OWNER,
) -> Dataset:
    """Freezes the newest labelled windows of a namespace; `keep` the manifest if it is trained on.

    Its casts are held from before their rows are read until `keep`, or the next call.

    Args:
        check: Asked before any row is read; what it raises ends the call.
        owner: Whose data set it is, such as the name of the model.

    Raises:
        NotEnoughDataError: No window is labelled yet.
        StoreUnavailableError: Redis does not answer.
    """
    selection = _select_and_hold(reader, max_windows, check, f"{owner}/{NEXT}")
    x_NTF, mask_NT = load_windows(reader, [Address(*window[:3]) for window in selection.windows])
    return _dataset(_manifest(reader, selection, x_NTF), x_NTF, mask_NT)


def _select_and_hold(
    reader: WindowSource, max_windows: int, check: Callable[[Selection], object] | None, holder: str
) -> Selection:
    gone: frozenset[str] = frozenset()
    while True:
        selection = _select(reader, max_windows, gone)
        if check:
            check(selection)
        leaving = reader.holds.hold(holder, selection.facts)
        if not leaving:
            return selection
        gone |= leaving  # retention was there first: their rows may vanish while they are read


def _select(reader: WindowSource, max_windows: int, gone: frozenset[str] = frozenset()) -> Selection:
    # Read first: a label that comes in between is then counted as news for the next cycle.
    arrival = reader.last_arrival()
    labelled = [window for window in reader.labelled() if window[0].cast_id not in gone]
    if not labelled:
        raise NotEnoughDataError("no window is labelled yet; wait for labels on sealed windows")
    newest = sorted(labelled, key=lambda window: (window[0].end, window[0]))[-max_windows:]
    windows = tuple((a.cast_id, a.start, a.length, defective) for a, defective in sorted(newest))
    facts = reader.casts(sorted({window[0] for window in windows}))
    groups = {cast_id: fact.group for cast_id, fact in facts.items()}
    return Selection(*_columns(windows, groups), arrival=arrival, windows=windows, facts=facts)


def load(reader: WindowSource, manifest: DatasetManifest) -> Dataset:
    """Reads the data set of a manifest again, bit for bit.

    Raises:
        DatasetChangedError: The rows in Redis are not those that were frozen, or the reader reads others.
        StoreUnavailableError: Redis does not answer.
    """
    if (reader.namespace, reader.data, reader.spec) != (manifest.namespace, manifest.data, manifest.spec):
        raise DatasetChangedError(
            f"data set {manifest.id} was frozen from windows {manifest.spec.name} of namespace "
            f"{manifest.namespace}, the configuration now says {reader.spec.name} of {reader.namespace}"
        )
    addresses = [Address(*window[:3]) for window in manifest.windows]
    x_NTF, mask_NT = load_windows(reader, addresses)
    if _content_digest(x_NTF, manifest.windows) != manifest.content_sha256:
        raise DatasetChangedError(
            f"data set {manifest.id}: the rows in Redis are not those that were frozen; were they evicted?"
        )
    return _dataset(manifest, x_NTF, mask_NT)


def load_windows(
    reader: WindowSource, addresses: Sequence[Address]
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Reads windows as one array, padded at their ends to the size of the spec; whole casts to the longest.

    Returns:
        x_NTF raw values with NaN for missing, and mask_NT of valid steps.
    """
    size, num_sensors = reader.spec.size_steps, len(reader.data.sensors)
    steps = max((address.length for address in addresses), default=0) if size == "cast" else size
    x_NTF = np.full((len(addresses), steps, num_sensors), np.nan, np.float32)
    mask_NT = np.zeros((len(addresses), steps), np.bool_)
    for n, x_TF in enumerate(reader.each_rows(addresses)):
        x_NTF[n, : len(x_TF)] = x_TF
        mask_NT[n, : len(x_TF)] = valid_steps(x_TF)
    return x_NTF, mask_NT


def _columns(
    windows: Sequence[tuple[str, int, int, bool]], groups: Mapping[str, str]
) -> tuple[npt.NDArray[np.bool_], tuple[str, ...], tuple[str, ...], npt.NDArray[np.int64]]:
    """The fields of `LabelledWindows`, in their order."""
    casts = tuple(window[0] for window in windows)
    return (
        np.array([window[3] for window in windows], dtype=np.bool_),
        casts,
        tuple(groups[cast] for cast in casts),
        np.array([start + length for _, start, length, _ in windows], dtype=np.int64),
    )


def _dataset(manifest: DatasetManifest, x_NTF: FloatArray, mask_NT: npt.NDArray[np.bool_]) -> Dataset:
    groups = {cast_id: group for cast_id, (group, _) in manifest.casts.items()}
    return Dataset(*_columns(manifest.windows, groups), manifest=manifest, x_NTF=x_NTF, mask_NT=mask_NT)


def _manifest(reader: WindowSource, selection: Selection, x_NTF: FloatArray) -> DatasetManifest:
    content: dict[str, Any] = {
        "namespace": reader.namespace,
        "data": reader.data.model_dump(mode="json"),
        "spec": reader.spec.model_dump(mode="json"),
        "windows": selection.windows,
        "casts": {cast_id: (fact.group, fact.label_revision) for cast_id, fact in selection.facts.items()},
        "content_sha256": _content_digest(x_NTF, selection.windows),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    dataset_id = hashlib.sha256(text.encode()).hexdigest()[:16]
    return DatasetManifest.model_validate({"id": dataset_id, "arrival": selection.arrival, **content})


def _content_digest(x_NTF: FloatArray, windows: Sequence[tuple[str, int, int, bool]]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(x_NTF, "<f4").reshape(-1).data)  # where it lies
    digest.update(bytes(window[3] for window in windows))
    return digest.hexdigest()
