"""The index of windows: which are sealed, and how labels decide them.

What a cast holds and what the index shows lie in different slots, so the index is written first and the marker
`indexed` of the cast moves after it. A cast whose `revision` is ahead of its marker is indexed again; entering a
window twice changes nothing, and the index refuses a view of the cast that is older than the one it shows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from streamer.config import DataConfig, WindowsConfig
from streamer.store import scripts
from streamer.store.casts import decode_labels
from streamer.store.connection import Client, map_redis_errors
from streamer.store.keys import Keys
from streamer.store.rows import RowStore
from streamer.timeline import Grid
from streamer.windows import Address, Verdict, decide, step_verdicts, valid_steps, windows_between

_FIELDS = ("first_step", "sealed", "ended", "labels", "revision", "indexed", "indexed_step")


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What one call entered.

    Attributes:
        num_sealed: Windows that became final.
        num_decided: Windows that labels decide, among those looked at.
        finished: Casts that are over and indexed.
    """

    num_sealed: int = 0
    num_decided: int = 0
    finished: frozenset[str] = frozenset()


class WindowIndex:
    """Keeps the index of one window spec."""

    def __init__(self, client: Client, keys: Keys, data: DataConfig, spec: WindowsConfig) -> None:
        self._client = client
        self._keys = keys
        self._spec = spec
        self._grid = Grid(data.period_ms, data.grid_phase_ms)
        self._rows = RowStore(client, keys, data)
        self._index = client.register_script(scripts.INDEX)
        self._indexed = client.register_script(scripts.INDEXED)

    def update(self, cast_ids: Collection[str]) -> IndexResult:
        """Brings the index of these casts up to date.

        Raises:
            StoreUnavailableError: Redis does not answer; calling again mends what is half done.
        """
        num_sealed = num_decided = 0
        finished: set[str] = set()
        pending = sorted(cast_ids)
        while pending:
            moved_on = []
            for cast_id, fields in self._load(pending):
                if fields["revision"] == fields["indexed"]:
                    done = True
                else:
                    sealed, decided, done = self._update_cast(cast_id, fields)
                    num_sealed += sealed
                    num_decided += decided
                if not done:
                    moved_on.append(cast_id)
                elif fields["ended"] == b"1":
                    finished.add(cast_id)
            pending = moved_on  # another member changed the cast while we looked at it
        return IndexResult(num_sealed, num_decided, frozenset(finished))

    def _load(self, cast_ids: Iterable[str]) -> Iterable[tuple[str, dict[str, bytes | None]]]:
        ids = list(cast_ids)
        with map_redis_errors("loading casts to index"):
            pipe = self._client.pipeline(transaction=False)
            for cast_id in ids:
                pipe.hmget(self._keys.cast(cast_id), _FIELDS)
            replies = pipe.execute()
        for cast_id, values in zip(ids, replies, strict=True):
            yield cast_id, dict(zip(_FIELDS, values, strict=True))

    def _update_cast(self, cast_id: str, fields: dict[str, bytes | None]) -> tuple[int, int, bool]:
        if fields["first_step"] is None or fields["sealed"] is None:
            return 0, 0, self._mark(cast_id, fields["revision"], b"")
        first_step, sealed = int(fields["first_step"]), int(fields["sealed"])
        begin = int(fields["indexed_step"]) if fields["indexed_step"] else first_step
        ended = fields["ended"] == b"1"

        def windows(begin: int) -> list[Address]:
            return list(
                windows_between(
                    self._spec, cast_id, first_step=first_step, begin=begin, sealed=sealed, ended=ended
                )
            )

        new = windows(begin)
        # A label changes windows that were entered long ago: look at all of them.
        touched = windows(first_step) if fields["labels"] else new
        verdicts = self._decide(cast_id, fields["labels"], touched)
        if not self._enter(cast_id, fields["revision"], touched, verdicts):
            return 0, 0, False
        num_decided = sum(verdict is not Verdict.UNLABELLED for verdict in verdicts)
        return len(new), num_decided, self._mark(cast_id, fields["revision"], b"%d" % sealed)

    def _decide(self, cast_id: str, labels: bytes | None, windows: list[Address]) -> list[Verdict]:
        known = decode_labels(cast_id, labels)
        if not known or not windows:
            return [Verdict.UNLABELLED] * len(windows)
        verdicts = []
        for window, x_TF in zip(windows, self._rows.read(windows), strict=True):
            valid_T = valid_steps(x_TF)
            verdict_T = step_verdicts(known, self._grid, window.start, window.length)
            verdicts.append(decide(valid_T, verdict_T, self._spec.min_valid_ratio))
        return verdicts

    def _enter(
        self, cast_id: str, revision: bytes | None, windows: list[Address], verdicts: list[Verdict]
    ) -> bool:
        if not windows:
            return True
        name = self._spec.name
        keys = [self._keys.windows(name), self._keys.defective(name), self._keys.good(name)]
        args: list[str | bytes | int] = [cast_id, revision or b"0"]
        for window, verdict in zip(windows, verdicts, strict=True):
            args += (str(window), self._grid.time(window.end), int(verdict))
        with map_redis_errors("entering windows"):
            return bool(
                self._index(keys=[*keys, self._keys.arrivals(name), self._keys.shown(name)], args=args)
            )

    def _mark(self, cast_id: str, revision: bytes | None, sealed: bytes) -> bool:
        with map_redis_errors("marking a cast as indexed"):
            return bool(self._indexed(keys=[self._keys.cast(cast_id)], args=[revision or b"", sealed]))
