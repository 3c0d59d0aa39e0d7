"""The same readings and labels give the same data set, however they were mixed and cut on their way."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_rule import decide, step_verdicts

from streamer.assignment import last_record
from streamer.codec import Codec
from streamer.config import DataConfig, RedisConfig, SensorConfig, WindowsConfig
from streamer.partition import ReadingsPartition
from streamer.records import Partition, Record, RecordBatch
from streamer.schema import Label
from streamer.store.casts import CastStore
from streamer.store.connection import Client, connect
from streamer.store.content import content_hash
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import claim_spec
from streamer.store.positions import PositionStore
from streamer.store.reading import WindowReader
from streamer.timeline import Grid, Lateness, LogClock
from streamer.windows import Address, Verdict, valid_steps

T0 = 1_763_796_000_000
READINGS, LABELS = Partition("readings", 0), Partition("labels", 0)
DATA = DataConfig(sensors=(SensorConfig(name="speed"), SensorConfig(name="level")), block_steps=16)
SLIDING = WindowsConfig(name="sliding", size_steps=5, hop_steps=2, min_valid_ratio=0.5, tail="align_end")
WHOLE = WindowsConfig(name="whole", size_steps="cast", min_valid_ratio=0.2)
GRID = Grid(1000)
LATENESS_MS = 3_000
BOUNDS = Lateness(allowed_ms=LATENESS_MS, idle_ms=60_000, max_future_ms=600_000, max_past_ms=600_000)
LAST_MS = 500_000  # log time at which everything is over


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[Client]:
    client = connect(RedisConfig(url=redis_url))
    yield client
    client.close()


@dataclass(frozen=True)
class Story:
    """What is said of each cast: readings (ts, values), and labels; times in ms after T0."""

    readings: dict[str, list[tuple[int, tuple[float | None, float | None]]]]
    labels: list[Label]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Casts with gaps, values missing, jitter, several readings on a step, and some said twice."""
    readings, labels = {}, []
    for number in range(draw(st.integers(1, 3))):
        cast_id, begin = f"C{number}", draw(st.integers(0, 20)) * 1000
        said = {}
        for step in range(draw(st.integers(4, 16))):
            for jitter in draw(st.lists(st.integers(-499, 500), max_size=2)):
                values = draw(st.tuples(st.none() | st.integers(0, 3), st.none() | st.integers(0, 3)))
                said[begin + step * 1000 + jitter] = values
        twice = draw(st.lists(st.sampled_from(sorted(said)), max_size=3)) if said else []
        readings[cast_id] = [(ts, said[ts]) for ts in sorted([*said, *twice])]
        for _ in range(draw(st.integers(0, 3))):
            low, high = draw(st.none() | st.integers(-2, 18)), draw(st.none() | st.integers(-2, 18))
            labels.append(
                Label(
                    cast_id,
                    draw(st.sampled_from([True, False, False, None])),
                    draw(st.integers(1, 3)),
                    None if low is None else T0 + begin + low * 1000,
                    None if high is None else T0 + begin + high * 1000,
                )
            )
    return Story(readings, labels)


def arrivals(story: Story, seed: int) -> list[tuple[str, dict[str, object], int] | Label]:
    """(cast, body, log time) and labels in one order of arrival that comes too late for nothing.

    A reading overtakes others by less than the lateness. The n-th record of a cast has the n-th log time of that
    cast, whichever reading it carries, and records of different casts pass each other by less than a second.
    """
    dice = random.Random(seed)
    merged: list[tuple[float, tuple[str, dict[str, object], int]]] = []
    for cast_id, said in story.readings.items():
        order = sorted(said, key=lambda each: each[0] + dice.uniform(0, LATENESS_MS - 1_100))
        bodies: list[dict[str, object]] = [
            {"ts": T0 + ts, "speed": values[0], "level": values[1]} for ts, values in order
        ]
        if said:
            place = len(bodies) - dice.randrange(0, min(3, len(bodies)))
            bodies.insert(place, {"ts": T0 + said[-1][0], "event": "cast_end"})
        key = 0.0
        for number, body in enumerate(bodies):
            log_time = (said[0][0] if said else 0) + number * 900
            key = max(key, log_time + dice.uniform(0, 900))
            merged.append((key, (cast_id, {"cast_id": cast_id, **body}, log_time)))
    mixed: list[tuple[str, dict[str, object], int] | Label] = [
        each for _, each in sorted(merged, key=lambda pair: pair[0])
    ]
    for number, at in enumerate((LAST_MS, LAST_MS)):
        clock = f"clock-{number}"
        mixed.append((clock, {"cast_id": clock, "ts": T0 + at, "speed": 1.0}, at))
    for label in dice.sample(story.labels, len(story.labels)):
        mixed.insert(dice.randrange(len(mixed) + 1), label)
    return mixed


class Member:
    """The parts of the loop without Kafka, over one partition of each topic."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.keys = client, Keys(namespace)
        if found := list(client.scan_iter(f"{namespace}:*", count=1000)):
            client.delete(*found)
        for spec in (SLIDING, WHOLE):
            claim_spec(client, self.keys, spec)
        self.codec = Codec(DATA.sensors)
        self.offset = self.label_offset = 0
        self.restart()

    def restart(self) -> None:
        """All that is in memory goes."""
        self.casts = CastStore(self.client, self.keys, DATA)
        self.index = WindowIndex(self.client, self.keys, DATA, SLIDING)
        self.positions = PositionStore(self.client, self.keys)
        held = self.positions.load(READINGS)
        offset, clock = (held.offset, held.clock) if held else (0, LogClock())
        self.partition = ReadingsPartition(READINGS, offset, offset if held else None, clock, GRID, BOUNDS)
        self.partition.adopt(self.casts.load(READINGS, sorted(self.casts.open_casts(READINGS))))

    def turn(self, batch: Sequence[tuple[str, dict[str, object], int] | Label]) -> None:
        self.take_readings([each for each in batch if not isinstance(each, Label)])
        labels = [each for each in batch if isinstance(each, Label)]
        self.casts.add_labels(
            [(LABELS, self.label_offset + number, label) for number, label in enumerate(labels)]
        )
        self.label_offset += len(labels)
        self.index.update({label.cast_id for label in labels})

    def take_readings(self, said: Sequence[tuple[str, dict[str, object], int]]) -> None:
        if not said:
            return
        batch = RecordBatch.of([self.record(*each) for each in said])
        decoded = self.codec.decode(batch)
        partition = self.partition
        if unknown := partition.unknown_casts(decoded):
            partition.adopt(self.casts.load(READINGS, unknown))
        taken = partition.take(batch, decoded)
        assert taken.refused == []
        partition.settle()
        self.casts.announce(READINGS, partition.first_seen)
        self.casts.enrol(partition.first_seen)
        self.casts.save(READINGS, partition.touched.values())
        self.casts.finish(READINGS, self.index.update(list(partition.touched)).finished)
        partition.batch_done()
        self.positions.load(READINGS)
        self.positions.move(READINGS, batch.next_offset, self.partition.clock, last_record(batch), {})
        self.partition.position_written(batch.next_offset)

    def record(self, cast_id: str, body: dict[str, object], log_time: int) -> Record:
        self.offset += 1
        headers = (("sent-at", b"%d" % (T0 + log_time)),)
        value = json.dumps(body).encode()
        return Record(
            READINGS.topic, READINGS.partition, self.offset - 1, 0, cast_id.encode(), value, headers
        )

    def hashes(self) -> tuple[str, ...]:
        readers = [WindowReader(self.client, self.keys, DATA, spec) for spec in (SLIDING, WHOLE)]
        return tuple(content_hash(reader) for reader in readers)


def run(client: Client, namespace: str, story: Story, seed: int) -> Member:
    """Lets a story arrive in one order, in batches cut at random, with a restart between some of them."""
    dice = random.Random(seed)
    member, left = Member(client, namespace), arrivals(story, seed)
    while left:
        size = dice.choice([1, 2, 5, 20, 100])
        member.turn(left[:size])
        del left[:size]
        if dice.random() < 0.2:
            member.restart()
    return member


def verdicts(client: Client, member: Member, spec: WindowsConfig) -> dict[Address, bool]:
    return dict(WindowReader(client, member.keys, DATA, spec).labelled())


def expected(client: Client, member: Member, spec: WindowsConfig, labels: list[Label]) -> dict[Address, bool]:
    """What the rule says of the rows that were sealed."""
    view, found = WindowReader(client, member.keys, DATA, spec), {}
    sealed = view.sealed()
    for window, x_TF in zip(sealed, view.rows(sealed), strict=True):
        ours = [label for label in labels if label.cast_id == window.cast_id]
        verdict_T = step_verdicts(ours, GRID, window.start, window.length)
        verdict = decide(valid_steps(x_TF), verdict_T, spec.min_valid_ratio)
        if verdict is not Verdict.UNLABELLED:
            found[window] = bool(verdict)
    return found


@settings(max_examples=35, suppress_health_check=list(HealthCheck), deadline=None)
@given(story=stories(), seeds=st.lists(st.integers(0, 10**6), min_size=2, max_size=2, unique=True))
def test_any_interleaving_gives_the_same_content(
    client: Client, unique: str, story: Story, seeds: list[int]
) -> None:
    one, other = (run(client, f"t{unique}.{k}", story, seed) for k, seed in enumerate(seeds))
    assert one.hashes() == other.hashes()
    for spec in (SLIDING, WHOLE):
        assert verdicts(client, one, spec) == expected(client, one, spec, story.labels)
    sealed = WindowReader(client, one.keys, DATA, WHOLE).sealed()
    has_value = [
        cast_id
        for cast_id, said in story.readings.items()
        if any(value is not None for _, values in said for value in values)
    ]
    assert sorted(each.cast_id for each in sealed if each.cast_id.startswith("C")) == has_value


def test_the_hash_tells_rows_verdicts_and_revisions_apart(client: Client, unique: str) -> None:
    rows = [(step * 1000, (1, 2)) for step in range(10)]
    good, bad = Label("C0", False, 1), Label("C0", True, 1)
    base = Story({"C0": rows}, [good])
    others = [
        base,
        Story({"C0": [*rows[:-1], (9_000, (1, 3))]}, [good]),  # another value
        Story({"C0": [*rows[:-1], (9_000, (1, None))]}, [good]),  # a value less
        Story({"C0": [*rows, (10_000, (1, 2))]}, [good]),  # a step more
        Story({"C0": rows}, [bad]),  # another verdict
        Story({"C0": rows}, [Label("C0", False, 2)]),  # the same verdict, of another inspection
        Story({"C0": rows}, []),
    ]
    seen = {run(client, f"t{unique}.{k}", story, seed=1).hashes() for k, story in enumerate(others)}
    assert len(seen) == len(others)
    # The same labels, and another verdict: an index that is wrong.
    wrong = run(client, f"t{unique}.w", base, seed=1)
    for spec in (SLIDING, WHOLE):
        client.rename(wrong.keys.good(spec.name), wrong.keys.defective(spec.name))
    assert not seen & {wrong.hashes()}
    # What says nothing changes nothing: a label that never wins.
    never = Story({"C0": rows}, [good, Label("C0", True, 0)])
    assert run(client, f"t{unique}.n", never, seed=1).hashes() in seen
