"""Which casts somebody holds, such as a frozen data set or a replay buffer: retention leaves them alone.

A holder and retention never share a slot, so both write first and read afterwards: the holder names its casts, then
looks which of them are on their way out; retention marks a cast, then looks who holds it. Whatever the order, at
least one of the two sees the other, and gives way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from streamer.store import retention_scripts as scripts
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys


class CastHolds:
    """The holders of one namespace and their casts.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer; call again.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._hold = client.register_script(scripts.HOLD)
        self._seen: list[tuple[str, int]] = []
        self._held: frozenset[str] = frozenset()

    def hold(self, holder: str, cast_ids: Collection[str]) -> frozenset[str]:
        """Holds casts, in place of those that the holder had before.

        Args:
            holder: Who needs them: letters, digits, `.`, `_`, `-`, `/`.

        Returns:
            Casts that are gone or on their way out: they are not held, their rows may vanish at any time.
        """
        keys = [self._keys.holders, self._keys.last_hold, self._keys.held(holder)]
        with map_redis_errors("holding casts"):
            self._hold(keys=keys, args=[holder, *cast_ids])
        return self._leaving(cast_ids)

    def _leaving(self, cast_ids: Iterable[str]) -> frozenset[str]:
        ids = list(cast_ids)
        with map_redis_errors("asking which casts go"):
            pipe = self._client.pipeline(transaction=False)
            for cast_id in ids:
                pipe.hmget(self._keys.cast(cast_id), ["evicting", "evicted", "revision"])
            replies = pipe.execute()
        return frozenset(
            cast_id
            for cast_id, (evicting, evicted, revision) in zip(ids, replies, strict=True)
            if evicting or evicted or revision is None
        )

    def release(self, holder: str) -> None:
        """Lets all casts of a holder go; one that holds nothing changes nothing."""
        with map_redis_errors("releasing casts"):
            self._client.delete(self._keys.held(holder))
            self._client.zrem(self._keys.holders, holder)

    def holders(self) -> dict[str, int]:
        """Number of casts by holder, the one that has held for the longest first."""
        with map_redis_errors("listing holders"):
            names = [holder for holder, _ in self._by_number()]
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.scard(self._keys.held(name))
            return dict(zip(names, pipe.execute(), strict=True))

    def held(self) -> frozenset[str]:
        """All casts that somebody holds; read again only when a hold was made or released."""
        with map_redis_errors("listing held casts"):
            holders = self._by_number()
            if holders != self._seen:
                keys = [self._keys.held(name) for name, _ in holders]
                casts: Collection[Any] = self._client.sunion(keys) if keys else ()
                self._held = frozenset(map(text, casts))
                self._seen = holders
        return self._held

    def _by_number(self) -> list[tuple[str, int]]:
        holders: list[Any] = self._client.zrange(self._keys.holders, 0, -1, withscores=True)
        return [(text(name), int(number)) for name, number in holders]
