"""The words for what can become of a record, and for who keeps us waiting: labels of metrics.

A counter has each of them from the start. One that is born with its first count shows Prometheus no increase.
"""

from __future__ import annotations

from typing import Literal, get_args

RecordKind = Literal["applied", "duplicate", "late", "control", "label", "redelivered", "dead_lettered"]
RECORD_KINDS: tuple[RecordKind, ...] = get_args(RecordKind)

Server = Literal["kafka", "redis"]
SERVERS: tuple[Server, ...] = get_args(Server)

# Of dead letters; docs/operations.md has the mend of each.
REASONS = (
    "bad_cast_id",
    "bad_chunk",
    "bad_json",
    "bad_label",
    "bad_msgpack",
    "bad_quality",
    "bad_sent_at",
    "bad_strand",
    "bad_tag",
    "bad_text",
    "bad_time",
    "bad_timestamp",
    "bad_value",
    "future_stamp",
    "late",
    "partly_late",
    "past_stamp",
    "schema_registry",
    "second_partition",
    "tombstone",
    "too_many_labels",
    "undecodable",
    "unknown_content_type",
    "unknown_event",
    "unknown_tag",
    "wrong_arity",
)
