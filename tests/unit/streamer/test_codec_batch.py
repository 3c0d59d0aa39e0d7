"""A batch decodes as its records do one by one, whatever lies beside them."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from columns import slices_of
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.codec import Codec
from streamer.codec.exact import ExactDecoder, Piece
from streamer.codec.packing import Numbers, Packing
from streamer.codec.shapes import FORGET_AFTER, MAX_EXTRAS
from streamer.codec.sorting import MIN_FAST_RECORDS
from streamer.columns import DecodedBatch
from streamer.config import SensorConfig
from streamer.records import Headers, Record, RecordBatch
from streamer.schema import CastEnd
from streamer.sources import SourceConfig

TS = 1_763_796_000_000
SENSORS = (SensorConfig(name="speed"), SensorConfig(name="level", unit="mm"))
MSGPACK: Headers = (("content-type", b"application/msgpack"),)
SOURCES = {
    "auto": SourceConfig(topic="r"),
    "wide": SourceConfig(topic="r", format="wide"),
    "chunk": SourceConfig(topic="r", format="chunk"),
    "tag": SourceConfig.model_validate(
        {
            "topic": "r",
            "format": "tag",
            "tags": {"a": "speed", "b.c": "level"},
            "unknown_tags": "refuse",
            "quality": {"scheme": "opc_ua", "uncertain": "bad"},
        }
    ),
    "nested": SourceConfig.model_validate(
        {
            "topic": "r",
            "fields": {"ts": "meta.ts", "cast_id": "meta.cast", "tag": "meta.tag", "event": "meta.event"},
            "sensors": {"level": {"field": "body.level", "unit": "in", "min": -1000, "max": 1000}},
        }
    ),
    "seconds": SourceConfig.model_validate(
        {"topic": "r", "time": {"unit": "s"}, "content_type": "application/msgpack"}
    ),
    "awkward": SourceConfig.model_validate(
        {"topic": "r", "sensors": {"speed": {"field": 'say."speed"'}, "level": {"field": "PLC1\\Level"}}}
    ),
    "ranged": SourceConfig.model_validate(
        {"topic": "r", "sensors": {name: {"min": -1000, "max": 1000} for name in ("speed", "level")}}
    ),
    "local": SourceConfig.model_validate(
        {"topic": "r", "time": {"unit": "rfc3339", "zone": "Europe/Vienna"}}
    ),
}
CODECS = {name: Codec(SENSORS, source) for name, source in SOURCES.items()}
# Names that msgspec does not take for the fields of its types.
AWKWARD = ("PLC1\\Temp", 'a"b', "a\x01", "\n", "é", "")


@st.composite
def mostly(draw: st.DrawFn, good: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> Any:
    """Good ones but for one in sixteen, so that most messages of many fields are. `one_of` knows no weights."""
    return draw(good if draw(st.integers(0, 15)) < 15 else st.one_of(*others))


odd = st.sampled_from(
    [None, True, False, "x", "", [], {}, -1, 0, 1.5, 10**30, 10**400, 1e39, math.nan, math.inf, [[1]], "1.5"]
)
number = st.one_of(
    st.floats(-2000, 2000, allow_subnormal=False),
    st.integers(-2000, 2000),
    st.sampled_from([1e38, -3e38, 3.5e38, 0.1]),
)
value = mostly(number, st.none(), odd)
time = st.sampled_from(
    [
        *(TS, TS, TS + 1, TS // 1000, TS / 1000 + 0.123, TS * 1000, float(TS)),
        *("2025-11-22T07:20:00.1234567Z", "2025-11-22T07:20:00+01:00", "2025-11-22T07:20:00"),
        *("2025-10-26T02:30:00", "2025-03-30T02:30:00"),
    ]
)
usually = {
    "cast_id": mostly(st.sampled_from(["C1", "C2", "C3"]), st.sampled_from(["a/b", 5])),
    "ts": mostly(st.just(TS), time, odd),
}
perhaps: dict[str, st.SearchStrategy[Any]] = {
    "strand": mostly(st.integers(0, 9), st.none(), odd),
    "speed": value,
    "level": value,
    "period_ms": mostly(st.integers(1, 1000), odd),
    "values": mostly(st.lists(st.lists(value, min_size=2, max_size=2), min_size=1, max_size=3), odd),
    "tag": mostly(st.sampled_from(["speed", "level", "a", "b.c", "other"]), odd),
    "value": value,
    "quality": st.one_of(
        st.sampled_from(["good", "Bad_X", "uncertain", 0, 1 << 30, 192, True, False, 1]), odd
    ),
    "event": st.one_of(st.just("cast_end"), odd),
    "group": st.one_of(st.just("H1"), odd),
    "other": odd,
    "schema": odd,
    "payload": odd,
    "meta": st.one_of(
        st.fixed_dictionaries(
            usually,
            optional={
                "tag": st.just("speed"),
                "event": st.just("cast_end"),
                "x": odd,
                **dict.fromkeys(AWKWARD, odd),
            },
        ),
        odd,
    ),
    "body": st.one_of(st.fixed_dictionaries({"level": value}, optional={"y": odd}), odd),
    "PLC1\\Level": value,
    "say": st.one_of(st.fixed_dictionaries({'"speed"': value}), odd),
    **dict.fromkeys(AWKWARD, odd),
}


def some(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Messages that have these fields, as a rule, and perhaps others."""
    required = {name: {**usually, **perhaps}[name] for name in ("cast_id", "ts", *names)}
    others = {name: strategy for name, strategy in perhaps.items() if name not in names}
    return mostly(st.fixed_dictionaries(required), st.fixed_dictionaries(required, optional=others))


message = st.one_of(
    some("strand", "speed", "level"),
    some("strand", "speed", "level"),
    some("period_ms", "values"),
    some("tag", "value", "quality"),
    some("tag", "value"),
    some("event"),
    some("meta", "body", "speed"),
    some("PLC1\\Level", "say"),
    some("speed", *AWKWARD),
    st.fixed_dictionaries({"schema": odd, "payload": st.one_of(some("speed", "level"), odd)}),
)
packed = st.builds(
    lambda fields, values: {**fields, "period_ms": 100, "values": values},
    st.fixed_dictionaries(
        {**usually, "strand": perhaps["strand"]}, optional={"other": odd, "a\\b": odd, 7: odd, b"x": odd}
    ),
    st.one_of(
        st.lists(st.integers(-1000, 1000), min_size=2, max_size=2).map(lambda row: struct.pack("<2f", *row)),
        st.binary(min_size=16, max_size=16),
        st.binary(max_size=20),
    ),
)


def to_json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def to_msgpack(fields: dict[str, Any]) -> bytes:
    try:
        return msgspec.msgpack.encode(fields)
    except OverflowError:
        return b"\xc1"


any_body = mostly(
    st.one_of(
        st.tuples(message.map(to_json), st.just(())),
        st.tuples(packed.map(to_msgpack), st.just(MSGPACK)),
        st.tuples(message.map(to_msgpack), st.just(MSGPACK)),
    ),
    st.tuples(
        st.sampled_from([None, b"", b"{", b"[]", b"\x00\x00\x00\x00\x01{}", b'{"a":{}{}', b"{}\n{}"]),
        st.sampled_from([(), MSGPACK, (("content-type", b"text/csv"),)]),
    ),
    st.tuples(
        message.map(to_json), st.sampled_from([(("sent-at", b"1763796000001"),), (("sent-at", b"x"),)])
    ),
)


@st.composite
def body(draw: st.DrawFn) -> tuple[bytes | None, Headers]:
    """A value and its headers. A function, since hypothesis prints what a strategy is made of."""
    return draw(any_body)


@st.composite
def broken(draw: st.DrawFn) -> bytes | None:
    """A value that is no message."""
    return draw(st.one_of(st.none(), st.binary(max_size=60), message.map(to_json).map(lambda raw: raw[:-3])))


def batch_of(bodies: list[tuple[bytes | None, Headers]], in_one_buffer: bool = False) -> RecordBatch:
    batch = RecordBatch.of(
        [Record("r", 0, offset, TS, b"k", value, headers) for offset, (value, headers) in enumerate(bodies)]
    )
    return replace(batch, values=slices_of(batch.values)) if in_one_buffer else batch


def told(decoded: DecodedBatch, first: int = 0) -> list[tuple[Any, ...]]:
    """What a batch says of each record, in a form that can be compared."""
    columns = decoded.readings
    said: dict[int, tuple[Any, ...]] = {
        index + first: ("refused", error.reason, str(error), error.stage) for index, error in decoded.refused
    }
    said |= {index + first: ("control", event) for index, event in decoded.controls}
    stop_NF = np.zeros(columns.values_NF.shape, bool) if columns.stop_NF is None else columns.stop_NF
    assert (np.diff(columns.record_R) > 0).all()
    ends = np.cumsum(columns.num_rows_R)
    for r, index in enumerate(columns.record_R.tolist()):
        rows = slice(int(ends[r] - columns.num_rows_R[r]), int(ends[r]))
        said[index + first] = (
            "reading",
            columns.cast_ids[columns.cast_R[r]],
            int(columns.ts_R[r]),
            int(columns.period_R[r]),
            columns.values_NF[rows].tobytes(),
            stop_NF[rows].tobytes(),
        )
    return [(*said[index], int(decoded.log_time_M[index - first])) for index in sorted(said)]


def strands_of(batches: list[DecodedBatch]) -> dict[str, int | None]:
    """The first strand named for each cast, over batches in order."""
    found: dict[str, int | None] = {}
    for decoded in batches:
        for cast_id, strand in zip(decoded.readings.cast_ids, decoded.readings.strands, strict=True):
            found[cast_id] = strand if found.get(cast_id) is None else found[cast_id]
    return found


@pytest.mark.parametrize("source", SOURCES)
@settings(deadline=None)
@given(
    bodies=st.lists(body(), min_size=1, max_size=40),
    repeated=st.sampled_from([1, 3, 9]),
    in_one_buffer=st.booleans(),
)
def test_a_batch_is_what_its_records_are_one_by_one(
    source: str, bodies: list[tuple[bytes | None, Headers]], repeated: int, in_one_buffer: bool
) -> None:
    batch = batch_of(bodies * repeated, in_one_buffer)
    # The codec of the batch has seen other batches; a new one has not.
    decoded = CODECS[source].decode(batch)
    new = Codec(SENSORS, SOURCES[source])
    alone = [new.decode(RecordBatch.of([batch.record(index)])) for index in range(len(batch))]
    assert told(decoded) == [said for index, one in enumerate(alone) for said in told(one, index)]
    assert len(told(decoded)) == len(batch)
    assert decoded.num_unknown_fields == sum(one.num_unknown_fields for one in alone)
    assert decoded.num_bad_quality == sum(one.num_bad_quality for one in alone)
    assert decoded.num_out_of_range.total() == sum(one.num_out_of_range.total() for one in alone)
    assert strands_of([decoded]) == strands_of(alone)
    assert all(np.isfinite(row) | np.isnan(row) for row in decoded.readings.values_NF.ravel())


def agrees(source: str, bodies: list[tuple[bytes | None, Headers]]) -> DecodedBatch:
    """Decodes a batch that is as its records are one by one."""
    batch = batch_of(bodies)
    decoded = Codec(SENSORS, SOURCES[source]).decode(batch)
    alone = [
        Codec(SENSORS, SOURCES[source]).decode(RecordBatch.of([batch.record(i)])) for i in range(len(batch))
    ]
    assert told(decoded) == [said for index, one in enumerate(alone) for said in told(one, index)]
    assert strands_of([decoded]) == strands_of(alone)
    assert decoded.num_unknown_fields == sum(one.num_unknown_fields for one in alone)
    in_buffer = Codec(SENSORS, SOURCES[source]).decode(batch_of(bodies, in_one_buffer=True))
    assert told(in_buffer) == told(decoded)
    return decoded


WIDE = {"cast_id": "C1", "strand": 3, "ts": TS, "speed": 1.5, "level": 148.2}


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"cast_id": "C10"},
        {"cast_id": "c" * 32},
        {"cast_id": "c" * 40},
        {"speed": None},
        {"strand": None},
        {"strand": 200},
        {"strand": 100_000},
        {"group": "H1"},
        {"ts": TS + 0.5},
        {"ts": 5},
        {"ts": -5},
        # As long as the others: eight bytes less for the value, eight more for the id.
        {"speed": None, "cast_id": "C234567890"},
        {"ts": 5, "cast_id": "C234567890"},
        {"strand": 200, "cast_id": "C"},
    ],
    ids=str,
)
@pytest.mark.parametrize("place", [0, 10, 19])
def test_one_wide_row_that_is_packed_otherwise(odd: dict[str, Any], place: int) -> None:
    bodies: list[tuple[bytes | None, Headers]] = [(to_json({**WIDE, "ts": TS + i}), ()) for i in range(20)]
    bodies[place] = (to_json({**WIDE, **odd}), ())
    agrees("auto", bodies)
    agrees("auto", [(to_json({**WIDE, **odd}), ())] * 20)


@pytest.mark.parametrize(
    "odd", [b'"ts":1' + b"0" * 300, b'"strand":-1' + b"0" * 30, b'"group":[1' + b"0" * 30 + b"]"]
)
def test_a_number_that_messagepack_does_not_hold(odd: bytes) -> None:
    good = to_json(WIDE)
    agrees("auto", [*[(good, ())] * 10, (good[:-1] + b"," + odd + b"}", ()), *[(good, ())] * 10])


@pytest.mark.parametrize("cut", [b'"ts":', b'"speed":', b"1.5", b"148.2"])
def test_two_halves_of_a_message_are_none_though_another_value_holds_two(cut: bytes) -> None:
    good = to_json(WIDE).replace(b" ", b"")
    before, cut, behind = good.partition(cut)
    bodies: list[tuple[bytes | None, Headers]] = [(good, ())] * 20
    bodies[3:5] = [(before + cut, ()), (behind, ())]
    bodies[12] = (good + good, ())
    assert [index for index, _ in agrees("auto", bodies).refused] == [3, 4, 12]


@dataclass
class Watched:
    """A codec, and which way the records of its last batch went."""

    monkeypatch: pytest.MonkeyPatch
    codec: Codec = field(default_factory=lambda: Codec(SENSORS, SOURCES["auto"]))
    one_by_one: int = 0
    packed: int = 0

    def __post_init__(self) -> None:
        decode, numbers = ExactDecoder.decode, Packing.numbers

        def watched_decode(decoder: ExactDecoder, record: Record) -> Piece | CastEnd:
            self.one_by_one += 1
            return decode(decoder, record)

        def watched_numbers(packing: Packing, messages: list[Any]) -> Numbers | None:
            self.packed += len(messages)
            return numbers(packing, messages)

        self.monkeypatch.setattr(ExactDecoder, "decode", watched_decode)
        self.monkeypatch.setattr(Packing, "numbers", watched_numbers)

    def ways(self, *fields: dict[str, Any]) -> tuple[int, int]:
        """How many of a batch of wide rows, each with more fields, went one by one, and how many were packed."""
        self.one_by_one = self.packed = 0
        decoded = self.codec.decode(batch_of([(to_json(WIDE | more), ()) for more in fields]))
        assert (len(decoded.readings.record_R), decoded.refused) == (len(fields), [])
        assert decoded.num_unknown_fields == sum(map(len, fields))
        return self.one_by_one, self.packed


OFTEN = MIN_FAST_RECORDS


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_stray_field_costs_its_record_and_slows_no_other(watched: Watched) -> None:
    assert watched.ways(*[{}] * 50) == (1, 49)
    assert watched.ways(*[{}] * 49, {"op": 1}) == (1, 49)
    assert watched.ways(*[{}] * 49, {f"j{k}": 1 for k in range(MAX_EXTRAS)}) == (1, 49)
    assert watched.ways(*[{}] * 50) == (0, 50)
    # Nor has it taken the place of one that comes often.
    assert watched.ways(*[{"op": 1}] * 50) == (OFTEN, 0)
    assert watched.ways(*[{"op": 1}] * 50) == (0, 0)


def test_a_field_that_some_records_have_leaves_the_others_packed(watched: Watched) -> None:
    some = [{"op": 1} if k % 10 == 0 else {} for k in range(200)]
    assert watched.ways(*some) == (1 + OFTEN, 179)
    assert watched.ways(*some) == (1, 180)
    most = [{"op": 1} if k % 10 else {} for k in range(200)]
    watched.ways(*most)
    assert watched.ways(*most) == (0, 0)  # in one go
    assert watched.ways(*[{}] * 50) == (0, 0)
    assert watched.ways(*[{}] * 50) == (0, 50)


def test_fields_that_come_no_more_make_room(watched: Watched) -> None:
    full = {f"j{k}": 1 for k in range(MAX_EXTRAS)}
    watched.ways(*[full] * 50)
    assert watched.ways(*[full] * 50) == (0, 0)
    assert watched.ways(*[{"op": 1}] * 50)[0] == 50
    for _ in range(FORGET_AFTER):
        watched.ways(*[{}] * 30, *[{"op": 1}] * 20)
    assert watched.ways(*[{"op": 1}] * 50)[0] == 0


def test_a_field_that_comes_again_and_again_is_kept(watched: Watched) -> None:
    both = [{"op": 1, "shift": 2}] * 20
    watched.ways(*both)
    for number in range(3 * FORGET_AFTER):
        ways = watched.ways(*both) if number % FORGET_AFTER == 0 else watched.ways(*[{"op": 1}] * 20)
        assert ways == (0, 0)


def test_an_unknown_field_that_tells_a_format_elsewhere_hides_none() -> None:
    wide_with_tag = to_json({**WIDE, "tag": "speed", "value": 2, "quality": "bad", "period_ms": 1})
    tag = to_json({"cast_id": "C1", "ts": TS, "tag": "speed", "value": 2})
    chunk = to_json({**WIDE, "period_ms": 10, "values": [[1, 2]]})
    end = to_json({"cast_id": "C1", "ts": TS, "event": "cast_end", "speed": 1})
    bodies: list[tuple[bytes | None, Headers]] = [(value, ()) for value in (wide_with_tag, tag, chunk, end)]
    for order in (bodies, bodies[::-1]):
        decoded = agrees("auto", [body for body in order for _ in range(20)])
        assert (len(decoded.readings.record_R), len(decoded.controls)) == (60, 20)
        agrees("auto", order * 20)


@pytest.mark.parametrize("name", AWKWARD)
def test_a_field_of_any_name_is_counted(name: str) -> None:
    bodies: list[tuple[bytes | None, Headers]] = [(to_json({**WIDE, name: 1}), ())]
    assert agrees("auto", bodies).num_unknown_fields == 1
    assert agrees("auto", bodies * 20).num_unknown_fields == 20


@pytest.mark.parametrize("key", [7, b"x", -1.5, None, True])
def test_a_key_of_messagepack_may_be_no_text(key: Any) -> None:
    body = msgspec.msgpack.encode({"cast_id": "C1", "ts": TS, "speed": 1.5, key: 1})
    assert agrees("auto", [(body, MSGPACK)]).num_unknown_fields == 1
    assert agrees("auto", [(body, MSGPACK)] * 20).num_unknown_fields == 20


@pytest.mark.parametrize("num", [1, 20])
def test_a_sensor_may_lie_under_any_name(num: int) -> None:
    body = to_json({"cast_id": "C1", "ts": TS, "PLC1\\Level": 2, "say": {'"speed"': 1}})
    values_NF = agrees("awkward", [(body, ())] * num).readings.values_NF
    assert values_NF.tolist() == [[1, 2]] * num


def test_an_object_in_which_a_sensor_may_lie_is_looked_into_every_time() -> None:
    tag = {"meta": {"ts": TS, "cast": "C1", "tag": "speed"}, "value": 1, "body": {"y": 1}}
    wide = {**tag, "body": {"level": 3}}
    decoded = agrees("nested", [(to_json(one), ()) for one in [tag] * 20 + [wide] * 20])
    assert np.isnan(decoded.readings.values_NF[:, 1]).tolist() == [True] * 20 + [False] * 20


@pytest.mark.parametrize(
    "odd", [b"17637960000x1", b"1763796000/01", b"9999999999999", b"1763796000", b"", None]
)
@pytest.mark.parametrize("others", [(), (("content-type", b"application/json"),)])
def test_one_sent_at_that_is_odd(odd: bytes | None, others: Headers) -> None:
    bodies: list[tuple[bytes | None, Headers]] = [
        (to_json(WIDE), (*others, ("sent-at", b"17637960000%02d" % i))) for i in range(20)
    ]
    assert agrees("auto", bodies).log_time_M.tolist() == [TS + i for i in range(20)]
    bodies[7] = (to_json(WIDE), (*others, ("sent-at", odd)))
    refused = agrees("auto", bodies).refused
    assert [error.reason for _, error in refused] == ([] if odd is None else ["bad_sent_at"])


@pytest.mark.parametrize("source", SOURCES)
@settings(deadline=None)
@given(
    bodies=st.lists(
        st.tuples(
            broken(),
            st.sampled_from([(), MSGPACK, (("sent-at", None),)]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_random_bytes_are_refused_and_nothing_else(
    source: str, bodies: list[tuple[bytes | None, Headers]]
) -> None:
    assert len(told(CODECS[source].decode(batch_of(bodies)))) == len(bodies)
