"""What tests of the lease share: two holders, and conditions to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamer.store.connection import Client
from streamer.store.lease import LeaseHolder

MODEL = "defect-lstm"
ONE = LeaseHolder("host-1", 11, "/registry", "registry-1")
OTHER = LeaseHolder("host-2", 22, "/registry", "registry-2")
LONG_S = 60.0
SHORT_S = 0.5
# A renewal may come late on a busy machine; this is still over in a moment.
RENEWED_S = 2.0
TIMEOUT_S = 20.0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def now_ms(client: Client) -> int:
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000
