"""Sends records of dead letters again, each dead letter once.

    1. claim   in Redis; what was sent before, or is claimed by another run, is left alone
    2. send    the record as it came, with its log time in the header `sent-at`
    3. flush
    4. confirm in Redis

A crash between 2 and 4 leaves a claim behind, which runs out: then the record may be sent a second time, and the
data set judges it as a duplicate. A record that fails again becomes a dead letter of its own, which says where it
came from first.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from streamer.config import KafkaConfig
from streamer.dead_letters.letter import DeadLetter, Origin
from streamer.errors import BrokerUnavailableError
from streamer.kafka import Producer
from streamer.records import Partition
from streamer.store.replays import Claim, ReplayStore

# Smaller: more round trips. Larger: more records that a crash may send twice.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one dead letter.

    Attributes:
        word: ``sent``, ``would_send`` (dry run), ``sent_before``, ``claimed`` (by another run), ``cut`` (not whole),
            ``empty``, ``not_ours`` (of a topic that this configuration does not read) or ``no_partition`` (that it
            came from).
    """

    origin: Origin
    word: str
    message: str = ""


class Replayer:
    """Sends records again.

    Args:
        partitions: Those that the streamer reads; a record goes back to none else.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        config: KafkaConfig,
        producer: Producer,
        store: ReplayStore,
        partitions: Collection[Partition],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._producer = producer
        self._store = store
        self._partitions = frozenset(partitions)
        self._topics = sorted({partition.topic for partition in partitions})
        self._clock = clock
        self._run = uuid.uuid4().hex
        # Longer than a flush may take, so that a claim which ran out is that of a run that is no more.
        self._lease_ms = 6 * config.request_timeout_ms

    def replay(self, letters: Iterable[DeadLetter], *, dry_run: bool = False) -> Iterable[Outcome]:
        """Sends each record back to its partition; gives outcomes batch by batch, those sent after the flush.

        Raises:
            BrokerUnavailableError: Of the batch at hand some may have been sent; run it again.
            StoreUnavailableError: The same.
        """
        rest = iter(letters)
        while batch := list(islice(rest, BATCH)):
            usable = []
            for letter in batch:
                refusal = self._refusal(letter)
                if refusal:
                    yield refusal
                else:
                    usable.append(letter)
            yield from self._would_send(usable) if dry_run else self._send(usable)

    def _refusal(self, letter: DeadLetter) -> Outcome | None:
        if letter.cut:
            message = f"not whole, so it cannot be sent again: {letter.cut}"
            return Outcome(letter.origin, "cut", message)
        if letter.key is None and letter.value is None:
            return Outcome(letter.origin, "empty", "neither key nor value: there is nothing to send")
        if letter.origin.topic not in self._topics:
            message = f"topics of this configuration are {', '.join(self._topics)}"
            return Outcome(letter.origin, "not_ours", message)
        if letter.origin.source not in self._partitions:
            message = (
                f"{letter.origin.topic} has no partition {letter.origin.partition} any more to send it to"
            )
            return Outcome(letter.origin, "no_partition", message)
        return None

    def _would_send(self, letters: Sequence[DeadLetter]) -> Iterable[Outcome]:
        held = self._store.held([letter.origin for letter in letters])
        for letter, claim in zip(letters, held, strict=True):
            yield self._left_alone(letter, claim) or Outcome(letter.origin, "would_send")

    def _left_alone(self, letter: DeadLetter, claim: Claim | None) -> Outcome | None:
        if claim is None:
            return None
        if claim.sent:
            return Outcome(letter.origin, "sent_before", f"sent again before, at {_iso(claim.at_ms)}")
        left_ms = claim.at_ms + self._lease_ms - self._now_ms()
        if left_ms <= 0:
            return None
        message = f"claimed by another run that may still send it; it runs out in {left_ms // 1000 + 1} s"
        return Outcome(letter.origin, "claimed", message)

    def _send(self, letters: Sequence[DeadLetter]) -> Iterable[Outcome]:
        now = self._now_ms()
        claims = self._store.claim(  # 1
            [letter.origin for letter in letters], self._run, now_ms=now, lease_ms=self._lease_ms
        )
        mine = []
        for letter, claim in zip(letters, claims, strict=True):
            if claim is None:
                mine.append(letter)
            elif refusal := self._left_alone(letter, claim):
                yield refusal
            else:  # it ran out between two looks at the clock
                yield Outcome(letter.origin, "claimed", "claimed by another run; run it again")
        origins = [letter.origin for letter in mine]
        try:
            for letter in mine:  # 2
                topic, partition, _ = letter.origin
                self._producer.send(
                    topic, letter.value, key=letter.key, headers=letter.again(), partition=partition
                )
            self._producer.flush()  # 3
        except BrokerUnavailableError:
            self._store.release(origins, self._run)
            raise
        self._store.confirm(origins, now_ms=self._now_ms())  # 4
        for origin in origins:
            yield Outcome(origin, "sent")

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _iso(epoch_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_ms / 1000))
