"""Counts over a whole namespace, read afresh each time: nothing is kept that could drift."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.counts import read_counts
from streamer.store.keys import Keys, partition_of

OUTCOMES = ("placed", "duplicate", "superseded", "late", "gap")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a namespace holds.

    Attributes:
        casts: Casts with at least one reading or end event, as long as their stubs stay.
        evicted_casts: Those among them whose rows retention took.
        pending_labels: Casts with labels and no reading.
        steps: Rows of readings by outcome; their sum is what applied records carried.
        sealed_windows: Windows that are final.
        defective_windows, good_windows: Windows that labels decide.
    """

    casts: int
    evicted_casts: int
    pending_labels: int
    steps: dict[str, int]
    sealed_windows: int
    defective_windows: int
    good_windows: int

    @property
    def readings(self) -> int:
        """Rows taken, whatever became of them."""
        return sum(self.steps.values())

    @property
    def labelled_windows(self) -> int:
        """Windows that can be trained on."""
        return self.defective_windows + self.good_windows

    @property
    def unlabelled_windows(self) -> int:
        """Windows that no label decides."""
        return self.sealed_windows - self.labelled_windows


def count_windows(client: Client, keys: Keys, spec: str) -> tuple[int, int, int]:
    """(sealed, defective, good) windows of a spec.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    with map_redis_errors("counting windows"):
        pipe = client.pipeline(transaction=False)
        for key in (keys.windows(spec), keys.defective(spec), keys.good(spec)):
            pipe.zcard(key)
        sealed, defective, good = map(int, pipe.execute())
    return sealed, defective, good


def summarise(client: Client, keys: Keys, spec: str) -> Summary:
    """Counts a namespace.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    steps = dict.fromkeys(OUTCOMES, 0)
    with map_redis_errors("listing totals"):
        members: Collection[Any] = client.smembers(keys.totals_partitions)
    counts, _ = read_counts(client, keys, {partition_of(text(member)) for member in members})
    for terms in counts.values():
        for outcome in OUTCOMES:
            steps[outcome] += terms[f"steps:{outcome}"]
    sealed, defective, good = count_windows(client, keys, spec)
    with map_redis_errors("counting"):
        num_casts, num_stubs = int(client.zcard(keys.casts)), int(client.zcard(keys.stubs))
        return Summary(
            casts=num_casts,
            evicted_casts=num_stubs,
            pending_labels=int(client.zcard(keys.pending_labels)),
            steps=steps,
            sealed_windows=sealed,
            defective_windows=defective,
            good_windows=good,
        )
