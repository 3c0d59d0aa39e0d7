"""Retention: casts that are over and that nobody holds lose their rows, oldest first; a stub stays for a while.

Age is log time, never the wall clock, which only says what cannot be a log time yet: two wild `sent-at` of a gateway
would make everything old. A cast goes in steps, in this order, and `sweep` repeats the numbers:

    1. list it in `evicting`, and mark it
    2. ask who holds it: held, the mark comes off again
    3. make it a stub: from here on no label decides its windows, and a late reading finds it ended
    4. take its windows out of every index
    5. delete its rows, list the stub, and strike the cast off

A pass that died anywhere is repeated from `evicting` by whoever holds the partition then. The mark bears the token of
its pass, so a pass that was overtaken cannot go on from step 1 to step 3.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamer.config import DataConfig, RetentionConfig, WindowsConfig
from streamer.records import Partition
from streamer.store import retention_scripts as scripts
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.holds import CastHolds
from streamer.store.keys import Keys
from streamer.store.namespace import read_spec, registered_specs
from streamer.store.pending import PendingLabels
from streamer.store.stubs import MAX_STUBS_DROPPED, StubStore
from streamer.store.summary import count_windows
from streamer.windows import windows_between

# Of one sweep. Smaller: a backlog of casts takes more sweeps. Larger: a batch waits for longer.
MAX_EVICTED = 500
MAX_SIZED = 10_000
# Smaller: more round trips. Larger: Redis answers others later.
_PAGE = 500
_MAX_ARGS = 5_000

# What a cast takes in Redis beside its rows, measured (docs/operations.md): its hash and its places in the lists; for
# each block its key and the windows over it; and what the allocator rounds a block up by.
CAST_BYTES = 1_700
BLOCK_BYTES = 250
BLOCK_ROUNDING = 1.14
# A revision that no cast reaches: the index refuses every view of a stub.
_NO_VIEW = 2**53

_FIELDS = ("source", "ended", "first_step", "sealed", "revision", "evicting", "evicted")
_LONG_AGO = -(2**52)
# Smaller: a member whose own clock is behind takes nothing for old. Larger: wild log times evict what is this old.
_MAX_AHEAD_S = 86_400
_INDEXED = "indexed:"
_NOT_IN_A_STUB = ("open_steps", "open_jitter", "carry_value", "carry_ts")


@dataclass(frozen=True, slots=True)
class RetentionResult:
    """What one sweep did, and what is there.

    Attributes:
        num_bytes: Of the casts with rows that nobody holds, None while no limit in bytes is set.
        num_unlabelled: Sealed windows that no label decides, by window spec.
        more: There is more to do; sweep again soon.
    """

    num_evicted: int = 0
    num_stubs_dropped: int = 0
    num_labels_expired: int = 0
    num_stored: int = 0
    num_held: int = 0
    num_stubs: int = 0
    num_pending: int = 0
    num_bytes: int | None = None
    num_unlabelled: Mapping[str, int] = field(default_factory=dict)
    more: bool = False


@dataclass(frozen=True, slots=True)
class _Cast:
    """A cast with rows, as retention sees it; `seen_at` is the log time of its first record."""

    cast_id: str
    seen_at: int
    fields: Mapping[str, bytes | None]

    @property
    def source(self) -> str:
        return (self.fields["source"] or b"").decode()

    @property
    def member(self) -> str:
        """How `evicting` and `stubs` list it."""
        return f"{self.cast_id} {self.source}"

    @property
    def steps(self) -> tuple[int, int] | None:
        """First step and the one behind the last, None without readings."""
        first, sealed = self.fields["first_step"], self.fields["sealed"]
        return None if first is None or sealed is None else (int(first), int(sealed))


class Retention:
    """Keeps one namespace within its limits, for the partitions that this member holds.

    Args:
        wall_clock: Epoch seconds.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer; the next call goes on.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        data: DataConfig,
        config: RetentionConfig,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._keys = keys
        self._config = config
        self._wall_clock = wall_clock
        self._block_steps = data.block_steps
        rows = data.block_steps * (4 * len(data.sensors) + 1)
        self._block_bytes = int(rows * BLOCK_ROUNDING) + BLOCK_BYTES
        self._token = secrets.token_hex(8)
        self._sizes: dict[str, int] = {}
        self._holds = CastHolds(client, keys)
        self._stubs = StubStore(client, keys)
        self._pending = PendingLabels(client, keys)
        self._clock, self._enter = (
            client.register_script(scripts.CLOCK),
            client.register_script(scripts.ENTER),
        )
        self._mark, self._unmark = (
            client.register_script(scripts.MARK),
            client.register_script(scripts.UNMARK),
        )
        self._evict, self._unindex = (
            client.register_script(scripts.EVICT),
            client.register_script(scripts.UNINDEX),
        )

    def sweep(self, clocks: Mapping[Partition, int | None]) -> RetentionResult:
        """Evicts what is over a limit, drops stubs and gives labels up whose time is over; bounded work.

        Args:
            clocks: The partitions that this member holds, those of labels included, and the log time (epoch ms) of
                each that has one.
        """
        log_times = self._log_times(clocks)
        now = max(log_times, default=_LONG_AGO)
        specs = registered_specs(self._client, self._keys)
        num_evicted = self._evict_all(self._unfinished(clocks), specs)
        held = self._holds.held()
        num_bytes = self._num_bytes(held)
        victims = self._victims(clocks, now, held, num_bytes, specs)
        num_evicted += self._evict_all(victims, specs)
        num_dropped = self._stubs.drop(clocks, now - _ms(self._config.stubs_s), [spec.name for spec in specs])
        num_expired = self._pending.expire(clocks.keys(), self._labels_expire_before(log_times))
        with map_redis_errors("counting casts"):
            num_stored = int(self._client.zcard(self._keys.stored))
        return RetentionResult(
            num_evicted=num_evicted,
            num_stubs_dropped=num_dropped,
            num_labels_expired=num_expired,
            num_stored=num_stored,
            num_held=len(held),
            num_stubs=self._stubs.count(),
            num_pending=self._pending.count(),
            num_bytes=num_bytes,
            num_unlabelled={spec.name: self._num_unlabelled(spec.name) for spec in specs},
            more=len(victims) == MAX_EVICTED or num_dropped == MAX_STUBS_DROPPED,
        )

    def _log_times(self, clocks: Mapping[Partition, int | None]) -> list[int]:
        """The log times of the namespace's partitions, in epoch ms; while none is known nothing is old.

        One that lies in the future is none.
        """
        args: list[str | int] = []
        for partition, at in clocks.items():
            if at is not None:
                args += (str(partition), at)
        with map_redis_errors("keeping log time"):
            log_times = map(int, self._clock(keys=[self._keys.clock], args=args))
        latest = _ms(self._wall_clock() + _MAX_AHEAD_S)
        return [at for at in log_times if at <= latest]

    def _labels_expire_before(self, log_times: Sequence[int]) -> int:
        """Log time before which a label has waited for too long, in epoch ms.

        The partition of its cast may lag behind the others, and by more than the topics are kept it cannot.
        """
        waits_ms = _ms(self._config.pending_labels_s)
        longest_ms = max(waits_ms, _ms(self._config.stubs_s))
        return max(
            min(log_times, default=_LONG_AGO) - waits_ms, max(log_times, default=_LONG_AGO) - longest_ms
        )

    def _num_unlabelled(self, spec: str) -> int:
        sealed, defective, good = count_windows(self._client, self._keys, spec)
        return max(0, sealed - defective - good)

    # What has to go

    def _victims(
        self,
        mine: Collection[Partition],
        now: int,
        held: Collection[str],
        num_bytes: int | None,
        specs: Iterable[WindowsConfig],
    ) -> list[_Cast]:
        """Casts of ours among the oldest ones over a limit, without those that are held or still move."""
        config, sources = self._config, {str(partition) for partition in mine}
        oldest = now - _ms(config.max_age_s) if config.max_age_s else _LONG_AGO
        with map_redis_errors("counting casts"):
            num_free = int(self._client.zcard(self._keys.stored)) - len(held)
        surplus = num_free - config.max_casts if config.max_casts else 0
        surplus_bytes = num_bytes - config.max_bytes if num_bytes is not None and config.max_bytes else 0
        victims: list[_Cast] = []
        for page in self._stored(held):
            over = [each for each in page if surplus > 0 or surplus_bytes > 0 or each[1] < oldest]
            for cast in self._load(over):
                wanted = surplus > 0 or surplus_bytes > 0 or cast.seen_at < oldest
                evicted = cast.fields["evicted"] is not None  # by a member that is not done with it
                if wanted and (evicted or self._may_go(cast, specs)):
                    surplus -= 1
                    surplus_bytes -= self._size(cast)
                    if cast.source in sources and not evicted:  # the others are their own member's
                        victims.append(cast)
            if len(victims) >= MAX_EVICTED or len(over) < len(page):
                break
        return victims[:MAX_EVICTED]

    def _stored(self, held: Collection[str]) -> Iterator[list[tuple[str, int]]]:
        """Pages of (cast, log time) with rows that nobody holds, oldest first."""
        for begin in itertools.count(0, _PAGE):
            with map_redis_errors("listing casts"):
                page: list[Any] = self._client.zrange(
                    self._keys.stored, begin, begin + _PAGE - 1, withscores=True
                )
            yield [(cast_id, int(at)) for member, at in page if (cast_id := text(member)) not in held]
            if len(page) < _PAGE:
                return

    def _load(self, casts: Collection[tuple[str, int]]) -> list[_Cast]:
        with map_redis_errors("reading casts"):
            pipe = self._client.pipeline(transaction=False)
            for cast_id, _ in casts:
                pipe.hgetall(self._keys.cast(cast_id))
            hashes = pipe.execute()
        empty: dict[str, bytes | None] = dict.fromkeys(_FIELDS)
        return [
            _Cast(cast_id, at, empty | {text(name): value for name, value in fields.items()})
            for (cast_id, at), fields in zip(casts, hashes, strict=True)
        ]

    def _may_go(self, cast: _Cast, specs: Iterable[WindowsConfig]) -> bool:
        """Whether a cast is over and stands in every index as it is."""
        fields, revision = cast.fields, cast.fields["revision"]
        if fields["ended"] != b"1" or revision is None:
            return False
        shown = [(fields.get(_INDEXED + spec.name) or b"").partition(b" ")[0] for spec in specs]
        return all(each == revision for each in shown)

    def _size(self, cast: _Cast) -> int:
        if cast.steps is None:
            return CAST_BYTES
        return len(self._blocks(cast.steps)) * self._block_bytes + CAST_BYTES

    def _blocks(self, steps: tuple[int, int]) -> range:
        first, sealed = steps
        return range(first // self._block_steps, (sealed - 1) // self._block_steps + 1)

    def _num_bytes(self, held: Collection[str]) -> int | None:
        """Bytes of all casts that nobody holds; sizes of those that are over are learned once.

        None until a member that has just started has learned them all.
        """
        if self._config.max_bytes is None:
            return None
        with map_redis_errors("listing casts"):
            listed: list[Any] = self._client.zrange(self._keys.stored, 0, -1)
        stored = set(map(text, listed)) - set(held)
        self._sizes = {cast_id: size for cast_id, size in self._sizes.items() if cast_id in stored}
        total, new = sum(self._sizes.values()), [(cast_id, 0) for cast_id in stored - self._sizes.keys()]
        for begin in range(0, min(len(new), MAX_SIZED), _PAGE):
            for cast in self._load(new[begin : begin + _PAGE]):
                total += self._size(cast)
                if cast.fields["ended"] == b"1":
                    self._sizes[cast.cast_id] = self._size(cast)
        return total if len(new) <= MAX_SIZED else None

    # How it goes

    def _unfinished(self, mine: Collection[Partition]) -> list[_Cast]:
        """Casts of ours that an earlier pass began with; those it had not marked yet are struck off."""
        with map_redis_errors("listing casts that go"):
            listed: list[Any] = self._client.zrange(self._keys.evicting, 0, -1, withscores=True)
        sources = {str(partition) for partition in mine}
        members = [(text(member).partition(" "), int(at)) for member, at in listed]
        casts = self._load([(cast_id, at) for (cast_id, _, source), at in members if source in sources])
        begun = [cast for cast in casts if cast.fields["evicting"] or cast.fields["evicted"]]
        self._strike_off(self._keys.evicting, [cast.member for cast in casts if cast not in begun])
        return begun

    def _evict_all(self, casts: list[_Cast], specs: Collection[WindowsConfig]) -> int:
        if not casts:
            return 0
        self._list(self._keys.evicting, casts)  # 1
        marked = self._mark_all(casts)
        held = self._holds.held()  # 2
        with map_redis_errors("making stubs"):
            pipe = self._client.pipeline(transaction=False)
            for cast in marked:
                keys = [self._keys.cast(cast.cast_id)]
                if cast.cast_id in held:
                    self._unmark(keys=keys, args=[self._token], client=pipe)
                else:  # 3
                    self._evict(keys=keys, args=[self._token, *_NOT_IN_A_STUB], client=pipe)
            pipe.execute()
        looked = self._load([(cast.cast_id, cast.seen_at) for cast in casts])
        stubs = [cast for cast in looked if cast.fields["evicted"]]
        for cast in stubs:
            with map_redis_errors("emptying stubs"):
                pipe = self._client.pipeline(transaction=False)
                self._take_out(cast, specs, pipe)  # 4
                self._delete_rows(cast, pipe)  # 5
                pipe.execute()
        self._list(self._keys.stubs, stubs)
        self._strike_off(self._keys.stored, [cast.cast_id for cast in stubs])
        self._strike_off(self._keys.evicting, [cast.member for cast in casts])
        return len(stubs)

    def _mark_all(self, casts: Iterable[_Cast]) -> list[_Cast]:
        with map_redis_errors("marking casts that go"):
            pipe = self._client.pipeline(transaction=False)
            for cast in casts:
                keys, revision = [self._keys.cast(cast.cast_id)], cast.fields["revision"] or b""
                self._mark(keys=keys, args=[self._token, revision], client=pipe)
            return [cast for cast, ok in zip(casts, pipe.execute(), strict=True) if ok]

    def _list(self, key: str, casts: Iterable[_Cast]) -> None:
        args: list[str | int] = []
        for cast in casts:
            args += (cast.seen_at, cast.member)
        with map_redis_errors("listing casts that go"):
            self._enter(keys=[key], args=args)

    def _strike_off(self, key: str, members: Collection[str]) -> None:
        if members:
            with map_redis_errors("striking casts off"):
                self._client.zrem(key, *members)

    def _take_out(self, cast: _Cast, specs: Iterable[WindowsConfig], pipe: Any) -> None:
        for spec in (*specs, *self._dropped_specs(cast, specs)):
            windows, name = self._windows(cast, spec), spec.name
            keys = [self._keys.windows(name), self._keys.defective(name), self._keys.good(name)]
            keys += [self._keys.withdrawn(name), self._keys.shown(name)]
            for begin in range(0, max(1, len(windows)), _MAX_ARGS):
                args: list[str | int] = [cast.cast_id, _NO_VIEW, *windows[begin : begin + _MAX_ARGS]]
                self._unindex(keys=keys, args=args, client=pipe)

    def _dropped_specs(self, cast: _Cast, specs: Iterable[WindowsConfig]) -> list[WindowsConfig]:
        """Specs that members no longer keep to, and whose index has windows of this cast."""
        names = {name.removeprefix(_INDEXED) for name in cast.fields if name.startswith(_INDEXED)}
        found = (read_spec(self._client, self._keys, name) for name in names - {spec.name for spec in specs})
        return [spec for spec in found if spec is not None]

    def _windows(self, cast: _Cast, spec: WindowsConfig) -> list[str]:
        if cast.steps is None:
            return []
        first, sealed = cast.steps
        found = windows_between(spec, cast.cast_id, first_step=first, begin=first, sealed=sealed, ended=True)
        return [str(window) for window in found]

    def _delete_rows(self, cast: _Cast, pipe: Any) -> None:
        if cast.steps is not None:
            keys = [self._keys.rows(cast.cast_id, block) for block in self._blocks(cast.steps)]
            for begin in range(0, len(keys), _MAX_ARGS):
                pipe.unlink(*keys[begin : begin + _MAX_ARGS])


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
