"""Labels decide windows inside Redis: the rule, its news, several specs at once, what a change may touch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_rule import decide, step_verdicts

from streamer.config import DataConfig, RedisConfig, SensorConfig, WindowsConfig
from streamer.errors import FencedError, StoreUnavailableError
from streamer.records import Partition
from streamer.schema import Label
from streamer.store import index as index_module
from streamer.store.casts import CastStore
from streamer.store.connection import Client, connect
from streamer.store.index import WindowIndex
from streamer.store.keys import Keys
from streamer.store.namespace import claim_spec, drop_spec, registered_specs
from streamer.store.reading import WindowReader
from streamer.timeline import Grid
from streamer.windows import Address, Verdict, windows_between

LABELS = Partition("labels", 0)
SENSORS = (SensorConfig(name="speed"), SensorConfig(name="level"), SensorConfig(name="flow"))
DATA = DataConfig(sensors=SENSORS, block_steps=16)
SPEC = WindowsConfig(size_steps=5, hop_steps=5, min_valid_ratio=0.6)
NO, OK, BAD = Verdict.UNLABELLED, Verdict.GOOD, Verdict.DEFECTIVE
FIRST = 30  # of every cast; blocks end at 32, 48, ...


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[Client]:
    client = connect(RedisConfig(url=redis_url))
    yield client
    client.close()


class Cast:
    """A sealed cast in a namespace of its own, written by hand; `valid` says `#` or `.` for each step."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        valid: str,
        *,
        spec: WindowsConfig = SPEC,
        data: DataConfig = DATA,
        first_step: int = FIRST,
        cast_id: str = "C",
    ) -> None:
        self.client, self.keys, self.data, self.spec = client, Keys(namespace), data, spec
        self.cast_id, self.first_step, self.valid = cast_id, first_step, valid
        self.grid = Grid(data.period_ms, data.grid_phase_ms)
        self.casts = CastStore(client, self.keys, data)
        self.index = WindowIndex(client, self.keys, data, spec)
        self.reader = WindowReader(client, self.keys, data, spec)
        self.offset = 0
        size, steps = data.block_steps, range(first_step, first_step + len(valid))
        for block in range(steps[0] // size, steps[-1] // size + 1):
            tail = bytes(
                step in steps and valid[step - first_step] == "#"
                for step in range(block * size, (block + 1) * size)
            )
            rows = np.full(size * len(data.sensors), np.nan, "<f4").tobytes()
            client.set(self.keys.rows(cast_id, block), rows + tail)
        self.write(sealed=first_step + len(valid), ended=1)

    def write(self, **fields: Any) -> None:
        key = self.keys.cast(self.cast_id)
        self.client.hset(key, mapping={"first_step": self.first_step, **fields})
        self.client.hincrby(key, "revision", 1)

    def add(self, *labels: Label) -> None:
        """Labels come, and decide nothing yet."""
        self.casts.add_labels([(LABELS, self.offset + k, label) for k, label in enumerate(labels)])
        self.offset += len(labels)

    def label(self, defect: bool | None, at: int, low: int | None = None, high: int | None = None) -> None:
        """A verdict over steps low to high, both included, decides at once."""
        self.add(label(defect, at, low, high, cast_id=self.cast_id))
        self.index.update([self.cast_id])

    def verdicts(self) -> list[Verdict]:
        """Of each sealed window, in order."""
        labelled = dict(self.reader.labelled())
        sealed = sorted(window for window in self.reader.sealed() if window.cast_id == self.cast_id)
        return [Verdict(int(labelled[window])) if window in labelled else NO for window in sealed]

    def hash(self) -> dict[bytes | str, bytes | str]:
        return self.client.hgetall(self.keys.cast(self.cast_id))


def label(
    defect: bool | None, at: int, low: int | None = None, high: int | None = None, *, cast_id: str = "C"
) -> Label:
    span = (None if low is None else low * 1000, None if high is None else high * 1000)
    return Label(cast_id, defect, at, *span)


@pytest.mark.parametrize(
    ("valid", "labels", "expected"),
    [
        # steps 30..34 | 35..39; the border of two blocks lies at 32
        ("##########", [], [NO, NO]),
        ("##########", [label(False, 1)], [OK, OK]),
        ("##########", [label(True, 1)], [BAD, BAD]),
        ("##########", [label(False, 1), label(True, 2)], [BAD, BAD]),
        ("##########", [label(False, 1), label(True, 2, 36, 36)], [OK, BAD]),
        ("##########", [label(False, 1), label(True, 2, 34, 35)], [BAD, BAD]),
        ("##########", [label(False, 3), label(True, 2, 36, 36)], [OK, OK]),
        ("##########", [label(True, 2, None, 30)], [BAD, NO]),
        ("##########", [label(False, 2, 35)], [NO, OK]),
        ("##########", [label(False, 2, 36)], [NO, NO]),
        ("##########", [label(False, 2, 0, 29), label(True, 2, 40, 99)], [NO, NO]),
        ("##########", [label(False, 2, 0, 32), label(False, 1, 33, 99)], [OK, OK]),
        ("##########", [label(False, 9), label(True, 10, 38, 31)], [OK, OK]),  # from after to: no step
        # a tie: the defect wins, also against a withdrawal
        ("##########", [label(False, 2), label(True, 2)], [BAD, BAD]),
        ("##########", [label(True, 2), label(None, 2), label(False, 2)], [BAD, BAD]),
        ("##########", [label(None, 2), label(False, 2)], [OK, OK]),
        # withdrawn: not back to what was said before
        ("##########", [label(False, 1), label(True, 2), label(None, 3)], [NO, NO]),
        ("##########", [label(False, 2), label(None, 3, 31, 31)], [NO, OK]),
        ("##########", [label(None, 3), label(False, 4, 30, 34)], [OK, NO]),
        ("##########", [label(True, 2, 31, 31), label(None, 3, 31, 31)], [NO, NO]),
        # a step without values has no say
        ("#.#.######", [label(False, 2), label(True, 3, 31, 31)], [OK, OK]),
        ("#.########", [label(False, 2, 30, 30), label(False, 2, 32, 34)], [OK, NO]),
        ("#.########", [label(True, 2, 31, 31)], [NO, NO]),
        # the share of valid steps is below 0.6
        ("##...###..", [label(True, 1)], [NO, BAD]),
        (".....#####", [label(True, 1)], [NO, BAD]),
    ],
)
def test_a_window_is_decided_by_the_newest_verdicts_of_its_valid_steps(
    client: Client, unique: str, valid: str, labels: list[Label], expected: list[Verdict]
) -> None:
    for number, order in enumerate(permutations(labels)):
        cast = Cast(client, f"t{unique}.{number}", valid)
        cast.add(*order)
        cast.index.update(["C"])
        assert cast.verdicts() == expected


@pytest.mark.parametrize(
    ("from_ms", "to_ms", "expected"),
    [
        # a border belongs to the nearest step, halfway to the later one, as a reading does
        (29_500, 34_499, [OK, NO]),
        (30_499, 34_499, [OK, NO]),
        (30_500, 34_499, [NO, NO]),
        (29_500, 33_499, [NO, NO]),
        (29_500, 39_499, [OK, OK]),
        (34_499, 39_499, [NO, OK]),
        (35_500, 39_499, [NO, NO]),
    ],
)
def test_borders_of_a_label_lie_on_the_nearest_step(
    client: Client, unique: str, from_ms: int, to_ms: int, expected: list[Verdict]
) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    cast.add(Label("C", False, 1, from_ms, to_ms))
    cast.index.update(["C"])
    assert cast.verdicts() == expected


# Borders in thousandths of a step after the first one.
BORDER = st.none() | st.integers(-2, 52).flatmap(
    lambda step: st.integers(step * 1000 - 501, step * 1000 + 501)
)
LABEL = st.tuples(st.sampled_from([True, False, None]), st.integers(1, 4), BORDER, BORDER)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    valid=st.text("#####.", min_size=1, max_size=50) | st.integers(1, 50).map("#".__mul__),
    labels=st.lists(LABEL, max_size=7),
    size=st.integers(2, 20) | st.just("cast"),
    hop=st.integers(1, 24),
    min_valid_ratio=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
    period_ms=st.sampled_from([1, 7, 1000]),
    at=st.sampled_from([0, 1_763_796_000_000]),
    per_call=st.sampled_from([1, 3, 512]),
)
def test_the_script_says_what_the_rule_says(
    client: Client,
    unique: str,
    valid: str,
    labels: list[tuple[bool | None, int, int | None, int | None]],
    size: int | str,
    hop: int,
    min_valid_ratio: float,
    period_ms: int,
    at: int,
    per_call: int,
) -> None:
    namespace = f"t{unique}.h"
    if found := list(client.scan_iter(f"{namespace}:*", count=1000)):
        client.delete(*found)
    data = DataConfig(sensors=SENSORS, block_steps=16, period_ms=period_ms, grid_phase_ms=period_ms // 3)
    spec = WindowsConfig(size_steps=size, hop_steps=hop, min_valid_ratio=min_valid_ratio, tail="align_end")
    grid = Grid(data.period_ms, data.grid_phase_ms)
    first_step = grid.step(at)
    cast = Cast(client, namespace, valid, spec=spec, data=data, first_step=first_step)

    def ts(border: int | None) -> int | None:
        return None if border is None else grid.time(first_step) + border * period_ms // 1000

    said = [Label("C", defect, when, ts(low), ts(high)) for defect, when, low, high in labels]
    cast.add(*said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "MAX_WINDOWS", per_call)
        patch.setattr(index_module, "MAX_BLOCKS", per_call)
        cast.index.update(["C"])
    sealed = first_step + len(valid)
    windows = sorted(
        windows_between(spec, "C", first_step=first_step, begin=first_step, sealed=sealed, ended=True)
    )
    valid_T = np.array([char == "#" for char in valid])
    expected = {}
    for window in windows:
        low = window.start - first_step
        verdict_T = step_verdicts(said, grid, window.start, window.length)
        verdict = decide(valid_T[low : low + window.length], verdict_T, min_valid_ratio)
        if verdict is not NO:
            expected[window] = bool(verdict)
    assert sorted(cast.reader.sealed()) == windows
    assert dict(cast.reader.labelled()) == expected


def test_long_casts_are_decided_in_calls_of_bounded_size(
    client: Client, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"hop_steps": 1})
    cast = Cast(client, f"t{unique}", "#" * 400, spec=spec)
    calls: list[int] = []
    plain = WindowIndex._decide_call

    def counted(self: WindowIndex, job: Any, windows: list[Address]) -> Any:
        calls.append(len(windows))
        return plain(self, job, windows)

    monkeypatch.setattr(WindowIndex, "_decide_call", counted)
    monkeypatch.setattr(index_module, "MAX_WINDOWS", 100)
    cast.label(True, 1, FIRST + 200, FIRST + 200)
    assert calls == [100, 100, 100, 96]
    decided = [window.start - FIRST for window, defective in cast.reader.labelled() if defective]
    assert decided == [196, 197, 198, 199, 200]


def test_a_label_before_and_after_the_windows_it_decides(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "#" * 15)
    cast.write(sealed=FIRST + 5, ended=0)
    cast.label(False, 1)
    assert cast.verdicts() == [OK]
    cast.write(sealed=FIRST + 12, ended=0)
    result = cast.index.update(["C"])
    assert (result.num_sealed, result.num_decided, result.finished) == (1, 1, frozenset())
    assert cast.verdicts() == [OK, OK]
    cast.label(True, 2, FIRST + 1, FIRST + 1)
    cast.write(sealed=FIRST + 15, ended=1)
    assert cast.index.update(["C"]).finished == {"C"}
    assert cast.verdicts() == [BAD, OK, OK]


def test_a_label_of_a_cast_that_has_no_readings_waits(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "#####")
    client.delete(cast.keys.cast("C"))
    cast.label(True, 1)
    assert cast.reader.sealed() == []
    cast.write(sealed=FIRST + 5, ended=1)
    cast.index.update(["C"])
    assert cast.verdicts() == [BAD]


def test_news_are_verdicts_that_came_changed_or_were_withdrawn(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    reader = cast.reader

    def news_of(*said: Any) -> int:
        seen = reader.last_arrival()
        cast.label(*said)
        assert reader.last_arrival() - seen == reader.num_labelled_since(seen)
        return reader.num_labelled_since(seen)

    assert news_of(False, 1) == 2
    assert news_of(False, 2) == 0  # the same verdicts
    assert news_of(True, 3, 35, 35) == 1
    assert news_of(None, 4, 30, 34) == 1
    assert cast.verdicts() == [NO, BAD]
    assert news_of(None, 5, 30, 34) == 0  # withdrawn already
    assert news_of(False, 6, 30, 34) == 1
    assert client.zcard(cast.keys.withdrawn(SPEC.name)) == 0


def test_each_label_record_counts_once_for_its_partition(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "#####")
    first, other = label(True, 1), Partition("labels", 1)
    cast.casts.add_labels([(LABELS, 4, first), (LABELS, 5, first), (other, 9, first)])
    once = cast.hash()
    assert (once[b"label:labels/0"], once[b"label:labels/1"], once[b"num_labels"]) == (b"2", b"1", b"1")
    cast.casts.add_labels([(LABELS, 4, label(False, 7)), (LABELS, 5, first), (other, 9, first)])
    assert cast.hash() == once


def test_what_retention_took_is_left_alone(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    cast.write(evicted=1)
    before = {key: client.dump(key) for key in client.scan_iter(f"t{unique}:*")}
    result = cast.index.update(["C"])
    assert (result.num_evicted, result.num_sealed, result.finished) == (1, 0, frozenset({"C"}))
    assert {key: client.dump(key) for key in client.scan_iter(f"t{unique}:*")} == before
    cast.label(True, 1)
    assert cast.reader.sealed() == []
    assert cast.hash()[b"label:labels/0"] == b"1"


# One spec is not enough


TIGHT = WindowsConfig(name="tight", size_steps=3, hop_steps=2)
WHOLE = WindowsConfig(name="whole", size_steps="cast")


def starts(cast: Cast, spec: WindowsConfig) -> list[tuple[int, int]]:
    reader = WindowReader(cast.client, cast.keys, cast.data, spec)
    return [(window.start - FIRST, window.length) for window in reader.sealed()]


def test_every_registered_spec_is_kept_by_whoever_updates(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "########")
    cast.write(sealed=FIRST + 6, ended=0)
    cast.index.update(["C"])
    assert (starts(cast, SPEC), starts(cast, TIGHT)) == ([(0, 5)], [])
    # A running member learns of the specs at its next update, and enters what was sealed before as well.
    claim_spec(client, cast.keys, TIGHT)
    claim_spec(client, cast.keys, WHOLE)
    assert registered_specs(client, cast.keys) == [TIGHT, WHOLE]
    cast.write(sealed=FIRST + 8, ended=1)
    cast.label(True, 1)
    assert starts(cast, SPEC) == [(0, 5)]
    assert starts(cast, TIGHT) == [(0, 3), (2, 3), (4, 3)]
    assert starts(cast, WHOLE) == [(0, 8)]
    whole = WindowReader(client, cast.keys, DATA, WHOLE)
    assert whole.labelled() == [(Address("C", FIRST, 8), True)]


def test_a_spec_registered_later_does_not_touch_the_others(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    cast.label(True, 1)
    arrival = cast.reader.last_arrival()
    claim_spec(client, cast.keys, TIGHT)
    result = cast.index.update(["C"])
    assert (result.num_sealed, result.num_decided) == (4, 4)
    assert cast.reader.last_arrival() == arrival
    assert cast.index.update(["C"]).num_sealed == 0


def test_a_dropped_spec_is_left_as_it_is(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    claim_spec(client, cast.keys, TIGHT)
    cast.write(sealed=FIRST + 6, ended=0)
    cast.index.update(["C"])
    held = starts(cast, TIGHT)
    assert drop_spec(client, cast.keys, TIGHT.name)
    assert not drop_spec(client, cast.keys, TIGHT.name)
    cast.write(sealed=FIRST + 10, ended=1)
    assert cast.index.update(["C"]).finished == {"C"}
    assert (starts(cast, TIGHT), len(starts(cast, SPEC))) == (held, 2)


def test_a_cast_is_due_when_any_spec_has_a_new_window(client: Client, unique: str) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    due = cast.index.has_new_windows
    assert not due(FIRST, FIRST, FIRST + 4)
    assert due(FIRST, FIRST, FIRST + 5)
    assert not due(FIRST, FIRST + 5, FIRST + 9)
    assert due(FIRST, None, FIRST + 9)
    assert not due(None, None, FIRST + 9)
    claim_spec(client, cast.keys, TIGHT)
    cast.index.update(["C"])
    assert due(FIRST, FIRST, FIRST + 4)


@pytest.mark.parametrize("step", ["_decide_all", "_enter_all", "_mark_all"])
def test_an_index_broken_off_anywhere_is_mended(
    client: Client, unique: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    claim_spec(client, cast.keys, TIGHT)
    cast.add(label(True, 1, 36, 36), label(False, 0))

    def gone(*_: object) -> None:
        raise StoreUnavailableError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(WindowIndex, step, gone)
        with pytest.raises(StoreUnavailableError):
            cast.index.update(["C"])
    mended = WindowIndex(client, cast.keys, DATA, SPEC).update(["C"])
    assert (mended.num_sealed, cast.verdicts()) == (2 + 4, [OK, BAD])
    arrival = cast.reader.last_arrival()
    assert (cast.index.update(["C"]).num_sealed, cast.reader.last_arrival()) == (0, arrival)


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize("step", ["_decide_all", "_enter_all", "_mark_all"])
def test_a_label_that_comes_while_the_index_is_written_is_not_lost(
    client: Client, unique: str, step: str, is_indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    cast.add(label(False, 1))
    late = [label(True, 2, 31, 31)]
    plain = getattr(WindowIndex, step)

    def interrupted(self: WindowIndex, jobs: Any) -> None:
        if late:  # another member takes a label in between, and indexes it or dies
            cast.add(late.pop())
            if is_indexed:
                WindowIndex(client, cast.keys, DATA, SPEC).update(["C"])
        plain(self, jobs)

    monkeypatch.setattr(WindowIndex, step, interrupted)
    cast.index.update(["C"])
    assert cast.verdicts() == [BAD, OK]
    assert cast.hash()[f"indexed:{SPEC.name}".encode()].split()[0] == cast.hash()[b"revision"]


def test_an_index_that_shows_more_of_a_cast_than_there_is_ends_in_an_error(
    client: Client, unique: str
) -> None:
    cast = Cast(client, f"t{unique}", "##########")
    client.hset(cast.keys.shown(SPEC.name), "C", 2**52)
    cast.add(label(True, 1))
    with pytest.raises(FencedError, match="C did not settle in 50 rounds"):
        cast.index.update(["C"])
