"""Every error of the product, grouped by what the caller can do about it.

    CastingError
    |-- ConfigError              mend the file or the environment, start again (exit 2)
    |-- RecordError              one record cannot be used: dead letter, go on
    |-- RefusedError             what lies outside contradicts the configuration: a person decides
    |   `-- LeaseTakenError      another trainer writes for this model name (`streamer.store.lease`)
    |-- UnavailableError         retriable: back off, try again, nothing is lost
    |   |-- BrokerUnavailableError
    |   |   |-- RecordTooLargeError  it will take the record once its limit is raised
    |   |   `-- TopicMissingError    until somebody creates the topic
    |   `-- StoreUnavailableError
    |-- OffsetGoneError          retriable: the log no longer holds the offset; look for its start again
    |-- FencedError              retriable: someone else moved the state on; load it again
    |-- TrippedError             retriable: read the partition again, up to where its breaker tripped
    `-- RecordingError           a recording folder is not in the documented format

The trainer adds its own branches in ``trainer.errors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class CastingError(Exception):
    """Base of all errors of the product. ``retriable`` says whether the same call may succeed later."""

    retriable: ClassVar[bool] = False


class ConfigError(CastingError):
    """The configuration cannot be used; the message lists every fault with file, line and key."""


class RecordError(CastingError):
    """A record from Kafka cannot be used.

    Attributes:
        reason: A short, stable word for metrics and dead letters, such as ``bad_json``.
        stage: Where it failed: ``decode``, ``validate`` or ``place``.
    """

    def __init__(self, reason: str, message: str, *, stage: str = "validate") -> None:
        super().__init__(message)
        self.reason = reason
        self.stage = stage

    @property
    def is_late(self) -> bool:
        """Whether the record was judged by its cast (all or some of its rows came too late), not refused."""
        return self.reason in ("late", "partly_late")


class RefusedError(CastingError):
    """What lies outside (a namespace, a server's setting, a topic) contradicts the configuration."""


class UnavailableError(CastingError):
    """A server did not answer or cannot take work now."""

    retriable = True


class BrokerUnavailableError(UnavailableError):
    """Kafka did not answer."""


class RecordTooLargeError(BrokerUnavailableError):
    """Kafka answered that a record is larger than its limit for the topic."""


class TopicMissingError(BrokerUnavailableError):
    """Kafka answered that there is no such topic."""


class StoreUnavailableError(UnavailableError):
    """Redis did not answer, or is out of memory."""


class OffsetGoneError(CastingError):
    """The offset to read next lies outside the log: retention passed it, or the topic was made anew.

    Attributes:
        offsets: Of whom, by topic and partition.
    """

    retriable = True

    def __init__(self, message: str, offsets: Mapping[tuple[str, int], int]) -> None:
        super().__init__(message)
        self.offsets = dict(offsets)


class FencedError(CastingError):
    """The state of a cast is not what the writer had loaded, or Redis was restarted since; nothing was written."""

    retriable = True


class TrippedError(CastingError):
    """A breaker tripped in the middle of a batch; nothing of the batch was written."""

    retriable = True


class RecordingError(CastingError):
    """A recording folder is missing or malformed; the message names file, line and what is expected."""
