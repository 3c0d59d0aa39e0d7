"""What a log comes to, in plain Python, written from the design alone: it shares no line with the product."""

import json
import re
import struct
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any

from benchmarks.chaos_ingest.log import FAR, LABEL_FIELDS, RULES, Entry, Expected, Log


def step_of(ts: int) -> int:
    return (2 * (ts - RULES.phase) + RULES.period) // (2 * RULES.period)


class Cast:
    """Event time of one cast: step -> sensor -> (value, rank); final below `sealed` and above `last`."""

    def __init__(self, at: int) -> None:
        self.steps = defaultdict[int, dict[int, Any]](dict)
        self.sealed, self.last = -FAR, FAR
        self.deadline = at + RULES.idle  # of the cast, in log time

    def take(self, fields: Any, at: int, now: int) -> list[str]:
        times = [fields["ts"] + k * fields["period_ms"] for k, _ in enumerate(fields["values"])]
        if max(at, now) >= self.deadline:
            return ["late"] * len(times)
        outcomes = list(map(self.place, times, fields["values"]))
        if self.last == FAR:
            self.deadline = max(self.deadline, at + RULES.idle)
            if "event" in fields:
                self.last = max(step_of(fields["ts"]), self.sealed - 1, *self.steps)
                self.deadline = at + RULES.lateness
        if {*outcomes} - {"late"}:
            self.sealed = max(self.sealed, min(step_of(times[-1] - RULES.lateness), self.last + 1))
        return outcomes

    def place(self, ts: int, row: list[float | None]) -> str:
        step = step_of(ts)
        said = {k: struct.unpack("<f", struct.pack("<f", v))[0] for k, v in enumerate(row) if v is not None}
        if not said or not self.sealed <= step <= self.last:
            return "gap" if self.sealed <= step <= self.last else "late"
        # The nearest to the step's time wins, then the later ts, then the later record.
        held, rank = self.steps[step], (-abs(ts - step * RULES.period - RULES.phase), ts)
        fills, differs = said.keys() - held.keys(), any(held[k][0] != said[k] for k in said.keys() & held)
        held |= {k: (value, rank) for k, value in said.items() if k not in held or rank >= held[k][1]}
        return "placed" if fills else "superseded" if differs else "duplicate"

    def windows(self, now: int) -> list[range]:
        first, stop, starts = min(self.steps), self.sealed, set[int]()
        if self.deadline <= now:  # the tail ends with the cast; a short cast is one window
            stop = self.last + 1 if self.last < FAR else max(stop, max(self.steps) + 1)
            starts = {max(first, stop - RULES.size)}
        starts |= {*range(first, stop - RULES.size + 1, RULES.hop)}
        return [range(start, min(stop, start + RULES.size)) for start in starts]

    def look(self, window: range, labels: set[Any]) -> tuple[bytes, bool | None]:
        said = []
        for step in self.steps.keys() & window:
            over = [one for one in labels if step_of(one[2] or 0) <= step <= step_of(one[3] or FAR)]
            said.append(max([(one[1], (None, False, True).index(one[0])) for one in over], default=(0, 0))[1])
        decided = len(said) / len(window) >= RULES.min_valid and (2 in said or {*said} == {1})
        rows = [self.steps.get(step, {}).get(k, (float("nan"),))[0] for step in window for k in range(3)]
        return struct.pack(f"<{len(rows)}f", *rows), 2 in said if decided else None


def decode(entry: Entry, at: int) -> Any:
    usable = entry.content_type == b"application/json" and entry.value
    fields = {"ts": at, "period_ms": 0} | json.loads(usable or b"")
    rows = fields.setdefault("values", [[*map(fields.get, RULES.sensors)]] * ("event" not in fields))
    ahead = fields["ts"] + max(0, len(rows) - 1) * fields["period_ms"] - at
    sound = {*map(len, rows)} <= {3} and -RULES.past <= ahead <= RULES.future
    return fields if sound and re.fullmatch("[A-Za-z0-9._:-]{1,128}", fields["cast_id"]) else {}


def expected(log: Log) -> Expected:
    result = Expected({}, defaultdict(set), defaultdict(Counter), defaultdict(Counter))
    for source, entries in sorted(log.items()):  # labels first
        clock, casts = [-FAR, -FAR], dict[str, Cast]()
        for entry in entries:
            outcomes = ["dead_lettered"]
            with suppress(ValueError, TypeError, KeyError):
                at = int(entry.sent_at)
                clock = sorted([*clock, at])[1:]  # log time: the largest that two records have reached
                fields = decode(entry, at)
                if "defect" in fields:
                    result.labels[fields["cast_id"]].add(tuple(map(fields.get, LABEL_FIELDS)))
                    outcomes = ["label"]
                else:
                    outcomes = casts.setdefault(fields["cast_id"], Cast(at)).take(fields, at, clock[0])
            if {"placed", "superseded", "gap"} & {*outcomes}:
                result.steps[source].update([*outcomes, *["carried"] * len(outcomes)])
                outcomes = ["applied"]
            result.records[source].update(["consumed", min(outcomes, default="control")])
        for name, cast in casts.items():
            for window in cast.windows(clock[0]) if cast.steps else ():
                result.windows[f"{name}/{window[0]}/{len(window)}"] = cast.look(window, result.labels[name])
    return result
