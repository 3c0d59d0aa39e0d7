"""Names of the headers that a dead letter bears, beside those of its record.

Kafka Connect's, so that its tools read them:
https://cwiki.apache.org/confluence/display/KAFKA/KIP-298%3A+Error+Handling+in+Connect
and ours, for what those do not say.
"""

from __future__ import annotations

CONNECT = "__connect.errors."
TOPIC = CONNECT + "topic"  # the first one that a dead letter adds: before it stand the record's own
PARTITION = CONNECT + "partition"
OFFSET = CONNECT + "offset"
STAGE = CONNECT + "stage"
CLASS = CONNECT + "exception.class.name"
MESSAGE = CONNECT + "exception.message"

OURS = "casting.errors."
REASON = OURS + "reason"
NAMESPACE = OURS + "namespace"  # that judged the record: another configuration may judge otherwise
TIMESTAMP = OURS + "timestamp"  # Kafka's own of the record, epoch ms
NULLS = OURS + "null-headers"  # the client cannot send a null: places of those that were one, such as 0,3
NO_VALUE = OURS + "value.null"  # the client cannot send neither key nor value: the empty value was none
VALUE_BYTES = OURS + "value.bytes"  # length of a value that was cut
KEY_BYTES = OURS + "key.bytes"  # length of a key that was cut
NUM_DROPPED = OURS + "headers.dropped"  # number of the record's headers, where they were left out

REPLAY = "casting.replay."
FIRST_ORIGIN = REPLAY + "origin"  # the record that was sent again, such as casting.readings/2@1234
NUM_REPLAYS = REPLAY + "number"  # how many times by now

SENT_AT = "sent-at"
