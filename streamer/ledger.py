"""The ledgers: every record and every step is accounted for, or the difference is shown.

    records   consumed = applied + duplicate + late + dead_lettered + label + control
    steps     carried  = placed + duplicate + superseded + late + gap        (of applied records)

No term is computed from the others: `consumed` moves with the position, the kinds of records and the steps with
their casts, `dead_lettered` is counted in the dead-letter topic, `pending` is asked of the broker.

Steps of a cast move in one script, so they balance at any moment. Records balance between two batches: the
positions are read before and after, and again while they move. Where they never rest, only records that are
missing for certain are a fault: those that a position had counted before the casts were read.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from streamer.config import StreamerSettings
from streamer.dead_letters import LetterReader
from streamer.kafka import end_offsets, hold_records
from streamer.records import Partition
from streamer.store.connection import Client, connect
from streamer.store.counts import Counts, read_counts
from streamer.store.keys import Keys
from streamer.store.namespace import refuse_backfill
from streamer.store.positions import Position, PositionStore

_LATE = frozenset({"late", "partly_late"})
# Between two looks at figures that do not balance: a batch in flight has moved on by then.
_SECOND_LOOK_S = 1.0
_NO_LEDGER = (
    "it read all records, took those of its casts and wrote no dead letters, so its records cannot balance. "
    "Ask for the ledger of the live namespace; a backfill of everything has the digest of the live one "
    "(streamer status --hash)"
)


@dataclass(frozen=True, slots=True)
class RecordLedger:
    """Records of one partition; `pending` lie between its position and its end."""

    consumed: int
    applied: int
    duplicate: int
    late: int
    dead_lettered: int
    label: int
    control: int
    pending: int

    @property
    def judged(self) -> int:
        """All kinds together; what `consumed` is compared with."""
        return self.applied + self.duplicate + self.late + self.dead_lettered + self.label + self.control


@dataclass(frozen=True, slots=True)
class StepLedger:
    """Steps that applied records carried, and what became of them."""

    carried: int
    placed: int
    duplicate: int
    superseded: int
    late: int
    gap: int

    @property
    def judged(self) -> int:
        """All outcomes together; what `carried` is compared with."""
        return self.placed + self.duplicate + self.superseded + self.late + self.gap


@dataclass(frozen=True, slots=True)
class PartitionLedger:
    """Both ledgers of one partition, and a line for each that does not balance."""

    partition: Partition
    records: RecordLedger
    steps: StepLedger
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledgers of a namespace.

    Attributes:
        is_calm: No position moved while they were read, so that the figures are final.
        dead_letters_are_whole: False where retention has cut the dead-letter topic; `dead_lettered` is then what
            moved with the positions.
    """

    partitions: tuple[PartitionLedger, ...]
    is_calm: bool
    dead_letters_are_whole: bool

    @property
    def faults(self) -> tuple[str, ...]:
        """A line for each ledger that does not balance."""
        return tuple(fault for each in self.partitions for fault in each.faults)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "balanced": not self.faults,
            "calm": self.is_calm,
            "dead_letters_are_whole": self.dead_letters_are_whole,
            "partitions": [
                {
                    "topic": each.partition.topic,
                    "partition": each.partition.partition,
                    "records": asdict(each.records),
                    "steps": asdict(each.steps),
                    "faults": list(each.faults),
                }
                for each in self.partitions
            ],
        }


def read_ledger(settings: StreamerSettings, *, patience_s: float = 10.0) -> Ledger:
    """Reads the ledgers of a namespace.

    Args:
        patience_s: How long to wait for a moment in which no position moves.

    Raises:
        RefusedError: A backfill has filled the namespace.
        StoreUnavailableError, BrokerUnavailableError: A server does not answer.
    """
    client = connect(settings.redis)
    try:
        refuse_backfill(client, Keys(settings.redis.namespace), _NO_LEDGER)
        with LetterReader(settings.kafka, settings.topics.dead_letters, settings.redis.namespace) as letters:
            return _Reader(settings, client, letters).read(patience_s)
    finally:
        client.close()


class _Reader:
    def __init__(self, settings: StreamerSettings, client: Client, letters: LetterReader) -> None:
        self._settings = settings
        self._client = client
        self._keys = Keys(settings.redis.namespace)
        self._positions = PositionStore(client, self._keys)
        self._letters = letters
        self._origins: dict[Partition, set[int]] = defaultdict(set)

    def read(self, patience_s: float) -> Ledger:
        deadline = time.monotonic() + patience_s
        before = None
        while True:
            ledger = self._look()
            # Figures that do not balance count once they have stood still: a batch may be in flight.
            if ledger.is_calm and (not ledger.faults or ledger == before):
                return ledger
            if time.monotonic() > deadline:
                return ledger
            time.sleep(_SECOND_LOOK_S if ledger.faults else 0.0)
            before = ledger

    def _look(self) -> Ledger:
        topics = (*self._settings.reading_topics, self._settings.topics.labels)
        ends = end_offsets(self._settings.kafka, topics)
        before = self._positions.load_all()
        partitions = sorted(ends.keys() | before.keys())
        counts, is_stable = read_counts(self._client, self._keys, partitions)
        self._note_letters()
        positions = self._positions.load_all()
        is_calm = before == positions and is_stable
        is_whole = not self._letters.has_lost_its_beginning()
        offsets = {each: positions[each].offset if each in positions else 0 for each in partitions}
        behind = hold_records(self._settings.kafka, offsets, ends)
        reading = _Reading(ends, behind, before, positions, counts, self._origins if is_whole else None)
        each = tuple(reading.partition(partition, is_calm) for partition in partitions)
        return Ledger(each, is_calm, is_whole)

    def _note_letters(self) -> None:
        for letter in self._letters.new():
            if letter.reason not in _LATE:
                self._origins[letter.origin.source].add(letter.origin.offset)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One look at everything.

    Attributes:
        behind: Partitions with records behind their position.
        before: The positions before casts and dead letters were read.
    """

    ends: Mapping[Partition, int]
    behind: frozenset[Partition]
    before: Mapping[Partition, Position]
    positions: Mapping[Partition, Position]
    counts: Counts
    origins: Mapping[Partition, set[int]] | None

    def partition(self, partition: Partition, is_calm: bool) -> PartitionLedger:
        position = self.positions.get(partition)
        counts = self.counts.get(partition, Counter())
        offset = position.offset if position else 0
        records = RecordLedger(
            consumed=position.counts.get("consumed", 0) if position else 0,
            applied=counts["records:applied"],
            duplicate=counts["records:duplicate"],
            late=counts["records:late"],
            dead_lettered=self._dead_lettered(partition, position),
            label=counts["label"],
            control=counts["records:control"],
            pending=self.ends[partition] - offset if partition in self.behind else 0,
        )
        steps = StepLedger(
            carried=counts["steps:carried"],
            placed=counts["steps:placed"],
            duplicate=counts["steps:duplicate"],
            superseded=counts["steps:superseded"],
            late=counts["steps:late"],
            gap=counts["steps:gap"],
        )
        faults = [*self._record_faults(partition, records, is_calm), *_step_faults(partition, steps)]
        return PartitionLedger(partition, records, steps, tuple(faults))

    def _dead_lettered(self, partition: Partition, position: Position | None) -> int:
        if position is None:
            return 0
        if self.origins is None:
            return position.counts.get("dead_lettered", 0)
        # A record behind the position is read again after a crash; its dead letter counts by then.
        return sum(offset < position.offset for offset in self.origins.get(partition, ()))

    def _record_faults(self, partition: Partition, records: RecordLedger, is_calm: bool) -> list[str]:
        earlier = self.before.get(partition)
        if not is_calm:
            known = earlier.counts.get("consumed", 0) if earlier else 0
            missing = known - records.judged
            return [f"{partition}: {missing:,} of {known:,} records are missing"] if missing > 0 else []
        if records.consumed == records.judged:
            return []
        terms = ("applied", "duplicate", "late", "dead_lettered", "label", "control")
        return [_fault(partition, "records", "consumed", records, terms)]


def _step_faults(partition: Partition, steps: StepLedger) -> list[str]:
    if steps.carried == steps.judged:
        return []
    terms = ("placed", "duplicate", "superseded", "late", "gap")
    return [_fault(partition, "steps", "carried", steps, terms)]


def _fault(
    partition: Partition, what: str, total_of: str, ledger: RecordLedger | StepLedger, terms: tuple[str, ...]
) -> str:
    total, judged = getattr(ledger, total_of), ledger.judged
    sum_of = " + ".join(f"{name} {getattr(ledger, name):,}" for name in terms)
    return (
        f"{partition}: {what} differ by {total - judged:+,}: {total_of} {total:,}, but {sum_of} = {judged:,}"
    )
