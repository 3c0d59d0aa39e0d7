"""Casts in Redis as the streamer writes them: each record is judged once, whatever crashes.

`applied` (topic/partition -> next offset) and `version` of a cast move in the same script as its rows, its
timeline and its counts. The script goes through only if both are what this writer had loaded; a writer that
lost its partition therefore gets `FencedError` and changes nothing.

A label moves `applied` of its own partition, and the same holds for it. Its cast is not kept in memory, so `applied`
is loaded for each batch, together with the position of the partition. That no label is lost, whatever Redis loses:

    A   `applied` of a cast is a: the cast holds all of its labels below a.
    B   the position in Redis is p: their casts hold all labels below p.

Both are true of every state that Redis can come back with, since it comes back with one that it was in before.
They stay true:

    1   position and `applied` are read in one go, in this order, from one run of Redis. The position is the one that
        the writer knows, so by B the `applied` that follow lie above all labels of the cast that came before this
        batch; those that the batch brings move it on in offset order.
    2   a label is written only if `applied` is still that. If Redis has lost one of those before it meanwhile, it is
        less by A, and nothing is written: A.
    3   the position moves once the batch is acknowledged, and only in the run of Redis that acknowledged it, since no
        command goes to another (`connection`): B. What was lost with a restart is read again from the position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from streamer.config import DataConfig
from streamer.errors import FencedError
from streamer.open_rows import Carry, OpenRows
from streamer.records import Partition
from streamer.schema import Label
from streamer.store import scripts
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys
from streamer.store.rows import RowStore
from streamer.timeline import CastTimeline
from streamer.windows import Address

# Larger: a sender that repeats itself with a new time each time makes each of its labels cost as much as all before
# it. Smaller: a cast that is inspected bit by bit may need as many.
MAX_LABELS = 1_000

_TIMELINE_FIELDS = ("first_step", "newest_ts", "sealed", "last_step", "seen_at", "end_seen_at")


@dataclass(slots=True)
class CastState:
    """One cast as loaded, and what changed since.

    Attributes:
        applied: Next offset of the partition it was loaded for, None before its first record.
        source: The partition its readings come from.
        version: Number of writes that the cast has seen, None for a cast that Redis does not hold.
        indexed_step: Sealed edge at the last update of the index, None after a load.
        counts: Terms of the ledger that are not in Redis yet.
    """

    cast_id: str
    timeline: CastTimeline
    strand: int | None = None
    group: str | None = None
    source: str | None = None
    applied: int | None = None
    next_applied: int | None = None
    version: int | None = None
    indexed_step: int | None = None
    counts: Counter[str] = field(default_factory=Counter)


class CastStore:
    """Loads and saves casts of one namespace.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer; nothing or all of a cast is
            written, and the caller loads again.
    """

    def __init__(self, client: Client, keys: Keys, data: DataConfig) -> None:
        self._client = client
        self._keys = keys
        self._rows = RowStore(client, keys, data)
        self._block_steps = data.block_steps
        self._num_sensors = len(data.sensors)
        self._apply = client.register_script(scripts.APPLY)
        self._label = client.register_script(scripts.LABEL)

    def open_casts(self, partition: Partition) -> set[str]:
        """Casts of a partition that were not finished when it was last written."""
        with map_redis_errors("listing open casts"):
            return {text(member) for member in self._client.smembers(self._keys.open(partition))}

    def announce(self, partition: Partition, cast_ids: Iterable[str]) -> None:
        """Notes casts as open, before anything else of them is written."""
        if ids := list(cast_ids):
            with map_redis_errors("announcing casts"):
                self._client.sadd(self._keys.open(partition), *ids)

    def enrol(self, first_seen: Mapping[str, int]) -> None:
        """Lists casts by the log time (epoch ms) of their first reading; one listed before stays as it is."""
        if first_seen:
            with map_redis_errors("listing casts"):
                pipe = self._client.pipeline(transaction=False)
                for key in (self._keys.casts, self._keys.stored):
                    pipe.zadd(key, dict(first_seen), nx=True)
                pipe.execute()

    def finish(self, partition: Partition, cast_ids: Iterable[str]) -> None:
        """Takes casts off the open list, once they are ended and indexed."""
        if ids := list(cast_ids):
            with map_redis_errors("closing casts"):
                self._client.srem(self._keys.open(partition), *ids)

    def load(self, partition: Partition, cast_ids: Sequence[str]) -> dict[str, CastState]:
        """Loads casts for the member that reads this partition; an unknown cast is a fresh state."""
        with map_redis_errors("loading casts"):
            pipe = self._client.pipeline(transaction=False)
            for cast_id in cast_ids:
                pipe.hgetall(self._keys.cast(cast_id))
            hashes = pipe.execute()
        states = {}
        for cast_id, fields in zip(cast_ids, hashes, strict=True):
            named = {text(name): value for name, value in fields.items()}
            states[cast_id] = self._state(cast_id, partition, named)
        self._load_open_rows(list(states.values()))
        return states

    def _load_open_rows(self, states: Sequence[CastState]) -> None:
        held = [state for state in states if len(state.timeline.rows)]
        spans = []
        for state in held:
            low, high = map(int, state.timeline.rows.step_T[[0, -1]])
            spans.append(Address(state.cast_id, low, high - low + 1))
        for state, span, x_TF in zip(held, spans, self._rows.read(spans), strict=True):
            rows = state.timeline.rows
            rows.value_TF = x_TF[rows.step_T - span.start]

    def _state(self, cast_id: str, partition: Partition, fields: dict[str, bytes]) -> CastState:
        def number(name: str) -> int | None:
            return int(fields[name]) if name in fields else None

        def word(name: str) -> str | None:
            return fields[name].decode() if name in fields else None

        timeline = CastTimeline(OpenRows(self._num_sensors), ended=fields.get("ended") == b"1")
        for name in _TIMELINE_FIELDS:
            setattr(timeline, name, number(name))
        if fields.get("open_steps"):
            step_T = np.frombuffer(fields["open_steps"], "<i8").astype(np.int64)
            jitter_TF = np.frombuffer(fields["open_jitter"], "<i4").reshape(len(step_T), -1).astype(np.int32)
            nan_TF = np.full(jitter_TF.shape, np.nan, np.float32)
            timeline.rows.restore(step_T, nan_TF, jitter_TF)
        if "carry_ts" in fields:
            timeline.carry = Carry(
                np.frombuffer(fields["carry_value"], "<f4").astype(np.float32),
                np.frombuffer(fields["carry_ts"], "<i8").astype(np.int64),
            )
            timeline.settled = timeline.sealed
        return CastState(
            cast_id=cast_id,
            timeline=timeline,
            strand=number("strand"),
            group=word("group"),
            source=word("source"),
            applied=number(f"applied:{partition}"),
            version=number("version"),
        )

    def save(self, partition: Partition, states: Iterable[CastState]) -> None:
        """Writes what changed of each cast: rows, timeline, counts and `applied` of a cast in one script.

        Raises:
            FencedError: A cast was moved on by someone else; nothing of it was written. Load again.
        """
        states = list(states)
        with map_redis_errors("saving casts"):
            pipe = self._client.pipeline(transaction=False)
            for state in states:
                keys, args = self._apply_call(partition, state)
                self._apply(keys=keys, args=args, client=pipe)
            results = pipe.execute()
        fenced = [state.cast_id for state, ok in zip(states, results, strict=True) if not ok]
        if fenced:
            raise FencedError(f"{partition}: moved on by another member: {', '.join(fenced[:5])}")
        for state in states:
            state.version = (state.version or 0) + 1
            state.applied = state.next_applied if state.next_applied is not None else state.applied
            state.next_applied = None
            state.counts.clear()
            state.timeline.written()

    def _apply_call(
        self, partition: Partition, state: CastState
    ) -> tuple[list[str], list[str | bytes | int]]:
        fields = _fields(state)
        blocks = dict(state.timeline.rows.writes(self._block_steps))
        args: list[str | bytes | int] = [
            f"applied:{partition}",
            "" if state.applied is None else state.applied,
            "" if state.version is None else state.version,
            "" if state.next_applied is None else state.next_applied,
            len(fields),
        ]
        for name, value in fields.items():
            args += (name, value)
        args.append(len(state.counts))
        for count, number in state.counts.items():
            args += (count, number)
        args += (self._num_sensors * self._block_steps, self._block_steps)
        for runs in blocks.values():
            args.append(len(runs))
            for run in runs:
                args += (run.offset, run.data)
        keys = [self._keys.cast(state.cast_id), *(self._keys.rows(state.cast_id, block) for block in blocks)]
        return keys, args

    def add_labels(
        self, labels: Sequence[tuple[Partition, int, Label]], known: Mapping[Partition, int] | None = None
    ) -> list[tuple[Partition, int]]:
        """Adds labels to their casts; a record that was applied before changes nothing.

        Args:
            labels: (partition, offset, label), in offset order per partition.
            known: Positions as the writer knows them, -1 for none; those named are compared with what Redis holds.

        Returns:
            Partition and offset of labels that were not taken: their cast has `MAX_LABELS` others.

        Raises:
            FencedError: Redis has lost writes, or another member was here. Some labels may be written, each with all
                before it. Load again.
        """
        applied = self._load_applied(labels, known or {})
        with map_redis_errors("adding labels"):
            pipe = self._client.pipeline(transaction=False)
            for partition, offset, label in labels:
                fence = (partition, label.cast_id)
                args: list[str | bytes | int] = [f"applied:{partition}", applied[fence], offset]
                args += (encode_label(label), MAX_LABELS)
                self._label(keys=[self._keys.cast(label.cast_id)], args=args, client=pipe)
                applied[fence] = max(applied[fence], offset + 1)
            results = pipe.execute()
        fenced = [label.cast_id for (_, _, label), ok in zip(labels, results, strict=True) if not ok]
        if fenced:
            raise FencedError(f"labels were moved on or lost meanwhile, of casts {', '.join(fenced[:5])}")
        return [
            (partition, offset) for (partition, offset, _), ok in zip(labels, results, strict=True) if ok < 0
        ]

    def _load_applied(
        self, labels: Sequence[tuple[Partition, int, Label]], known: Mapping[Partition, int]
    ) -> dict[tuple[Partition, str], int]:
        fences = list(dict.fromkeys((partition, label.cast_id) for partition, _, label in labels))
        with map_redis_errors("loading casts of labels"):
            pipe = self._client.pipeline(transaction=False)  # one connection: one run of Redis, in this order
            for partition in known:
                pipe.hget(self._keys.position(partition), "offset")
            for partition, cast_id in fences:
                pipe.hget(self._keys.cast(cast_id), f"applied:{partition}")
            found = pipe.execute()
        for (partition, offset), held in zip(known.items(), found, strict=False):
            if offset != (-1 if held is None else int(held)):
                raise FencedError(f"the position of {partition} is no longer {offset}; no label was written")
        return {fence: int(held or 0) for fence, held in zip(fences, found[len(known) :], strict=True)}


def encode_label(label: Label) -> bytes:
    """Canonical JSON of a label without its cast id: the same label gives the same bytes."""
    fields = {
        "defect": label.defect,
        "inspected_at": label.inspected_at,
        "from_ts": label.from_ts,
        "to_ts": label.to_ts,
        "defect_type": label.defect_type,
        "group": label.group,
    }
    return msgspec.json.encode(fields, order="sorted")


def decode_labels(cast_id: str, text: bytes | None) -> list[Label]:
    """Labels of a cast as they lie in its hash, in canonical order."""
    fields = msgspec.json.decode(text) if text else []
    labels = [Label(cast_id=cast_id, **each) for each in fields]
    return sorted(labels, key=encode_label)


def _fields(state: CastState) -> dict[str, str | bytes | int]:
    timeline, rows = state.timeline, state.timeline.rows
    fields: dict[str, str | bytes | int] = {
        name: value for name in _TIMELINE_FIELDS if (value := getattr(timeline, name)) is not None
    }
    at = 0 if timeline.sealed is None else int(np.searchsorted(rows.step_T, timeline.sealed))
    fields["ended"] = int(timeline.ended)
    fields["open_steps"] = rows.step_T[at:].astype("<i8", copy=False).tobytes()
    fields["open_jitter"] = rows.jitter_TF[at:].astype("<i4", copy=False).tobytes()
    if timeline.carry is not None:
        fields["carry_value"] = timeline.carry.value_F.astype("<f4", copy=False).tobytes()
        fields["carry_ts"] = timeline.carry.ts_F.astype("<i8", copy=False).tobytes()
    for name in ("strand", "group", "source"):
        if (value := getattr(state, name)) is not None:
            fields[name] = value
    return fields
