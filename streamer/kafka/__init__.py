"""The one adapter to Kafka: kafka-python behind types of our own, its errors mapped to ours.

Nothing else in the product imports kafka. Values travel as bytes; decoding is the codec's.
"""

from streamer.kafka.admin import TopicSpec, end_offsets, ensure_topics, hold_records, missing_topics
from streamer.kafka.connection import MAX_REQUEST_BYTES
from streamer.kafka.consumer import GroupConsumer
from streamer.kafka.producer import Producer
from streamer.kafka.reader import TopicReader, read_tail
from streamer.kafka.rebalance import Rebalance

__all__ = [
    "MAX_REQUEST_BYTES",
    "GroupConsumer",
    "Producer",
    "Rebalance",
    "TopicReader",
    "TopicSpec",
    "end_offsets",
    "ensure_topics",
    "hold_records",
    "missing_topics",
    "read_tail",
]
