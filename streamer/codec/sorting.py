"""Which records of a batch go the fast way, and which one by one.

A batch is tried as the shape that the last one had. Of what is left, the first record is decoded exactly: that
tells its shape, and the rest is tried as that. Odd records end up being decoded exactly, every one; those with
fields of no sensor until enough of them have the same, and the shape learns these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from streamer.codec.checks import undecodable
from streamer.codec.exact import ExactDecoder, Piece
from streamer.codec.fast import FastDecoder
from streamer.codec.finish import Refused
from streamer.codec.layout import Layout, Path
from streamer.codec.parts import Part, of_pieces
from streamer.codec.shapes import Shape
from streamer.codec.wire import CONTENT_TYPE, content_type
from streamer.errors import RecordError
from streamer.records import Headers, IntArray, RecordBatch
from streamer.schema import CastEnd
from streamer.slices import HeaderColumn, Slices

# Smaller: msgspec is set up for a handful of records. Larger: as many are decoded one by one.
MIN_FAST_RECORDS = 8
# One in so many. Smaller: more records are tried twice. Larger: a few with fields of no sensor slow all others down.
MIN_SHARE_UNKNOWN = 8


@dataclass(slots=True)
class Sorted:
    """A batch, taken apart; records are named by their index in it."""

    parts: list[Part] = field(default_factory=list)
    controls: list[tuple[int, CastEnd]] = field(default_factory=list)
    refused: Refused = field(default_factory=list)
    pieces: dict[int, Piece] = field(default_factory=dict)


@dataclass(slots=True)
class _Counts:
    """What one batch has of each shape, told without `has_unknown`."""

    # Records that went the fast way, and those among them that have fields of no sensor.
    taken: Counter[Shape] = field(default_factory=Counter)
    carrying: Counter[Shape] = field(default_factory=Counter)
    # Records that were decoded one by one and have this field.
    seen: Counter[tuple[Shape, Path]] = field(default_factory=Counter)

    def add(self, shape: Shape, part: Part) -> None:
        plain = shape._replace(has_unknown=False)
        self.taken[plain] += len(part)
        if shape.has_unknown and part.unknown_R is not None:
            self.carrying[plain] += int(np.count_nonzero(part.unknown_R))

    def often(self, piece: Piece) -> list[Path]:
        """The fields of no sensor that enough others had as well."""
        self.seen.update((piece.shape, path) for path in piece.unknown)
        return [path for path in piece.unknown if self.seen[piece.shape, path] >= MIN_FAST_RECORDS]

    def usual(self) -> Shape | None:
        """The shape to begin the next batch with."""
        if not self.taken:
            return None
        plain = max(self.taken, key=self.taken.__getitem__)
        return plain._replace(has_unknown=self.carrying[plain] * MIN_SHARE_UNKNOWN >= self.taken[plain])


class Sorter:
    """Decodes batches of one source; remembers what the last one looked like, which changes its speed only."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._exact = ExactDecoder(layout)
        self._fast: dict[Shape, FastDecoder] = {}
        # By content type: the shape that most of the last batch had.
        self._usual: dict[str, Shape] = {}

    def sort_out(self, batch: RecordBatch, without: Collection[int]) -> Sorted:
        """Decodes all records but some.

        Args:
            batch: Records of one partition.
            without: Indices of records that are refused already.
        """
        done = Sorted()
        for kind, record_M in self._by_content_type(batch, without, done).items():
            self._decode(batch, kind, record_M, done)
        for decoder in self._fast.values():
            decoder.forget()
        done.parts.append(of_pieces(done.pieces, len(self._layout.sensors)))
        return done

    def _by_content_type(
        self, batch: RecordBatch, without: Collection[int], done: Sorted
    ) -> dict[str, IntArray]:
        default = self._layout.source.content_type
        if batch.headers is None:
            record_M = np.arange(len(batch), dtype=np.int64)
            return {default: np.delete(record_M, list(without)) if without else record_M}
        alike = _alike(batch.headers)
        if alike is not None and not without:
            with suppress(RecordError):
                return {content_type(alike, default): np.arange(len(batch), dtype=np.int64)}
        kinds: dict[str, list[int]] = {}
        for index, headers in enumerate(batch.headers):
            if index in without:
                continue
            try:
                kind = content_type(headers, default) if headers else default
            except RecordError as exc:
                done.refused.append((index, exc))
            else:
                kinds.setdefault(kind, []).append(index)
        return {kind: np.array(indices, dtype=np.int64) for kind, indices in kinds.items()}

    def _decode(self, batch: RecordBatch, kind: str, record_M: IntArray, done: Sorted) -> None:
        left_M, tried, counts = record_M, set[Shape](), _Counts()
        shape = self._usual.get(kind)
        while left_M.size:
            if shape is not None and shape not in tried and left_M.size >= MIN_FAST_RECORDS:
                tried.add(shape)
                part, left_M = self._fast_decoder(shape).decode(left_M, _values(batch, left_M))
                if part is not None:
                    done.parts.append(part)
                    counts.add(shape, part)
                continue
            piece = self._decode_one(batch, int(left_M[0]), done)
            left_M = left_M[1:]
            shape = None
            if piece is not None and piece.shape.kind in self._layout.fast_kinds:
                decoder = self._fast_decoder(piece.shape)
                if decoder.learn(counts.often(piece)):
                    tried.discard(piece.shape)
                shape = piece.shape if decoder.knows(piece.unknown) else None
        if usual := counts.usual():
            self._usual[kind] = usual

    def _decode_one(self, batch: RecordBatch, index: int, done: Sorted) -> Piece | None:
        try:
            message = self._exact.decode(batch.record(index))
        except RecordError as exc:
            done.refused.append((index, exc))
            return None
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - the record would end every member that reads it, for ever
            done.refused.append((index, undecodable(exc)))
            return None
        if isinstance(message, CastEnd):
            done.controls.append((index, message))
            return None
        done.pieces[index] = message
        return message

    def _fast_decoder(self, shape: Shape) -> FastDecoder:
        if shape not in self._fast:
            self._fast[shape] = FastDecoder(self._layout, shape)
        return self._fast[shape]


def _alike(headers_M: Sequence[Headers]) -> Headers | None:
    """The header `content-type` of records that all have the same headers, but for other values; else None."""
    if isinstance(headers_M, HeaderColumn) and (names := headers_M.uniform_names()) is not None:
        if CONTENT_TYPE not in names:
            return ()
        said = headers_M.values[names.index(CONTENT_TYPE)].common()
        return ((CONTENT_TYPE, said),) if said else None
    return _alike_in_rows(headers_M) if len(set(map(len, headers_M))) == 1 else None


def _alike_in_rows(headers_M: Sequence[Headers]) -> Headers | None:
    for place, (name, value) in enumerate(headers_M[0]):
        column = list(map(itemgetter(place), headers_M))
        if set(map(itemgetter(0), column)) != {name}:
            return None
        if name == CONTENT_TYPE:
            if set(map(itemgetter(1), column)) != {value}:
                return None
            if value:
                return ((name, value),)
    return ()


def _values(batch: RecordBatch, record_M: IntArray) -> Sequence[bytes | None]:
    values = batch.values
    if record_M.size == len(batch):
        return values
    return (
        values.take(record_M)
        if isinstance(values, Slices)
        else [values[index] for index in record_M.tolist()]
    )
