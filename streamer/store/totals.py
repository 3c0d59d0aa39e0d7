"""The counts of casts, kept when the casts themselves go.

The counts of a cast lie in its hash. When the hash goes, they move into the totals of the partitions that they
belong to, which lie in other slots. So a marker is written there together with the counts, and tells readers and
later passes what was added: while the hash still stands, the counts of its marker are taken off again. The hash
bears the field `going` before the marker is written; one without it came later, under the same name.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from streamer.records import Partition
from streamer.store import retention_scripts as scripts
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys, partition_of

GOING = "going"
MARKER = "cast:"
OWNER = "owner:"
_APPLIED = "applied:"
_ALSO = "@"

Fields = Mapping[str, bytes]
Counts = dict[Partition, Counter[str]]


def counts_of(fields: Fields) -> Counts:
    """The terms of the ledger in one cast's hash, by the partition that they belong to."""
    counts: Counts = defaultdict(Counter)
    for name, value in fields.items():
        kind, _, rest = name.partition(":")
        if kind in {"records", "steps"} and "source" in fields:
            counts[partition_of(fields["source"].decode())][name] += int(value)
        elif kind == "label":
            counts[partition_of(rest)]["label"] += int(value)
    return dict(counts)


class TotalsStore:
    """Moves the counts of casts into the totals, for the member that holds the partition of a cast.

    A member that lost the partition is refused: whoever begins writes a token of its own, into the cast as well as
    into the totals. What is half done is mended by `mend`.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._token = secrets.token_hex(8)
        self._join = client.register_script(scripts.JOIN)
        self._own = client.register_script(scripts.OWN)
        self._take = client.register_script(scripts.TAKE)
        self._fold = client.register_script(scripts.FOLD)
        self._unfold = client.register_script(scripts.UNFOLD)
        self._drop = client.register_script(scripts.DROP)

    def drop(self, owner: Partition, cast_id: str, extra: Mapping[str, int] | None = None) -> bool:
        """Moves the counts of a cast into the totals and deletes its hash. Call `forget` once it is listed nowhere.

        Args:
            owner: The partition for which the caller acts.
            extra: Counts that are added to the totals of the owner as well.

        Returns:
            Whether it is gone; False when it has rows (its first readings came since the caller looked), when it
            moved meanwhile, when another member has taken over, or when the position of a partition lies before the
            last record of it that the cast has judged: a crash or an outage came between the two, and the record,
            read again, would find no cast.
        """
        partitions = {owner, *counts_of(self._read(cast_id))}
        self._claim(owner, cast_id, partitions, begin=True)
        fields = self._read(cast_id)  # what was read before the claim may be a view of long ago
        counts = counts_of(fields)
        if counts.keys() - partitions or _has_rows(fields) or not self._is_passed(fields):
            return False
        others = sorted(counts.keys() - {owner})
        own = {**counts.get(owner, {}), **(extra or {}), **{f"{_ALSO}{each}": 0 for each in others}}
        # First where a later pass looks, and last the hash.
        for partition, terms in ((owner, own), *((each, counts[each]) for each in others)):
            if not self._add(owner, partition, cast_id, terms):
                return False
        args: list[str | bytes | int] = [len(fields)]
        for name, value in fields.items():
            args += (name, value)
        with map_redis_errors("deleting a cast"):
            return bool(self._drop(keys=[self._keys.cast(cast_id)], args=args))

    def _read(self, cast_id: str) -> dict[str, bytes]:
        with map_redis_errors("reading a cast that goes"):
            fields: dict[Any, Any] = self._client.hgetall(self._keys.cast(cast_id))
        return {text(name): value for name, value in fields.items()}

    def _is_passed(self, fields: Fields) -> bool:
        """Whether the positions of all partitions lie behind what the cast has judged of them."""
        with map_redis_errors("comparing a cast that goes with positions"):
            for name, value in fields.items():
                if name.startswith(_APPLIED):
                    partition = partition_of(name.removeprefix(_APPLIED))
                    position = self._client.hget(self._keys.position(partition), "offset")
                    if position is None or int(position) < int(value):
                        return False
        return True

    def _claim(self, owner: Partition, cast_id: str, partitions: Iterable[Partition], *, begin: bool) -> bool:
        """Lets no older pass go on; returns whether there was one over this very hash.

        Args:
            begin: Whether to begin with a hash that no pass has begun with.
        """
        with map_redis_errors("claiming totals"):
            for partition in partitions:
                self._join(keys=[self._keys.totals_partitions], args=[str(partition)])
                self._own(keys=[self._keys.totals(partition)], args=[f"{OWNER}{owner}", self._token])
            return bool(self._take(keys=[self._keys.cast(cast_id)], args=[self._token, int(begin)]))

    def _add(self, owner: Partition, partition: Partition, cast_id: str, terms: Mapping[str, int]) -> bool:
        args: list[str | int] = [f"{OWNER}{owner}", self._token, _marker(cast_id, owner)]
        for name, number in terms.items():
            args += (name, number)
        with map_redis_errors("moving counts into the totals"):
            return bool(self._fold(keys=[self._keys.totals(partition)], args=args))

    def mend(self, owner: Partition) -> list[str]:
        """Looks for what an earlier pass over a partition has left half done.

        Counts of a cast that still stands are taken back.

        Returns:
            Casts that are gone, although one of the same name may have come since: take them off the lists of what
            went, then `forget` them.
        """
        gone = []
        for cast_id, others in self._marked(owner).items():
            partitions = (*others, owner)
            if not self._claim(owner, cast_id, partitions, begin=False):
                gone.append(cast_id)
                continue
            with map_redis_errors("taking counts back"):
                for partition in partitions:
                    args = [f"{OWNER}{owner}", self._token, _marker(cast_id, owner)]
                    self._unfold(keys=[self._keys.totals(partition)], args=args)
        return gone

    def forget(self, owner: Partition, cast_id: str) -> None:
        """Removes the markers of a cast that is gone; its counts stay."""
        with map_redis_errors("removing markers"):
            for partition in (*self._marked(owner).get(cast_id, ()), owner):
                self._client.hdel(self._keys.totals(partition), _marker(cast_id, owner))

    def _marked(self, owner: Partition) -> dict[str, list[Partition]]:
        """Casts whose counts stand in the totals of their owner, and the other partitions that they stand in."""
        with map_redis_errors("listing markers"):
            fields = self._client.hgetall(self._keys.totals(owner))
        marked = {}
        for name, value in fields.items():
            kind, _, rest = text(name).partition(":")
            cast_id, _, marker_owner = rest.partition(" ")
            if f"{kind}:" == MARKER and marker_owner == str(owner):
                terms = msgspec.json.decode(value, type=dict[str, int])
                marked[cast_id] = [partition_of(term[1:]) for term in terms if term.startswith(_ALSO)]
        return marked


def _has_rows(fields: Fields) -> bool:
    """Whether it is neither a stub nor labels without a cast."""
    return "source" in fields and "evicted" not in fields


def _marker(cast_id: str, owner: Partition) -> str:
    return f"{MARKER}{cast_id} {owner}"
