"""The windows of a campaign as the trainer reads them at a moment, without servers.

Shape suffixes: T steps, F sensors.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from benchmarks.continual.campaign import Campaign
from streamer.columns import FloatArray
from streamer.store.reading import CastFacts
from streamer.windows import Address


class CastsInMemory:
    """Holders of casts; nothing ever goes."""

    def __init__(self) -> None:
        self._num_casts: dict[str, int] = {}

    def hold(self, holder: str, cast_ids: Collection[str]) -> frozenset[str]:
        """Holds casts; none of them is gone."""
        self.release(holder)
        self._num_casts[holder] = len(cast_ids)
        return frozenset()

    def release(self, holder: str) -> None:
        """Lets all casts of a holder go."""
        self._num_casts.pop(holder, None)

    def holders(self) -> dict[str, int]:
        """Number of casts by holder, the one that has held for the longest first."""
        return dict(self._num_casts)


class RecordedWindows:
    """The labelled windows of a campaign, as far as their labels have arrived.

    Args:
        now_ms: The moment, epoch ms; moved by who works the campaign off.
    """

    def __init__(self, campaign: Campaign, now_ms: int = 0) -> None:
        self.namespace = "recording"
        self.data, self.spec = campaign.data, campaign.spec
        self.holds = CastsInMemory()
        self.now_ms = now_ms
        self._campaign = campaign
        self._place = {address: n for n, address in enumerate(campaign.addresses)}
        self._group = {
            each.cast_id: group for each, group in zip(campaign.addresses, campaign.groups, strict=True)
        }
        self._manifests: dict[str, bytes] = {}

    def last_arrival(self) -> int:
        """Number of the newest label decision."""
        return bisect_right(self._campaign.changes, self.now_ms, key=lambda change: change.at_ms)

    def labelled(self) -> list[tuple[Address, bool]]:
        """(window, defective) of the windows that are labelled, sorted by address."""
        known = self._campaign.known(self.now_ms)
        return sorted(
            (self._campaign.addresses[n], bool(defective))
            for n, defective in zip(known.index_N, known.y_N, strict=True)
        )

    def casts(self, cast_ids: Iterable[str]) -> dict[str, CastFacts]:
        """Facts about casts; the label revision counts the decisions on their windows."""
        revisions: defaultdict[str, int] = defaultdict(int)
        for change in self._campaign.changes[: self.last_arrival()]:
            revisions[self._campaign.addresses[change.window].cast_id] += 1
        return {each: CastFacts(each, self._group[each], str(revisions[each])) for each in cast_ids}

    def each_rows(self, addresses: Sequence[Address]) -> Iterator[FloatArray]:
        """x_TF of each window, NaN where there is no value."""
        for address in addresses:
            yield self._campaign.x_NTF[self._place[address], : address.length]

    def save_manifest(self, dataset_id: str, manifest: bytes) -> None:
        """Keeps a frozen manifest."""
        self._manifests.setdefault(dataset_id, manifest)

    def drop_manifest(self, dataset_id: str) -> None:
        """Deletes a frozen manifest."""
        self._manifests.pop(dataset_id, None)


class OwnLease:
    """The lease of the only trainer there is."""

    def ensure(self) -> int:
        """It is ours."""
        return 1

    def claim_version(self, version: int) -> bool:  # noqa: ARG002 - every number is free
        """Nobody else gives numbers out."""
        return True
