"""The codec of one source: a batch of records in, columns out."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import numpy as np

from streamer.codec.checks import undecodable
from streamer.codec.finish import Finisher
from streamer.codec.labels import LabelDecoder
from streamer.codec.layout import Layout
from streamer.codec.parts import join
from streamer.codec.sorting import Sorter
from streamer.codec.times import log_times
from streamer.columns import DecodedBatch
from streamer.config import SensorConfig, StreamerSettings
from streamer.errors import RecordError
from streamer.records import Record, RecordBatch
from streamer.schema import Label
from streamer.sources import LabelSourceConfig, SourceConfig

DEFAULT_SOURCE = SourceConfig(topic="casting.readings")


class Codec:
    """Decodes the records of one source of readings, and labels.

    Every record is judged by itself: what lies beside it in the batch, or came before, changes nothing.

    Args:
        sensors: In column order.
        source: The form of the messages.
        labels: The form of the verdicts.
    """

    def __init__(
        self,
        sensors: Sequence[SensorConfig],
        source: SourceConfig = DEFAULT_SOURCE,
        labels: LabelSourceConfig = LabelSourceConfig(),  # noqa: B008 - frozen
    ) -> None:
        self._num_sensors = len(sensors)
        self._sorter = Sorter(Layout(sensors, source))
        self._finisher = Finisher(sensors, source)
        self._labels = LabelDecoder(labels)

    @classmethod
    def of(cls, settings: StreamerSettings, topic: str | None = None) -> Codec:
        """The codec of one topic of readings; no topic: of the first."""
        source = settings.source_of(settings.reading_topics[0] if topic is None else topic)
        return cls(settings.data.sensors, source, settings.label_source)

    def decode(self, batch: RecordBatch) -> DecodedBatch:
        """One batch of the readings topic, in columns."""
        log_time_M, refused = log_times(batch)
        sorted_out = self._sorter.sort_out(batch, {index for index, _ in refused})
        joined = join(sorted_out.parts, self._num_sensors)
        columns, part, out_of_range, too_large = self._finisher.finish(joined)
        refused += sorted_out.refused + too_large
        return DecodedBatch(
            log_time_M=log_time_M,
            readings=columns,
            controls=sorted(sorted_out.controls, key=itemgetter(0)),
            refused=sorted(refused, key=itemgetter(0)),
            num_unknown_fields=0 if part.unknown_R is None else int(part.unknown_R.sum()),
            num_bad_quality=0 if part.bad_R is None else int(np.count_nonzero(part.bad_R)),
            num_out_of_range=out_of_range,
        )

    def decode_label(self, record: Record) -> Label:
        """Decodes a record of the labels topic.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        try:
            return self._labels.decode(record)
        except (RecordError, MemoryError):
            raise
        except Exception as exc:  # the record would end every member that reads it, for ever
            raise undecodable(exc) from exc
