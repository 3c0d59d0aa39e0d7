"""What a member does beside the stream: it keeps the namespace within its limits, and knows which labels wait."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import structlog

from streamer.metrics import StreamerMetrics
from streamer.records import Partition
from streamer.store.pending import PendingLabels
from streamer.store.retention import Retention, RetentionResult

log = structlog.get_logger()


class Housekeeping:
    """Runs between two batches.

    Args:
        interval_s: Between two sweeps, as long as one finishes its work.
        clock: Monotonic seconds.

    Raises:
        StoreUnavailableError: From every method, when Redis does not answer; the next call goes on.
    """

    def __init__(
        self,
        retention: Retention,
        pending: PendingLabels,
        metrics: StreamerMetrics,
        *,
        interval_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._retention = retention
        self._pending = pending
        self._metrics = metrics
        self._interval_s = interval_s
        self._clock = clock
        self._sweep_at = clock()
        self._swept: frozenset[Partition] = frozenset()

    def labelled(self, log_times: Mapping[str, int]) -> None:
        """Lists the casts among these that wait for their readings; call it once their labels are written."""
        if log_times:
            self._pending.note(log_times)

    def seen(self, cast_ids: Collection[str]) -> None:
        """Strikes casts off that waited; call it once their first readings are written."""
        self._pending.seen(cast_ids)

    def sweep_if_due(self, clocks: Callable[[], Mapping[Partition, int | None]]) -> None:
        """Sweeps, if the last sweep is long enough ago or was not done, or a partition has come since.

        A member that died may have left a cast of its partition half gone: that is ended before it is read.

        Args:
            clocks: Says which partitions this member holds, and the log time (epoch ms) of each that has one.
        """
        held = clocks()
        if self._clock() < self._sweep_at and held.keys() == self._swept:
            return
        self._swept = frozenset()  # until it is done
        self._sweep_at = self._clock() + self._interval_s
        if held:
            result = self._retention.sweep(held)
            if result.more:
                self._sweep_at = self._clock()
            self._observe(result)
        self._swept = frozenset(held)

    def _observe(self, result: RetentionResult) -> None:
        metrics = self._metrics
        metrics.casts_evicted.inc(result.num_evicted)
        metrics.stubs_dropped.inc(result.num_stubs_dropped)
        metrics.labels_expired.inc(result.num_labels_expired)
        metrics.stored_casts.set(result.num_stored)
        metrics.held_casts.set(result.num_held)
        metrics.stubs.set(result.num_stubs)
        metrics.pending_labels.set(result.num_pending)
        if result.num_bytes is not None:
            metrics.stored_bytes.set(result.num_bytes)
        for spec, number in result.num_unlabelled.items():
            metrics.unlabelled_windows.labels(spec).set(number)
        if result.num_evicted or result.num_stubs_dropped or result.num_labels_expired:
            log.info(
                "retention",
                evicted=result.num_evicted,
                stubs_dropped=result.num_stubs_dropped,
                labels_expired=result.num_labels_expired,
            )
