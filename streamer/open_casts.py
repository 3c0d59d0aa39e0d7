"""Tells when a partition has far more open casts than a plant can pour: a field that is no cast id was taken for one.

Each open cast costs some 1.6 kB in its member and a block of rows in Redis, and the breaker sees nothing wrong: every
record can be used. It is told and not refused. Whether a cast is still open at some record hangs on where batches
end and on how long was waited at the end of the log, so a bound on new casts would refuse others after a restart than
before it, and the same log would no longer give the same windows.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from streamer.metrics import StreamerMetrics
from streamer.records import Partition

log = structlog.get_logger()


class OpenCasts:
    """The open casts of a member, by partition.

    Args:
        limit: Of one partition; above it, it is told.
    """

    def __init__(self, limit: int, metrics: StreamerMetrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._told: set[Partition] = set()

    def observe(self, num_open: Mapping[Partition, int]) -> None:
        """Takes in how many each partition of this member has now."""
        self._metrics.casts_open.set(sum(num_open.values()))
        self._metrics.many_open_casts.clear()  # of partitions that are another member's now
        for partition, number in num_open.items():
            if number > self._limit:
                self._metrics.many_open_casts.labels(*map(str, partition)).set(1)
                if partition not in self._told:
                    self._tell(partition, number)
        # Half as many, so that a number that swings around the limit is told once.
        self._told = {each for each in self._told if num_open.get(each, 0) > self._limit // 2}

    def _tell(self, partition: Partition, number: int) -> None:
        self._told.add(partition)
        log.error(
            "many open casts",
            partition=str(partition),
            open_casts=number,
            mend="look at its cast ids: a source that maps a time to cast_id opens a cast with each record. Stop the "
            "streamer before Redis is full. If the plant is that large, raise consumer.many_open_casts",
        )
