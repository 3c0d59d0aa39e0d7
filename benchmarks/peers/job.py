"""What a peer is told: JSON as its only argument. Imports nothing that is not in Python itself."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """One run of one peer.

    Attributes:
        num_records: Readings in the topic: the peer ends when it has processed them.
        window_steps: Rows of a full window; a shorter one is not written.
    """

    bootstrap_servers: str
    topic: str
    group_id: str
    redis_url: str
    num_records: int
    sensors: tuple[str, ...]
    window_steps: int
    period_ms: int
    lateness_s: int
    session_timeout_ms: int

    @property
    def librdkafka(self) -> dict[str, str | int]:
        """What the peers on librdkafka change of its defaults.

        A queue that is full, at 100,000 records by default, is left alone for a second before more is fetched: a
        fast consumer stands still meanwhile, which halves it.
        """
        return {"session.timeout.ms": self.session_timeout_ms, "fetch.queue.backoff.ms": 10}

    @property
    def span_ms(self) -> int:
        """Length of a window."""
        return self.window_steps * self.period_ms

    @classmethod
    def from_arguments(cls) -> Job:
        """Reads the command line."""
        fields = json.loads(sys.argv[1])
        return cls(**fields | {"sensors": tuple(fields["sensors"])})


def window_key(cast_id: str, start_ms: int) -> str:
    """Where a window lies in Redis."""
    return f"w:{cast_id}:{start_ms}"
