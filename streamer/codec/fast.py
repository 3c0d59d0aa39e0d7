"""Many messages of one shape to columns, with the loops in C.

Whatever looks odd is left to `exact.py`: no record is refused here, and a fault has one place for its words.
Shape suffixes: R readings, N rows, F sensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import is_
from typing import Any

import numpy as np
from msgspec import UNSET

from streamer.codec.checks import MAX_STRAND
from streamer.codec.exact import MAX_CHUNK_ROWS, MAX_PERIOD_MS, Float64Array
from streamer.codec.layout import Layout, Path
from streamer.codec.packing import Numbers
from streamer.codec.parts import Part, Values
from streamer.codec.quality import Quality, quality_of
from streamer.codec.shapes import Shape, ShapeDecoder
from streamer.codec.times import MAX_TS, MIN_TS
from streamer.codec.wire import FAULTS, JSON
from streamer.columns import BoolArray
from streamer.errors import RecordError
from streamer.records import IntArray
from streamer.schema import CAST_ID


class FastDecoder:
    """Decodes records of one shape of one source."""

    def __init__(self, layout: Layout, shape: Shape) -> None:
        self._layout, self._shape = layout, shape
        self._decoder = ShapeDecoder(layout, shape)
        self._num_unpacked = 0

    def learn(self, paths: Iterable[Path]) -> bool:
        """Takes fields of no sensor into the shape; returns whether more records may fit now."""
        return self._decoder.learn(paths)

    def knows(self, paths: Iterable[Path]) -> bool:
        """Whether messages with these fields of no sensor fit."""
        return all(path in self._decoder.extras for path in paths)

    def forget(self) -> None:
        """Ends a batch: fields of no sensor that came no more leave the shape."""
        self._decoder.forget()

    def decode(self, record_M: IntArray, values: Sequence[bytes | None]) -> tuple[Part | None, IntArray]:
        """Decodes the records that fit.

        Args:
            record_M: Indices of the records in their batch.
            values: Their values.

        Returns:
            The readings, and the records that are left.
        """
        messages, failed = self._decoder.decode(values)
        left_M = record_M[failed]
        if failed:
            record_M = np.delete(record_M, failed)
        while messages:
            try:
                return self._part(record_M, messages), left_M
            except _OddError as exc:
                odd = sorted(exc.messages)
                left_M = np.sort(np.concatenate([left_M, record_M[odd]]))
                record_M = np.delete(record_M, odd)
                messages = [message for index, message in enumerate(messages) if index not in exc.messages]
        return None, left_M

    def _part(self, record_R: IntArray, messages: list[Any]) -> Part:
        get = self._decoder.get
        cast_ids = list(map(get["cast_id"], messages))
        distinct = dict.fromkeys(cast_ids)
        if not all(map(CAST_ID.fullmatch, distinct)):
            _leave(not CAST_ID.fullmatch(cast_id) for cast_id in cast_ids)
        numbers = self._packed(messages)
        if numbers is None:
            strands = list(map(get["strand"], messages))
            times: Any = list(map(get["ts"], messages))
        else:
            strands, times = numbers.strands, numbers.time_R
        if not all(map(_is_strand, set(strands))):
            _leave(not _is_strand(strand) for strand in strands)
        part = Part(
            record_R=record_R,
            cast_ids=cast_ids,
            strands=strands,
            ts_R=self._times(times),
            period_R=np.zeros(len(messages), dtype=np.int64),
            num_rows_R=np.ones(len(messages), dtype=np.int64),
            values_NF=_NO_VALUES if numbers is None else numbers.values_RF,
            distinct=distinct,
        )
        for path, extra in self._decoder.extras.items():
            has_R = ~np.fromiter(map(is_, map(extra, messages), repeat(UNSET)), np.bool_, len(messages))
            if has_R.any():
                self._decoder.carries(path)
            part.unknown_R = has_R + (0 if part.unknown_R is None else part.unknown_R)
        if self._shape.kind == "wide":
            if numbers is None:
                self._wide(part, messages)
        elif self._shape.kind == "tag":
            self._tags(part, messages)
        elif self._shape.content_type == JSON:
            self._chunks(part, messages)
        else:
            self._packed_chunks(part, messages)
        return part

    def _packed(self, messages: list[Any]) -> Numbers | None:
        packing = self._decoder.packing
        if packing is None or self._num_unpacked > 0:
            self._num_unpacked -= 1
            return None
        try:
            numbers = packing.numbers(messages)
        except FAULTS:  # JSON has numbers beyond 64 bits, MessagePack has not
            numbers = None
        if numbers is None:
            # Nulls or ids of several lengths are seldom alone: the next batches are not tried.
            self._num_unpacked = 15
        return numbers

    def _times(self, times: Any) -> IntArray:
        reader = self._layout.time
        if self._shape.time_is_text:
            read = reader.read_texts(times)
            if None in read:
                _leave(time is None for time in read)
            return np.array(read, dtype=np.int64)
        if reader.unit == "s":
            with np.errstate(over="ignore"):
                ms_R = np.rint(np.array(times, dtype=np.float64) * 1000)
        else:
            try:
                ms_R = np.array(times, dtype=np.int64) // reader.per_ms
            except OverflowError:
                _leave(abs(time) >= 1 << 63 for time in times)
                raise
        fits_R = (ms_R >= MIN_TS) & (ms_R <= MAX_TS)
        _leave(~fits_R)
        return ms_R.astype(np.int64, copy=False)

    def _wide(self, part: Part, messages: list[Any]) -> None:
        get, num_sensors = self._decoder.get, len(self._layout.sensors)
        # numpy makes NaN of None.
        part.values_NF = values_NF = np.empty((len(messages), num_sensors))
        for column in range(num_sensors):
            values_NF[:, column] = np.fromiter(map(get[str(column)], messages), np.float64, len(messages))

    def _chunks(self, part: Part, messages: list[Any]) -> None:
        self._set_period(part, messages)
        chunks = list(map(self._decoder.get["values"], messages))
        part.num_rows_R = np.fromiter(map(len, chunks), np.int64, len(chunks))
        self._check_sizes(part)
        size = int(part.num_rows_R.sum()) * len(self._layout.sensors)
        values = chain.from_iterable(chain.from_iterable(chunks))
        flat = np.fromiter(values, np.float64, size)
        part.values_NF = flat.reshape(-1, len(self._layout.sensors))

    def _packed_chunks(self, part: Part, messages: list[Any]) -> None:
        self._set_period(part, messages)
        chunks = list(map(self._decoder.get["values"], messages))
        row_bytes = 4 * len(self._layout.sensors)
        num_bytes_R = np.fromiter(map(len, chunks), np.int64, len(chunks))
        part.num_rows_R = num_bytes_R // row_bytes
        _leave(num_bytes_R % row_bytes != 0)
        self._check_sizes(part)
        part.values_NF = np.frombuffer(b"".join(chunks), "<f4").reshape(-1, len(self._layout.sensors))

    def _set_period(self, part: Part, messages: list[Any]) -> None:
        periods = list(map(self._decoder.get["period_ms"], messages))
        if not all(1 <= period <= MAX_PERIOD_MS for period in set(periods)):
            _leave(not 1 <= period <= MAX_PERIOD_MS for period in periods)
        part.period_R = np.array(periods, dtype=np.int64)

    @staticmethod
    def _check_sizes(part: Part) -> None:
        fits_R = (part.num_rows_R >= 1) & (part.num_rows_R <= MAX_CHUNK_ROWS)
        _leave(~fits_R)

    def _tags(self, part: Part, messages: list[Any]) -> None:
        get = self._decoder.get
        tags = map(get["tag"], messages)
        part.tag_R = tag_R = np.fromiter(
            map(self._layout.columns.get, tags, repeat(-1)), np.int64, len(messages)
        )
        is_known_R = tag_R >= 0
        if not is_known_R.all():
            if self._layout.source.unknown_tags == "refuse":
                _leave(~is_known_R)
            part.unknown_R = ~is_known_R + (0 if part.unknown_R is None else part.unknown_R)
        value_R, null_R, missing_R = self._tag_values(messages)
        bad_R = self._bad_qualities(list(map(get["quality"], messages)))
        _leave(is_known_R & ~bad_R & missing_R)
        part.bad_R = is_known_R & (bad_R | null_R)
        good_R = np.flatnonzero(is_known_R & ~part.bad_R)
        part.values_NF = np.full((len(messages), len(self._layout.sensors)), np.nan)
        part.values_NF[good_R, tag_R[good_R]] = value_R[good_R]

    def _tag_values(self, messages: list[Any]) -> tuple[Float64Array, BoolArray, BoolArray]:
        """Values, where there is none since it is null or NaN, and where since it is left out."""
        values = list(map(self._decoder.get["value"], messages))
        missing_R = np.fromiter(map(is_, values, repeat(UNSET)), np.bool_, len(values))
        if missing_R.any():
            values = [None if value is UNSET else value for value in values]
        value_R = np.array(values, dtype=np.float64)
        return value_R, np.isnan(value_R) & ~missing_R, missing_R

    def _bad_qualities(self, qualities: list[Any]) -> BoolArray:
        # The type belongs to the key: True and 1 are equal, and not the same quality.
        keys = list(zip(map(type, qualities), qualities, strict=True))
        is_bad = {key: self._is_bad(key[1]) for key in set(keys)}
        if None in is_bad.values():
            _leave(is_bad[key] is None for key in keys)
        return np.fromiter(map(is_bad.__getitem__, keys), np.bool_, len(keys))

    def _is_bad(self, value: Any) -> bool | None:
        config = self._layout.source.quality
        try:
            quality = quality_of(value, config.scheme)
        except RecordError:
            return None
        return quality is Quality.BAD or (quality is Quality.UNCERTAIN and config.uncertain == "bad")


class _OddError(Exception):
    """Some messages fit their shape and are odd all the same."""

    def __init__(self, messages: set[int]) -> None:
        super().__init__()
        self.messages = messages


def _leave(odd_R: Iterable[Any]) -> None:
    """Leaves messages to the exact path, if any is odd."""
    odd = np.flatnonzero(odd_R if isinstance(odd_R, np.ndarray) else list(odd_R)).tolist()
    if odd:
        raise _OddError(set(odd))


def _is_strand(strand: int | None) -> bool:
    return strand is None or 0 <= strand <= MAX_STRAND


_NO_VALUES: Values = np.empty((0, 0))
