"""Stops a partition whose records fail for the most part: that is a wrong configuration, not bad records. Pure.

Asked at each record that failed, in offset order: of the last `window_records` records of the partition, did more
than `share` fail? With fewer than `min_records` seen there is no answer yet. Only the order of records counts, so
the stop falls on the same offset whatever the batches are.

    window_records 4, min_records 3, share 0.5        . taken   x failed

    records   . . . x . x x                           stops at the last one: 3 of the last 4 failed
    records   x . . x                                 goes on: half is not more than half
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamer.config import BreakerConfig

# Kept as dead letters, but nothing is wrong with how they are read.
NOT_FAILURES = frozenset({"late", "partly_late"})


@dataclass(frozen=True, slots=True)
class Trip:
    """Why a partition is stopped.

    Attributes:
        index: The record of the batch at which it tripped: the last one that may be taken.
        num_records: Records of the window, of which `num_failures` failed.
        reasons: Failures of the window by reason, the commonest first.
    """

    index: int
    num_records: int
    num_failures: int
    reasons: Mapping[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {number}" for reason, number in self.reasons.items())
        return f"{self.num_failures} of the last {self.num_records} records failed: {reasons}"


class Breaker:
    """The window of one partition; a new one has seen nothing.

    It costs time for each failure, none for a record that was taken.
    """

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._num_seen = 0
        self._failures: deque[tuple[int, str]] = deque()  # (number of the record, reason)

    def observe(self, num_records: int, failures: Sequence[tuple[int, str]]) -> Trip | None:
        """Takes the next batch in.

        Args:
            num_records: Records of the batch, whatever became of them.
            failures: (index in the batch, reason) of those that failed for good, in offset order.

        Returns:
            None, or where it tripped. What follows in the batch was not looked at, then.
        """
        before = self._num_seen
        for index, reason in failures:
            if reason in NOT_FAILURES:
                continue
            self._num_seen = before + index + 1
            self._failures.append((self._num_seen, reason))
            if trip := self._judge(index):
                return trip
        self._num_seen = before + num_records
        return None

    def _judge(self, index: int) -> Trip | None:
        window = min(self._num_seen, self._config.window_records)
        while self._failures[0][0] <= self._num_seen - window:
            self._failures.popleft()
        if window < self._config.min_records or len(self._failures) <= self._config.share * window:
            return None
        reasons = Counter(reason for _, reason in self._failures)
        ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        return Trip(index, window, len(self._failures), dict(ranked))
