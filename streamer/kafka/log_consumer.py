"""Topics from where the caller wants to where they end now, without a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamer.config import ConsumerConfig, KafkaConfig
from streamer.errors import BrokerUnavailableError
from streamer.kafka.admin import end_offsets
from streamer.kafka.connection import map_kafka_errors, topic_partition
from streamer.kafka.consumer import GroupConsumer
from streamer.kafka.rebalance import Rebalance
from streamer.records import Partition, RecordBatch


class LogConsumer(GroupConsumer):
    """Reads like the only member of a group, but joins none: it has all partitions and commits nothing.

    Args:
        topics: Their ends are taken at the start; what comes later may be handed out too.

    Attributes:
        num_records: Records handed out, those that were read again each time.
        waited_s: How long nothing has come behind the ends, as the caller has it; None: nobody waits there.

    Raises:
        BrokerUnavailableError: The broker does not answer, or a topic does not exist.
    """

    def __init__(self, config: KafkaConfig, consumer: ConsumerConfig, topics: Sequence[str]) -> None:
        self._ends = end_offsets(config, topics)
        if missing := sorted(set(topics) - {partition.topic for partition in self._ends}):
            raise BrokerUnavailableError(f"Kafka has no topic {', '.join(missing)}")
        self._assigned = False
        self.waited_s: float | None = None
        self.num_records = 0
        # Without a group the client never asks for committed offsets.
        super().__init__(config, consumer.model_copy(update={"group_id": None}), topics)

    def _attach(self, topics: Sequence[str]) -> None:  # noqa: ARG002 - their partitions are known already
        partitions = [topic_partition(partition) for partition in self._ends]
        self._consumer.assign(partitions)
        self._consumer.pause(*partitions)  # until the caller has sought

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """All partitions of the topics."""
        return tuple(sorted(self._ends))

    def take_rebalance(self) -> Rebalance | None:
        """All partitions, once."""
        if self._assigned:
            return None
        self._assigned = True
        return Rebalance(frozenset(), frozenset(self._ends))

    def poll(self) -> list[RecordBatch]:
        """As of a group."""
        batches = super().poll()
        for batch in batches:
            self.num_records += len(batch)
        return batches

    def committed(self, partition: Partition) -> int | None:  # noqa: ARG002 - as of a group
        """There is no group."""
        return None

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Nobody asks for them."""

    def at_end(self) -> bool:
        """Whether all that lay in the log at the start was handed out; sought back, it is not."""
        with map_kafka_errors("reading positions", self._servers):
            return all(
                self._consumer.position(topic_partition(partition)) >= end
                for partition, end in self._ends.items()
            )

    def highwater(self, partition: Partition) -> int | None:  # noqa: ARG002 - as of a group
        """The caller knows the ends that count."""
        return None

    def quiet_s(self, partition: Partition, offset: int) -> float | None:
        """What the caller says, of a partition that is read to its end."""
        return self.waited_s if self.read_to(partition, offset) >= self._ends[partition] else None
