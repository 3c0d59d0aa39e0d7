"""Dead letters in: all that lie in the topic, once through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Self

from streamer.config import KafkaConfig
from streamer.dead_letters.letter import DeadLetter, read_letter
from streamer.errors import BrokerUnavailableError
from streamer.kafka import TopicReader, end_offsets
from streamer.records import Partition

PATIENCE_S = 30.0


class LetterReader:
    """Reads the dead-letter topic; each call of `new` gives what came since the last one.

    Args:
        namespace: Leaves out what was judged for others, who may judge otherwise; None: leaves nothing out.

    Attributes:
        num_foreign: Records so far that do not say from which record they came; they are left out.
        num_elsewhere: Dead letters so far of other namespaces.

    Raises:
        BrokerUnavailableError: From every method, when the broker does not answer or there is no such topic.
    """

    def __init__(self, config: KafkaConfig, topic: str, namespace: str | None = None) -> None:
        self._config = config
        self._topic = topic
        self._namespace = namespace
        self._reader = TopicReader(config, topic)
        self.num_foreign = 0
        self.num_elsewhere = 0

    def new(self) -> Iterator[DeadLetter]:
        """What has not been read yet, up to the end that the topic has now; oldest first in each partition."""
        ends = end_offsets(self._config, (self._topic,))
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_at(ends):
            records = self._reader.poll(1.0)
            if records:
                deadline = time.monotonic() + PATIENCE_S
            elif time.monotonic() > deadline:
                raise BrokerUnavailableError(
                    f"Kafka at {self._config.bootstrap_servers}: nothing came of {self._topic} "
                    f"for {PATIENCE_S:.0f} s, and its end is not reached"
                )
            for record in records:
                letter = read_letter(record)
                if letter is None:
                    self.num_foreign += 1
                elif self._namespace is None or letter.namespace in (None, self._namespace):
                    yield letter
                else:
                    self.num_elsewhere += 1

    def _is_at(self, ends: dict[Partition, int]) -> bool:
        positions = self._reader.positions()
        return all(positions[partition] >= end for partition, end in ends.items() if partition in positions)

    def has_lost_its_beginning(self) -> bool:
        """Whether retention has removed records of the topic."""
        return any(self._reader.beginnings().values())

    def close(self) -> None:
        """Ends the client."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
