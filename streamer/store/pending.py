"""Labels for casts that no reading has named yet: they wait, bounded in age, and none vanishes uncounted.

The label itself lies in its cast's hash. A cast is listed after its label is written and struck off after its first
reading is, and whoever lists it looks again. So a crash leaves at most one that is listed and should not be; `expire`
strikes it off.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from streamer.records import Partition
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys
from streamer.store.totals import TotalsStore, counts_of

# Casts of one call. Smaller: what expires at once takes more calls. Larger: a batch waits for it.
MAX_GIVEN_UP = 500
# Smaller: more round trips. Larger: Redis answers others later.
_PAGE = 500


class PendingLabels:
    """The casts of one namespace that have labels and no reading.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer; call again.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._totals = TotalsStore(client, keys)

    def note(self, labelled: Mapping[str, int]) -> None:
        """Lists those casts that are not seen yet; call it after their labels are written.

        Args:
            labelled: Casts, and the log time of their label in epoch ms.
        """
        unseen = self._unseen(labelled)
        if unseen:
            with map_redis_errors("listing pending labels"):
                self._client.zadd(
                    self._keys.pending_labels, {each: labelled[each] for each in unseen}, nx=True
                )
            self.seen(set(unseen) - set(self._unseen(unseen)))

    def seen(self, cast_ids: Collection[str]) -> None:
        """Strikes off casts; call it after their first reading is written."""
        if cast_ids:
            with map_redis_errors("striking off pending labels"):
                self._client.zrem(self._keys.pending_labels, *cast_ids)

    def _unseen(self, cast_ids: Iterable[str]) -> list[str]:
        """Casts without a reading or an end, gone ones included."""
        ids = list(cast_ids)
        with map_redis_errors("asking which casts were seen"):
            pipe = self._client.pipeline(transaction=False)
            for cast_id in ids:
                pipe.hexists(self._keys.cast(cast_id), "source")
            return [cast_id for cast_id, seen in zip(ids, pipe.execute(), strict=True) if not seen]

    def count(self) -> int:
        """Casts with labels and no reading."""
        with map_redis_errors("counting pending labels"):
            return int(self._client.zcard(self._keys.pending_labels))

    def expire(self, partitions: Collection[Partition], before_ms: int) -> int:
        """Gives up the labels of casts that were not seen for too long; their counts move into the totals.

        Args:
            partitions: Partitions of the labels topic that this member holds; others give up their own.
            before_ms: Log time before which a label is given up.

        Returns:
            How many labels were given up.
        """
        waits_since = dict(self._oldest(before_ms))
        unseen = self._unseen(waits_since)
        self.seen(waits_since.keys() - set(unseen))
        num_given_up = num_casts = 0
        for cast_id in unseen:
            if waits_since[cast_id] < before_ms and num_casts < MAX_GIVEN_UP:
                num_labels = self._give_up(cast_id, partitions)
                num_given_up += num_labels
                num_casts += num_labels > 0
        return num_given_up

    def _oldest(self, before_ms: int) -> Iterator[tuple[str, int]]:
        """Pages of (cast, log time of its first label): one, and what else is older than a log time."""
        for begin in itertools.count(0, _PAGE):
            with map_redis_errors("listing pending labels"):
                page: list[Any] = self._client.zrange(
                    self._keys.pending_labels, begin, begin + _PAGE - 1, withscores=True
                )
            yield from ((text(member), int(score)) for member, score in page)
            if len(page) < _PAGE or page[-1][1] >= before_ms:
                return

    def _give_up(self, cast_id: str, partitions: Collection[Partition]) -> int:
        with map_redis_errors("reading a pending label"):
            fields: dict[Any, Any] = self._client.hgetall(self._keys.cast(cast_id))
        counts = counts_of({text(name): value for name, value in fields.items()})
        if not counts:  # given up before, and then there was a crash
            self.seen([cast_id])
            return 0
        owner, num_labels = min(counts), sum(terms["label"] for terms in counts.values())
        if owner not in partitions or not self._totals.drop(owner, cast_id, {"labels_expired": num_labels}):
            return 0
        self.seen([cast_id])
        self._totals.forget(owner, cast_id)
        return num_labels
