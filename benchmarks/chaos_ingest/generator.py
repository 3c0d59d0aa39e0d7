"""Plants a log: casts side by side with every trouble that the design names, and counts what it plants.

Each trouble is planted where its outcome is certain whatever lies around it, so that the counts here are a third
opinion beside the product and the reference. Times are epoch ms.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos_ingest.log import LABELS, READINGS, RULES, Entry, Source

T0 = 1_763_796_000_000
# Between campaigns, so that a cast that just stops is idle before the next begins.
CAMPAIGN_MS = 2 * RULES.idle
CASTS_AT_ONCE = 4
LATE_STEPS = RULES.lateness // RULES.period
# A reading delayed by less is never late: two steps for rounding, two for a row that runs ahead of its record.
MAX_DELAY_MS = RULES.lateness - 4 * RULES.period
JITTER_MS = 300
WILD_MS = 30 * 86_400_000
# Of the records that may be repeated, and of the steps: 5 % of all records in the end.
DUPLICATE_SHARE, POISON_SHARE = 0.09, 0.075

Body = dict[str, Any] | bytes | None


@dataclass
class Plan:
    """A log and what was planted in it.

    Attributes:
        log: Records by partition, in offset order.
        records, steps: Terms of the two ledgers, by partition.
        troubles: How often each trouble was planted.
    """

    log: dict[Source, list[Entry]] = field(default_factory=dict)
    records: dict[Source, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    steps: dict[Source, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    troubles: Counter[str] = field(default_factory=Counter)

    @property
    def num_records(self) -> int:
        """Records of both topics."""
        return sum(map(len, self.log.values()))


def plant(*, seed: int, num_casts: int, num_partitions: int, stragglers: bool = True) -> Plan:
    """Plants casts over the partitions; the same arguments give the same log.

    Args:
        stragglers: Whether readings come for casts that are over.
    """
    dice, sender = random.Random(seed), _Sender()
    for number in range(num_casts):
        partition, turn = number % num_partitions, number // num_partitions
        begin = T0 + turn // CASTS_AT_ONCE * CAMPAIGN_MS + dice.randrange(90_000)
        cast = _Cast(f"C{number:05d}", partition, begin, dice, sender)
        cast.run(dice.randrange(15, 150))
        cast.finish(stragglers)
        cast.labels()
    behind = T0 + (num_casts // num_partitions // CASTS_AT_ONCE + 1) * CAMPAIGN_MS
    for partition in range(num_partitions):
        _Cast(f"never-seen-{partition}", partition, behind, dice, sender).labels(at_least=1)
        endless = _Cast(f"endless-{partition}", partition, behind, dice, sender)
        endless.run(100)
        endless.wild_log_time()
        endless.labels(at_least=1)
    return sender.plan(dice)


class _Sender:
    """Collects what is sent, and counts it."""

    def __init__(self) -> None:
        self._sent: dict[Source, list[tuple[int, Entry]]] = defaultdict(list)
        self._plan = Plan()

    def send(
        self, source: Source, entry: Entry, at: int, outcome: str, trouble: str = "", **steps: int
    ) -> None:
        """Takes one record; the steps are those of an applied one."""
        self._sent[source].append((at, entry))
        self._plan.records[source].update(["consumed", outcome])
        if steps:
            self._plan.steps[source].update(carried=sum(steps.values()), **steps)
        if trouble:
            self._plan.troubles[trouble] += 1

    def count(self, trouble: str) -> None:
        """Counts a trouble that is no record."""
        self._plan.troubles[trouble] += 1

    def plan(self, dice: random.Random) -> Plan:
        """Puts readings in the order in which they were sent, labels in random order."""
        for source, sent in sorted(self._sent.items()):
            if source[0] == LABELS:
                dice.shuffle(sent)
            else:
                sent.sort(
                    key=lambda pair: pair[0]
                )  # stable: what was planted behind a record stays behind it
            self._plan.log[source] = [entry for _, entry in sent]
        return self._plan


class _Cast:
    """One cast, from its first step to what is said of it later."""

    def __init__(
        self, cast_id: str, partition: int, begin: int, dice: random.Random, sender: _Sender
    ) -> None:
        self._id = cast_id
        self._readings, self._labels = (READINGS, partition), (LABELS, partition)
        self._dice = dice
        self._sender = sender
        self._first = self._step = begin // RULES.period
        self._last_at = begin

    def run(self, num_steps: int) -> None:
        """Sends about so many steps, one trouble after the other."""
        troubles = {
            self._plain: 72,
            self._skip: 5,
            self._chunk: 8,
            self._null_row: 3,
            self._halves: 4,
            self._twins: 4,
            self._overlap: 3,
            self._late: 2,
            self._partly_late: 1,
        }
        self._plain()
        while self._step < self._first + num_steps:
            self._dice.choices(list(troubles), list(troubles.values()))[0]()
            if self._dice.random() < POISON_SHARE:
                self._poison()
        self._plain()

    # One record

    def _send(self, body: Body, at: int, outcome: str, trouble: str = "", **steps: int) -> None:
        self._last_at = max(self._last_at, at)
        self._sender.send(self._readings, self._entry(body, at), at, outcome, trouble, **steps)

    def _entry(self, body: Body, at: int) -> Entry:
        value = json.dumps(body).encode() if isinstance(body, dict) else body
        return Entry(self._id, value, b"%d" % at)

    def _wide(self, ts: int, row: list[float | None]) -> dict[str, Any]:
        named = dict(zip(RULES.sensors, row, strict=True))
        return {"cast_id": self._id, "strand": 1, "ts": ts} | named

    def _ts(self, step: int) -> int:
        return step * RULES.period + RULES.phase + self._dice.randint(-JITTER_MS, JITTER_MS)

    def _row(self) -> list[float | None]:
        return [round(self._dice.uniform(-9, 999), 3) for _ in RULES.sensors]

    def _delayed(self, ts: int, room_ms: int = MAX_DELAY_MS) -> int:
        return ts if self._dice.random() < 0.6 else ts + self._dice.randrange(room_ms)

    # Steps; each method moves `_step` on

    def _plain(self) -> None:
        row, ts = self._row(), self._ts(self._step)
        if self._dice.random() < 0.05:
            row[self._dice.randrange(len(row))] = None
        at = self._delayed(ts)
        self._send(self._wide(ts, row), at, "applied", placed=1)
        if self._dice.random() < DUPLICATE_SHARE:
            again = self._dice.randint(at, ts + MAX_DELAY_MS)
            self._send(self._wide(ts, row), again, "duplicate", "duplicate")
        self._step += 1

    def _skip(self) -> None:
        self._sender.count("skipped step")
        self._step += self._dice.choice([1, 1, 2, 9])

    def _chunk(self) -> None:
        rows, ts = [self._row() for _ in range(self._dice.randint(2, 6))], self._ts(self._step)
        body = {"cast_id": self._id, "ts": ts, "period_ms": RULES.period, "values": rows}
        sent = ts + (len(rows) - 1) * RULES.period
        at = self._delayed(sent, ts + MAX_DELAY_MS - sent)
        self._send(body, at, "applied", "chunk", placed=len(rows))
        if self._dice.random() < DUPLICATE_SHARE:
            self._send(body, self._dice.randint(at, ts + MAX_DELAY_MS), "duplicate", "duplicate chunk")
        self._step += len(rows)

    def _null_row(self) -> None:
        ts = self._ts(self._step)
        self._send(self._wide(ts, [None] * 3), self._delayed(ts), "applied", "null row", gap=1)
        self._step += 1

    def _halves(self) -> None:
        """The sensors of one step in two records."""
        for row in ([1.5, None, None], [None, 2.5, -3.5]):
            ts = self._ts(self._step)
            self._send(self._wide(ts, row), self._delayed(ts), "applied", "half a row", placed=1)
        self._step += 1

    def _twins(self) -> None:
        """Two readings of one step: the nearer one wins, then the later stamp, then the later record."""
        ts = self._ts(self._step)
        middle = self._step * RULES.period + RULES.phase
        other = self._dice.choice([ts, 2 * middle - ts, self._ts(self._step)])
        ats = sorted([self._delayed(ts), self._delayed(other)])
        self._send(self._wide(ts, self._row()), ats[0], "applied", placed=1)
        self._send(self._wide(other, self._row()), ats[1], "applied", "superseded", superseded=1)
        self._step += 1

    def _overlap(self) -> None:
        """A record that repeats a row and brings another."""
        ts, row = self._ts(self._step), self._row()
        self._send(self._wide(ts, row), ts, "applied", placed=1)
        body = {"cast_id": self._id, "ts": ts, "period_ms": RULES.period, "values": [row, self._row()]}
        self._send(body, ts + RULES.period, "applied", "overlap", duplicate=1, placed=1)
        self._step += 2

    def _anchor(self) -> int:
        """A reading without delay; what is older than the lateness is late from here on."""
        ts, row = self._ts(self._step), self._row()
        self._send(self._wide(ts, row), ts, "applied", placed=1)
        return ts

    def _late(self) -> None:
        at = self._anchor()
        ts = self._ts(self._step - LATE_STEPS - self._dice.randint(2, 30))
        self._send(self._wide(ts, self._row()), at, "late", "late reading")
        self._step += 1

    def _partly_late(self) -> None:
        """Two rows in one record: one is long final, the other runs ahead."""
        at = self._anchor()
        span = LATE_STEPS + 5
        ts = self._ts(self._step + 1 - span)
        rows = [self._row(), self._row()]
        body = {"cast_id": self._id, "ts": ts, "period_ms": span * RULES.period, "values": rows}
        self._send(body, at, "applied", "partly late", late=1, placed=1)
        self._step += 2

    def _poison(self) -> None:
        ts = self._ts(self._step)
        good = self._wide(ts, self._row())
        kinds: dict[str, Body] = {
            "not JSON": b"poison",
            "cut JSON": json.dumps(good).encode()[:-9],
            "no object": b"[1, 2]",
            "invalid UTF-8": b'{"cast_id": "\xff\xfe"}',
            "registry framing": b"\x00\x00\x00\x00\x07" + json.dumps(good).encode(),
            "tombstone": None,
            "no cast id": good | {"cast_id": "what is this?"},
            "wrong arity": {"cast_id": self._id, "ts": ts, "period_ms": RULES.period, "values": [[1.0, 2.0]]},
            "future stamp": self._wide(ts + RULES.future + 5000, self._row()),
            "past stamp": self._wide(ts - RULES.past - 5000, self._row()),
        }
        kind = self._dice.choice([*kinds, "content type", "sent-at"])
        entry = self._entry(kinds.get(kind, good), ts)
        if kind == "content type":
            entry = entry._replace(content_type=b"text/plain")
        if kind == "sent-at":
            entry = entry._replace(sent_at=b"yesterday")
        self._sender.send(self._readings, entry, ts, "dead_lettered", kind)

    def wild_log_time(self) -> None:
        """A record whose log time lies far ahead: alone it moves nothing."""
        ts = self._ts(self._first + 40)
        entry = self._entry(self._wide(ts, self._row()), ts)._replace(sent_at=b"%d" % (ts + WILD_MS))
        self._sender.send(self._readings, entry, ts, "dead_lettered", "wild log time")

    # The end

    def finish(self, stragglers: bool) -> None:
        """Ends the cast by an event, or lets it stop; then a straggler."""
        if self._dice.random() < 0.6:
            over_at = self._end_by_event()
        else:
            self._sender.count("idle end")
            over_at = self._last_at + RULES.idle
        if self._dice.random() < 0.4 and stragglers:
            ts = self._ts(self._dice.randint(self._first, self._step))
            self._send(self._wide(ts, self._row()), over_at + 5000, "late", "straggler")

    def _end_by_event(self) -> int:
        last_step = self._step - 1 + self._dice.choice([0, 0, 3])
        ts = last_step * RULES.period + RULES.phase
        at = ts + self._dice.randrange(3000)
        body = {"cast_id": self._id, "ts": ts, "event": "cast_end"}
        self._send(body, at, "control", "end event")
        if self._dice.random() < 0.3:
            self._send(body, at + 700, "control", "second end event")
        if self._dice.random() < 0.3:
            beyond = self._ts(last_step + 2)
            self._send(self._wide(beyond, self._row()), at + 500, "late", "behind the end")
        return at + RULES.lateness

    # Labels

    def labels(self, at_least: int = 0) -> None:
        """Verdicts of inspection, sent whenever: none to five."""
        for _ in range(max(at_least, self._dice.choice([0, 1, 1, 2, 3]))):
            self._label()
            if self._dice.random() < POISON_SHARE:
                self._poisoned_label()

    def _label(self) -> None:
        dice = self._dice
        fields: dict[str, Any] = {"cast_id": self._id, "defect": dice.random() < 0.3}
        fields["inspected_at"] = self._last_at + dice.randrange(1_000_000)
        if dice.random() < 0.4:
            low = dice.randint(self._first, max(self._first, self._step))
            fields |= {"from_ts": self._ts(low), "to_ts": self._ts(low + 40)}
            del fields[dice.choice(["from_ts", "to_ts", "cast_id"])]
            fields["cast_id"] = self._id
        self._say(fields)
        follow = dice.choice(["", "", "twice", "tie", "changed", "withdrawn"])
        newer = {"inspected_at": fields["inspected_at"] + dice.choice([1, 60_000])}
        if follow == "twice":
            self._say(fields, "label twice")
        elif follow == "tie":
            self._say(fields | {"defect": dice.choice([None, not fields["defect"]])}, "label tie")
        elif follow == "changed":
            self._say(fields | newer | {"defect": not fields["defect"]}, "label changed")
        elif follow == "withdrawn":
            self._say(fields | newer | {"defect": None}, "label withdrawn")

    def _say(self, fields: dict[str, Any], trouble: str = "") -> None:
        at = fields["inspected_at"]
        self._sender.send(self._labels, self._entry(fields, at), at, "label", trouble)

    def _poisoned_label(self) -> None:
        body: Body = self._dice.choice([b"poison", None, b"[]", b"{}"])
        self._sender.send(self._labels, self._entry(body, T0), T0, "dead_lettered", "label poison")
