"""What tests of the lease share: two holders, and conditions to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from streamer.store.connection import Client
from streamer.store.keys import Keys
from streamer.store.lease import Lease, LeaseHolder, LeaseTakenError

MODEL = "defect-lstm"
ONE = LeaseHolder("host-1", 11, "/registry", "registry-1")
OTHER = LeaseHolder("host-2", 22, "/registry", "registry-2")
LONG_S = 60.0
SHORT_S = 0.5
# A renewal may come late on a busy machine; this is still over in a moment.
RENEWED_S = 2.0
TIMEOUT_S = 20.0

Make = Callable[..., Lease]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def now_ms(client: Client) -> int:
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


@contextmanager
def making(client: Client, keys: Keys) -> Iterator[Make]:
    """Makes leases of one model name; each is closed at the end."""
    made: list[Lease] = []

    def make(holder: LeaseHolder, ttl_s: float = LONG_S) -> Lease:
        made.append(Lease(client, keys, MODEL, holder, ttl_s=ttl_s))
        return made[-1]

    yield make
    for lease in made:
        lease.close()


def take_over(client: Client, keys: Keys, other: Lease) -> None:
    """As if the lease of the first had expired; a renewal may come between the two commands."""

    def is_taken() -> bool:
        client.delete(keys.lease(MODEL))
        with suppress(LeaseTakenError):
            return other.acquire() > 0
        return False

    until(is_taken)
