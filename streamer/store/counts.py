"""What became of records and steps, as casts and totals count it: every cast of the namespace is looked at."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

import msgspec

from streamer.records import Partition
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys, partition_of
from streamer.store.totals import GOING, MARKER

RECORDS = ("applied", "duplicate", "late", "control")
STEPS = ("carried", "placed", "duplicate", "superseded", "late", "gap")
_NAMES = (*(f"records:{kind}" for kind in RECORDS), *(f"steps:{kind}" for kind in STEPS))
_BATCH = 500

Counts = dict[Partition, Counter[str]]
Totals = dict[Partition, dict[str, bytes]]


def read_counts(client: Client, keys: Keys, partitions: Collection[Partition]) -> tuple[Counts, bool]:
    """Sums the counts of all casts, those that retention has removed included.

    Labels are counted for the partition that they came from, under the name ``label``, the rest for the partition
    that the readings of the cast come from.

    Returns:
        Counts of the partitions, and whether no cast was removed meanwhile: then each is counted once.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    with map_redis_errors("counting"):
        before = _totals(client, keys, partitions)
        counts: Counts = defaultdict(Counter)
        going = _add_casts(client, keys, partitions, counts)
        after = _totals(client, keys, partitions)
    for partition, fields in after.items():
        _add_totals(fields, going, counts[partition])
    return counts, before == after


def _totals(client: Client, keys: Keys, partitions: Iterable[Partition]) -> Totals:
    totals = {}
    for partition in partitions:
        fields = client.hgetall(keys.totals(partition))
        totals[partition] = {text(name): value for name, value in fields.items() if isinstance(value, bytes)}
    return totals


def _add_totals(fields: dict[str, bytes], going: Collection[str], counter: Counter[str]) -> None:
    for name in (*_NAMES, "label"):
        counter[name] += int(fields.get(name, 0))
    for name, value in fields.items():
        # While a cast is on its way out, a marker beside the totals says what was added for it.
        if name.startswith(MARKER) and name.removeprefix(MARKER).partition(" ")[0] in going:
            counter.subtract(msgspec.json.decode(value, type=dict[str, int]))


def _add_casts(client: Client, keys: Keys, partitions: Collection[Partition], counts: Counts) -> set[str]:
    """Returns the ids of those that are on their way out. Casts are scanned for, since one may stand on no list."""
    labels = {partition: f"label:{partition}" for partition in partitions}
    names = ["source", GOING, *_NAMES, *labels.values()]
    seen: set[str] = set()
    going: set[str] = set()
    begin, end = keys.cast("*").split("*")
    for some in _chunks(client.scan_iter(keys.cast("*"), count=1000, _type="hash")):
        ids = [text(key).removeprefix(begin).removesuffix(end) for key in some]
        new = [cast_id for cast_id in dict.fromkeys(ids) if cast_id not in seen]  # SCAN may give one twice
        seen.update(new)
        pipe = client.pipeline(transaction=False)
        for cast_id in new:
            pipe.hmget(keys.cast(cast_id), names)
        for cast_id, (source, token, *values) in zip(new, pipe.execute(), strict=True):
            if token is not None:
                going.add(cast_id)
            if source is not None:
                counter = counts[partition_of(text(source))]
                for name, value in zip(_NAMES, values, strict=False):
                    counter[name] += int(value or 0)
            for partition, value in zip(labels, values[len(_NAMES) :], strict=True):
                counts[partition]["label"] += int(value or 0)
    return going


def _chunks(keys: Iterable[bytes | str]) -> Iterator[list[bytes | str]]:
    rest = iter(keys)
    while some := list(islice(rest, _BATCH)):
        yield some
