"""What a batch of records says, in columns: the codec fills them, the partition places them in time.

Shape suffixes: M records of the batch, R readings among them, N rows of these readings, C casts, F sensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.errors import RecordError
from streamer.records import IntArray
from streamer.schema import CastEnd

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Log time of a record whose header `sent-at`, or else Kafka's timestamp, is unusable: it moves no clock.
NO_TIME = -1


@dataclass(slots=True)
class ReadingColumns:
    """The usable readings of one batch, in offset order. Times are epoch ms.

    Attributes:
        record_R: Index of the record in its batch, ascending.
        cast_R: Index into `cast_ids`.
        ts_R: Time of the first row.
        period_R: Time between rows, 0 for a single row.
        num_rows_R: At least 1 each; their sum is N.
        values_NF: float32, NaN where a sensor said nothing; rows of a reading are consecutive.
        stop_NF: Where a sensor said that its value is bad (the value is NaN): nothing is carried past it.
            None where no reading of the batch says so.
        cast_ids: C ids, distinct, in order of appearance.
        strands: The first strand named for each cast, None where none was.
    """

    record_R: IntArray
    cast_R: IntArray
    ts_R: IntArray
    period_R: IntArray
    num_rows_R: IntArray
    values_NF: FloatArray
    stop_NF: BoolArray | None
    cast_ids: Sequence[str]
    strands: Sequence[int | None]


@dataclass(slots=True)
class DecodedBatch:
    """One batch of a readings topic, decoded: each record is a reading, a control or refused.

    Attributes:
        log_time_M: Epoch ms, `NO_TIME` where it is unusable (the record is refused, then).
        controls: (index of the record, event), in offset order.
        refused: (index of the record, what is wrong with it), in offset order.
        num_unknown_fields: Fields that no sensor bears.
        num_bad_quality: Values that their gateway marked as bad.
        num_out_of_range: Values outside the physical range, by sensor: gaps.
    """

    log_time_M: IntArray
    readings: ReadingColumns
    controls: Sequence[tuple[int, CastEnd]] = ()
    refused: Sequence[tuple[int, RecordError]] = ()
    num_unknown_fields: int = 0
    num_bad_quality: int = 0
    num_out_of_range: Counter[str] = field(default_factory=Counter)
