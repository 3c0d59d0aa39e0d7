"""Counts over a whole namespace, read afresh each time: nothing is kept that could drift."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys

OUTCOMES = ("placed", "duplicate", "superseded", "late", "gap")
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Summary:
    """What a namespace holds.

    Attributes:
        casts: Casts with at least one reading or end event.
        steps: Rows of readings by outcome; their sum is what applied records carried.
        sealed_windows: Windows that are final.
        defective_windows, good_windows: Windows that labels decide.
    """

    casts: int
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


def summarise(client: Client, keys: Keys, spec: str) -> Summary:
    """Counts a namespace.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    with map_redis_errors("counting"):
        cast_ids = [text(member) for member in client.zrange(keys.casts, 0, -1) if isinstance(member, bytes)]
        steps = dict.fromkeys(OUTCOMES, 0)
        for begin in range(0, len(cast_ids), _BATCH):
            pipe = client.pipeline(transaction=False)
            for cast_id in cast_ids[begin : begin + _BATCH]:
                pipe.hmget(keys.cast(cast_id), [f"steps:{outcome}" for outcome in OUTCOMES])
            for values in pipe.execute():
                for outcome, value in zip(OUTCOMES, values, strict=True):
                    steps[outcome] += int(value or 0)
        return Summary(
            casts=len(cast_ids),
            steps=steps,
            sealed_windows=int(client.zcard(keys.windows(spec))),
            defective_windows=int(client.zcard(keys.defective(spec))),
            good_windows=int(client.zcard(keys.good(spec))),
        )
