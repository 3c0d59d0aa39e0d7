"""For how long a log is known to have held nothing more: by what its broker answered, never by silence.

A broker that is out of reach, a rebalance that takes long and a process that stood still all look like a log in
which nothing comes. So an answer that says "nothing new" counts up to the moment at which it was asked for, and not
beyond: a log only grows, so what is not there now was not there then. A broker that was silent itself, or said an
error, ends the wait: what gateways could not send meanwhile comes afterwards, with earlier stamps.

    asked at      1   2   3   4 .................. 65  66
    answered      -   -   -   none, an error or late  -   -       (-: nothing new)
    known quiet   1---2---3                           65--66

What the client tells of this is not public API. A client whose fetcher works in another way is not watched, and no
time passes by waiting then: casts end by what comes, or by their `cast_end`.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import kafka

# Smaller: a hiccup of a broker starts the wait anew. Larger: gateways may have been cut off for so long, and what
# they send after it finds its cast closed.
MAX_ANSWER_S = 5.0

_WATCHED = {
    "_create_fetch_requests": (),
    "_handle_fetch_response": ("node_id", "fetch_offsets", "send_time", "response"),
    "_handle_fetch_error": ("node_id", "exception"),
}


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing lay behind an offset from `since` until `until`, in seconds of the clock."""

    offset: int
    since: float
    until: float


class _Asked(dict[Any, int]):
    """The offset that was asked for, by partition."""

    at: float
    in_session: bool


class QuietLogs:
    """Watches what the fetcher of one client asks and is answered; told by its I/O thread, read by another.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._quiet: dict[Any, Quiet] = {}
        self._ends: dict[Any, int] = {}
        self._asked: dict[Any, _Asked] = {}  # by broker; the client asks each for one thing at a time

    def watch(self, fetcher: Any) -> bool:
        """Takes its place between the fetcher and its answers; False: this fetcher works in another way."""
        if not all(_takes(getattr(fetcher, name, None), names) for name, names in _WATCHED.items()):
            return False
        create, handle, fail = (getattr(fetcher, name) for name in _WATCHED)

        def create_fetch_requests() -> dict[Any, Any]:
            at = self._clock()
            return {node: self._ask(node, at, *asked) for node, asked in create().items()}

        def handle_fetch_response(node: Any, offsets: Any, sent: float, response: Any) -> None:
            handle(node, offsets, sent, response)
            self._answered(offsets, time.monotonic() - sent, response)

        def handle_fetch_error(node: Any, exception: Any) -> None:
            self._forget(self._asked.get(node, ()))
            fail(node, exception)

        fetcher._create_fetch_requests = create_fetch_requests
        fetcher._handle_fetch_response = handle_fetch_response
        fetcher._handle_fetch_error = handle_fetch_error
        return True

    def get(self, partition: tuple[str, int]) -> Quiet | None:
        """What is known of a partition, None if something lies there or nothing is known."""
        return self._quiet.get(partition)

    def _ask(self, node: Any, at: float, request: Any, offsets: Mapping[Any, int]) -> tuple[Any, _Asked]:
        asked = _Asked(offsets)
        asked.at, asked.in_session = at, request.session_epoch > 0
        self._asked[node] = asked
        return request, asked

    def _answered(self, asked: _Asked, seconds: float, response: Any) -> None:
        if seconds > MAX_ANSWER_S:
            self._forget(asked)
            return
        if response.error_code:
            return  # the session is over and will be asked for anew; of logs it says nothing
        told = {
            kafka.TopicPartition(topic.topic, part.partition_index): part
            for topic in response.responses
            for part in topic.partitions
        }
        # In a session, what has not changed is left out; a throttled answer leaves out everything.
        may_leave_out = asked.in_session and not response.throttle_time_ms
        for partition, offset in asked.items():
            if partition in told:
                self._ends[partition] = told[partition].high_watermark
            elif not may_leave_out:
                continue
            if _says_nothing(told.get(partition)) and 0 <= self._ends.get(partition, -1) <= offset:
                self._wait(partition, offset, asked.at)
            else:
                self._forget([partition])

    def _wait(self, partition: Any, offset: int, at: float) -> None:
        before = self._quiet.get(partition)
        since = before.since if before is not None and before.offset == offset else at
        self._quiet[partition] = Quiet(offset, since, at)

    def _forget(self, partitions: Iterable[Any]) -> None:
        for partition in partitions:
            self._quiet.pop(partition, None)


def _says_nothing(part: Any) -> bool:
    """Whether a broker has no record for us; in a session, it leaves out of what nothing has changed."""
    if part is None:
        return True
    diverging = part.diverging_epoch is not None and part.diverging_epoch.end_offset >= 0
    return not (part.error_code or part.records or diverging)


def _takes(method: Any, names: tuple[str, ...]) -> bool:
    return method is not None and tuple(inspect.signature(method).parameters) == names
