"""The index of windows: which are sealed, and how labels decide them, for every window spec of the namespace.

What a cast holds and what an index shows lie in different slots, so an index is written first and the marker
`indexed:<spec>` of the cast moves after it. A cast whose `revision` is ahead of a marker is indexed again; entering a
window twice changes nothing, and an index refuses a view of the cast that is older than the one it shows.

A spec that is registered while members run is seen by each at its next `update`, before it looks at its casts; what
was sealed earlier is entered by `streamer index`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from itertools import islice
from typing import Any, TypeVar

from streamer.config import DataConfig, WindowsConfig
from streamer.errors import FencedError
from streamer.store import scripts
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys
from streamer.store.namespace import read_spec
from streamer.timeline import Grid
from streamer.windows import Address, Verdict, windows_between

# Casts that one round of pipelines looks at. Smaller: more round trips. Larger: memory.
BATCH_CASTS = 256
# Windows and row blocks that one call of a script touches: Redis serves nobody else meanwhile.
MAX_WINDOWS, MAX_BLOCKS = 512, 2_048
# Rounds in which a cast may change under our hands: others write it once a second or so.
MAX_ROUNDS = 50

_FIELDS = ("first_step", "sealed", "ended", "evicted", "revision", "num_labels")
Call = tuple[list[str], list[str | bytes | int]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What one call entered.

    Attributes:
        num_sealed: Windows that became final, over all specs.
        num_decided: Windows that labels decide, among those looked at.
        num_evicted: Casts that were left alone: retention has taken their rows.
        finished: Casts that are over and indexed.
    """

    num_sealed: int = 0
    num_decided: int = 0
    num_evicted: int = 0
    finished: frozenset[str] = frozenset()

    def __add__(self, other: IndexResult) -> IndexResult:
        return IndexResult(
            self.num_sealed + other.num_sealed,
            self.num_decided + other.num_decided,
            self.num_evicted + other.num_evicted,
            self.finished | other.finished,
        )


@dataclass(frozen=True, slots=True)
class _Mark:
    """What an index shows of a cast: its revision, how many labels had a say, and the sealed edge."""

    revision: int = 0
    num_labels: int = 0
    sealed: int | None = None

    @classmethod
    def parse(cls, value: bytes | None) -> _Mark:
        return cls(*map(int, value.split())) if value else cls()

    def __str__(self) -> str:
        return " ".join(str(part) for part in astuple(self) if part is not None)


@dataclass(frozen=True, slots=True)
class _View:
    """A cast as it was loaded."""

    cast_id: str
    first_step: int | None
    sealed: int | None
    ended: bool
    evicted: bool
    revision: int
    num_labels: int
    marks: dict[str, _Mark]


@dataclass(slots=True)
class _Job:
    """A cast whose windows of one spec are to be entered."""

    view: _View
    spec: WindowsConfig
    num_new: int
    windows: list[Address]
    verdicts: list[int] = field(default_factory=list)
    stale: bool = False

    @property
    def mark(self) -> _Mark:
        return _Mark(self.view.revision, self.view.num_labels, self.view.sealed)


class WindowIndex:
    """Keeps the indexes of all window specs of a namespace.

    Args:
        spec: Kept up to date whether it is registered or not.
    """

    def __init__(self, client: Client, keys: Keys, data: DataConfig, spec: WindowsConfig) -> None:
        self._client = client
        self._keys = keys
        self._data = data
        self._spec = spec
        self._specs = {spec.name: spec}
        self._grid = Grid(data.period_ms, data.grid_phase_ms)
        self._decide = client.register_script(scripts.DECIDE)
        self._index = client.register_script(scripts.INDEX)
        self._indexed = client.register_script(scripts.INDEXED)

    def has_new_windows(self, first_step: int | None, begin: int | None, sealed: int | None) -> bool:
        """Whether a cast that goes on has windows that became final, of any spec known so far.

        Args:
            begin: Its sealed edge at the last `update`, None if that is not known.
            sealed: Its sealed edge now.
        """
        if first_step is None or sealed is None:
            return False
        begin = first_step if begin is None else begin
        return any(
            any(True for _ in _windows(spec, "", first_step, begin, sealed, ended=False))
            for spec in self._specs.values()
        )

    def update(self, cast_ids: Collection[str]) -> IndexResult:
        """Brings the indexes of these casts up to date; a cast that was evicted is left alone.

        Raises:
            StoreUnavailableError: Redis does not answer; calling again mends what is half done.
            FencedError: A cast changed each time that we looked at it, or an index shows more of it than it holds.
        """
        result = IndexResult()
        for batch in _batches(sorted(set(cast_ids)), BATCH_CASTS):
            pending: Sequence[str] = batch
            for _ in range(MAX_ROUNDS):
                entered, pending = self._update_batch(pending)
                result += entered
                if not pending:
                    break
            else:
                raise FencedError(
                    f"indexing of {', '.join(pending[:5])} did not settle in {MAX_ROUNDS} rounds: they change "
                    f"all the time, or an index shows more of them than Redis holds of them since a node lost "
                    f"writes; if this lasts, build the index anew under another name with `streamer index`"
                )
        return result

    def update_all(self) -> Iterator[tuple[int, IndexResult]]:
        """Brings the indexes of every cast up to date; what was done before is passed over.

        Yields:
            After each batch: casts seen so far, what they entered.
        """
        seen, result = 0, IndexResult()
        with map_redis_errors("listing casts"):
            # A scan gives every cast that is there from beginning to end, whatever retention takes meanwhile.
            for batch in _batches(self._client.zscan_iter(self._keys.casts, count=BATCH_CASTS), BATCH_CASTS):
                result += self.update([text(cast_id) for cast_id, _ in batch])
                seen += len(batch)
                yield seen, result

    def _update_batch(self, cast_ids: Sequence[str]) -> tuple[IndexResult, list[str]]:
        """One round; returns also the casts that another member changed while we looked at them."""
        views = self._load(cast_ids)
        jobs = [job for view in views for job in self._jobs(view)]
        self._decide_all(jobs)
        self._enter_all(jobs)
        self._mark_all(jobs)
        stale = {job.view.cast_id for job in jobs if job.stale}
        done = [job for job in jobs if not job.stale]
        result = IndexResult(
            num_sealed=sum(job.num_new for job in done),
            num_decided=sum(verdict != Verdict.UNLABELLED for job in done for verdict in job.verdicts),
            num_evicted=sum(view.evicted for view in views),
            finished=frozenset(
                view.cast_id for view in views if (view.ended or view.evicted) and view.cast_id not in stale
            ),
        )
        return result, sorted(stale)

    # Load

    def _load(self, cast_ids: Sequence[str]) -> list[_View]:
        while True:
            names = list(self._specs)
            fields = [*_FIELDS, *(f"indexed:{name}" for name in names)]
            with map_redis_errors("loading casts to index"):
                pipe = self._client.pipeline(transaction=False)
                pipe.smembers(self._keys.specs)
                for cast_id in cast_ids:
                    pipe.hmget(self._keys.cast(cast_id), fields)
                registered, *replies = pipe.execute()
            if self._follow({text(name) for name in registered}):
                return [_view(*each, names) for each in zip(cast_ids, replies, strict=True)]

    def _follow(self, registered: set[str]) -> bool:
        """Keeps to the registered specs; returns whether they are those that we know."""
        wanted = registered | {self._spec.name}
        if wanted == self._specs.keys():
            return True
        specs = {self._spec.name: self._spec}
        for name in sorted(wanted - specs.keys()):
            if spec := self._specs.get(name) or read_spec(self._client, self._keys, name):
                specs[name] = spec
        same, self._specs = specs.keys() == self._specs.keys(), specs
        return same

    def _jobs(self, view: _View) -> Iterator[_Job]:
        if view.evicted:
            return
        for name, mark in view.marks.items():
            if mark.revision != view.revision:
                yield self._job(view, self._specs[name], mark)

    def _job(self, view: _View, spec: WindowsConfig, mark: _Mark) -> _Job:
        first_step, sealed = view.first_step, view.sealed
        if first_step is None or sealed is None:
            return _Job(view, spec, 0, [])

        def windows(begin: int) -> list[Address]:
            return sorted(_windows(spec, view.cast_id, first_step, begin, sealed, ended=view.ended))

        new = windows(first_step if mark.sealed is None else mark.sealed)
        # A label changes windows that were entered long ago: look at all of them.
        touched = new if mark.num_labels == view.num_labels else windows(first_step)
        return _Job(view, spec, len(new), touched)

    # Decide, enter, mark: in this order, each for all casts at once

    def _decide_all(self, jobs: Iterable[_Job]) -> None:
        calls = []
        for job in jobs:
            if job.view.num_labels:
                calls += [(job, self._decide_call(job, part)) for part in self._parts(job.windows)]
            else:
                job.verdicts = [Verdict.UNLABELLED] * len(job.windows)
        for job, (revision, *verdicts) in self._run(self._decide, calls, "deciding windows"):
            job.stale = job.stale or int(revision or 0) != job.view.revision
            job.verdicts += verdicts

    def _parts(self, windows: Sequence[Address]) -> Iterator[list[Address]]:
        """Cuts windows, in order, into what one call may touch."""
        part: list[Address] = []
        num_blocks, size = 0, self._data.block_steps
        for window in windows:
            blocks = (window.end - 1) // size - window.start // size + 1
            if part and (len(part) == MAX_WINDOWS or num_blocks + blocks > MAX_BLOCKS):
                yield part
                part, num_blocks = [], 0
            part.append(window)
            num_blocks += blocks
        if part:
            yield part

    def _decide_call(self, job: _Job, windows: Sequence[Address]) -> Call:
        size = self._data.block_steps
        blocks = sorted(
            {
                block
                for window in windows
                for block in range(window.start // size, (window.end - 1) // size + 1)
            }
        )
        args: list[str | bytes | int] = [self._data.period_ms, self._data.grid_phase_ms, size]
        args += [4 * len(self._data.sensors) * size, repr(job.spec.min_valid_ratio), *blocks]
        for window in windows:
            args += (window.start, window.length)
        keys = [self._keys.cast(job.view.cast_id)]
        return [*keys, *(self._keys.rows(job.view.cast_id, block) for block in blocks)], args

    def _enter_all(self, jobs: Iterable[_Job]) -> None:
        calls = []
        for job in jobs:
            if not job.stale:
                entries = zip(job.windows, job.verdicts, strict=True)
                parts = _batches(entries, MAX_WINDOWS)
                calls += [(job, self._enter_call(job, part)) for part in parts]
        for job, entered in self._run(self._index, calls, "entering windows"):
            job.stale = job.stale or not entered

    def _enter_call(self, job: _Job, entries: Iterable[tuple[Address, int]]) -> Call:
        args: list[str | bytes | int] = [job.view.cast_id, job.view.revision]
        for window, verdict in entries:
            args += (str(window), self._grid.time(window.end), int(verdict))
        keys, name = self._keys, job.spec.name
        sets = [keys.windows(name), keys.defective(name), keys.good(name), keys.withdrawn(name)]
        return [*sets, keys.arrivals(name), keys.shown(name)], args

    def _mark_all(self, jobs: Iterable[_Job]) -> None:
        calls: list[tuple[_Job, Call]] = []
        for job in jobs:
            if not job.stale:
                field_name = f"indexed:{job.spec.name}"
                args: list[str | bytes | int] = [job.view.revision or "", field_name, str(job.mark)]
                calls.append((job, ([self._keys.cast(job.view.cast_id)], args)))
        for job, marked in self._run(self._indexed, calls, "marking casts as indexed"):
            job.stale = job.stale or not marked

    def _run(
        self, script: Callable[..., object], calls: Sequence[tuple[_Job, Call]], action: str
    ) -> Iterator[tuple[_Job, Any]]:
        """Runs a script for each call; what it returned, in their order."""
        if not calls:
            return
        with map_redis_errors(action):
            pipe = self._client.pipeline(transaction=False)
            for _, (keys, args) in calls:
                script(keys=keys, args=args, client=pipe)
            replies = pipe.execute()
        yield from ((job, reply) for (job, _), reply in zip(calls, replies, strict=True))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _windows(
    spec: WindowsConfig, cast_id: str, first_step: int, begin: int, sealed: int, *, ended: bool
) -> Iterator[Address]:
    return windows_between(spec, cast_id, first_step=first_step, begin=begin, sealed=sealed, ended=ended)


def _view(cast_id: str, values: Sequence[bytes | None], names: Sequence[str]) -> _View:
    first_step, sealed, ended, evicted, revision, num_labels, *marks = values
    return _View(
        cast_id=cast_id,
        first_step=None if first_step is None else int(first_step),
        sealed=None if sealed is None else int(sealed),
        ended=ended == b"1",
        evicted=evicted == b"1",
        revision=int(revision or 0),
        num_labels=int(num_labels or 0),
        marks={name: _Mark.parse(value) for name, value in zip(names, marks, strict=True)},
    )
