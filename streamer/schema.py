"""Wire types: what the records on Kafka mean, whatever format carried them.

Times are epoch milliseconds (int). Values are float32; NaN means that a sensor said nothing.
A row has F values, in the order of the namespace's sensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CAST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class CastEnd:
    """The cast is over: ``ts`` is the time of its last step."""

    cast_id: str
    ts: int
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A verdict of inspection over a cast, or over its steps from ``from_ts`` to ``to_ts``, both included.

    Attributes:
        defect: True, False, or None to withdraw what was said of these steps before.
        inspected_at: Decides between verdicts: the newest wins.
    """

    cast_id: str
    defect: bool | None
    inspected_at: int
    from_ts: int | None = None
    to_ts: int | None = None
    defect_type: str | None = None
    group: str | None = None
