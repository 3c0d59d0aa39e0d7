"""Both parsers get the same bytes, made by kafka-python's own builders, and must say the same."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import kafka
import kafka.codec
import pytest
from hypothesis import HealthCheck, example, given, settings
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords, default_records, legacy_records
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.util import calc_crc32c

from streamer.codec.times import log_times
from streamer.kafka import decompression, record_set, seam
from streamer.kafka.connection import UnreadableBatchError, as_record
from streamer.kafka.decompression import OversizedError
from streamer.kafka.record_set import MAX_HEADERS, Body, join
from streamer.kafka.seam import ColumnRecords
from streamer.records import Record, RecordBatch
from streamer.slices import HeaderColumn, Slices

TP = kafka.TopicPartition("readings", 3)
START_MS = 1_763_796_000_000
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
LOG_APPEND, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
ATTRIBUTES_AT, LAST_DELTA_AT, MAX_TS_AT, CRC_AT, BODY_AT = 21, 23, 35, 17, 61

Headers = list[tuple[str, bytes | None]]
Row = tuple[int, int, bytes | None, bytes | None, Headers]  # offset delta, timestamp, key, value, headers


@dataclass(frozen=True)
class Batch:
    """What one producer (or the broker, of its own) put into the log."""

    rows: list[Row] = field(default_factory=list)
    codec: int = NONE
    attributes: int = 0
    producer_id: int = -1
    hole_behind: int = 0

    @property
    def num_offsets(self) -> int:
        return (self.rows[-1][0] if self.rows else 0) + 1 + self.hole_behind

    def to_bytes(self, base_offset: int) -> bytes:
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=self.codec,
            is_transactional=bool(self.attributes & TRANSACTIONAL),
            producer_id=self.producer_id,
            producer_epoch=0,
            base_sequence=0,
            batch_size=1 << 30,
        )
        for offset, timestamp, key, value, headers in self.rows:
            builder.append(offset, timestamp, key, value, headers)
        raw = bytearray(builder.build())
        struct.pack_into(">q", raw, 0, base_offset)
        (attributes,) = struct.unpack_from(">h", raw, ATTRIBUTES_AT)
        struct.pack_into(">h", raw, ATTRIBUTES_AT, attributes | self.attributes)
        struct.pack_into(">i", raw, LAST_DELTA_AT, self.num_offsets - 1)
        return with_crc(raw)


def with_crc(raw: bytearray) -> bytes:
    struct.pack_into(">I", raw, CRC_AT, calc_crc32c(memoryview(raw)[ATTRIBUTES_AT:]))
    return bytes(raw)


def batch_around(body: bytes, *, attributes: int = NONE, base_offset: int = 101) -> bytes:
    """A batch of one record with any body, and the CRC of just that."""
    head = bytearray(Batch([wide(0)]).to_bytes(base_offset)[:BODY_AT])
    struct.pack_into(">i", head, 8, len(head) + len(body) - 12)
    struct.pack_into(">h", head, ATTRIBUTES_AT, attributes)
    return with_crc(head + body)


def marker(producer_id: int, *, commit: bool) -> Batch:
    """How the broker ends a transaction."""
    key = struct.pack(">hh", 0, int(commit))
    row: Row = (0, START_MS, key, b"\0\0\0\0\0\0", [])
    return Batch(rows=[row], attributes=TRANSACTIONAL | CONTROL, producer_id=producer_id)


def log_of(batches: Sequence[Batch], base_offset: int = 100) -> tuple[list[bytes], list[int]]:
    """The batches as they lie in the log, and the offset of each."""
    raw, offsets = [], []
    for batch in batches:
        raw.append(batch.to_bytes(base_offset))
        offsets.append(base_offset)
        base_offset += batch.num_offsets
    return raw, offsets


@dataclass
class Reading:
    """What came out of a parser, and where it stands at the end."""

    records: list[Record]
    next_offset: int
    error: type[BaseException] | None
    message: str
    takes: list[int]


def read(
    parser: Callable[..., Any], raw: bytes, fetch_offset: int, take: int, aborted: Sequence[Any] = ()
) -> Reading:
    """Drives a parser as the fetcher does."""
    part = parser(
        fetch_offset,
        TP,
        MemoryRecords(raw),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=list(aborted),
    )
    records: list[Record] = []
    takes, error, message = [], None, ""
    try:
        while part and (some := part.take(take)):
            takes.append(len(some))
            for item in some:
                records += to_records(item) if isinstance(item, RecordBatch) else [as_record(item)]
    except Exception as exc:  # noqa: BLE001  which one is what the tests compare
        error = CorruptRecordError if isinstance(exc, UnreadableBatchError) else type(exc)
        message = str(exc)
    return Reading(records, part.next_fetch_offset, error, message, takes)


def to_records(batch: RecordBatch) -> list[Record]:
    return [batch.record(index) for index in range(len(batch))]


def both(
    raw: bytes, fetch_offset: int = 100, take: int = 10_000, aborted: Sequence[Any] = ()
) -> tuple[Reading, Reading]:
    public = read(Fetcher.PartitionRecords, raw, fetch_offset, take, aborted)
    ours = read(ColumnRecords, raw, fetch_offset, take, aborted)
    if "UnicodeDecodeError" in public.message:  # the name of a header: only ours reads on, as Java does
        assert _from(fetch_offset, ours.records)[: len(public.records)] == public.records
        return ours, public
    # What lies before the fetch offset, in a batch that lies about its offsets, is left out by whoever starts there.
    assert _from(fetch_offset, ours.records) == _from(fetch_offset, public.records)
    assert ours.error is (public.error and CorruptRecordError)  # whatever a codec raises
    if ours.error is None:
        assert ours.next_offset == public.next_offset
    else:  # a hole before the damage may be behind us already
        assert public.next_offset <= ours.next_offset
    assert max(ours.takes, default=0) <= take
    return ours, public


def _from(offset: int, records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.offset >= offset]


@pytest.fixture
def reads_by_client(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the client's own parser was asked."""
    asked: list[int] = []
    take = ColumnRecords._take_by_client

    def noted(self: ColumnRecords, limit: int) -> Any:
        asked.append(limit)
        return take(self, limit)

    monkeypatch.setattr(ColumnRecords, "_take_by_client", noted)
    return asked


def wide(number: int, headers: Headers | None = None) -> Row:
    value = b'{"cast_id":"C%06d","strand":3,"ts":%d,"mold_level":148.2}' % (number % 7, START_MS + number)
    return (number, START_MS + number, b"C%06d" % (number % 7), value, headers or [])


small_bytes = st.none() | st.binary(max_size=200)
headers = st.lists(
    st.tuples(st.sampled_from(["sent-at", "content-type", "größe", ""]) | st.text(max_size=5), small_bytes),
    max_size=10,
)


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Ascending offsets with holes, stamps in any order, everything that may be null null at times."""
    num = draw(st.integers(1, 12))
    offsets = sorted(draw(st.sets(st.integers(0, 300), min_size=num, max_size=num)))
    with_headers = draw(st.sampled_from(["none", "same", "any"]))
    made: list[Row] = []
    for offset in offsets:
        some: Headers = {"none": [], "same": [("sent-at", b"%d" % (START_MS + offset))], "any": None}[
            with_headers
        ]
        stamp = START_MS + draw(st.integers(-(2**41), 2**41))
        value = draw(small_bytes | st.sampled_from([b"x" * 5_000, b"x" * 70_000]))
        made.append((offset, stamp, draw(small_bytes), value, draw(headers) if some is None else some))
    return made


plain = st.builds(
    Batch,
    rows=rows(),
    codec=st.sampled_from([NONE, NONE, GZIP, LZ4, ZSTD]),
    attributes=st.sampled_from([0, 0, LOG_APPEND]),
    producer_id=st.sampled_from([-1, 7]),
    hole_behind=st.integers(0, 3),
)
empty = st.builds(Batch, hole_behind=st.integers(0, 3), attributes=st.just(0))
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class TestBothPathsSayTheSame:
    @quick
    @given(st.lists(plain | empty, max_size=5), st.data())
    def test_on_plain_batches_from_any_offset_in_any_portion(
        self, batches: list[Batch], data: st.DataObject
    ) -> None:
        raw, _ = log_of(batches)
        end = 100 + sum(batch.num_offsets for batch in batches)
        start = data.draw(st.integers(100, max(end - 1, 100)))
        both(b"".join(raw), start, data.draw(st.sampled_from([1, 2, 3, 7, 10_000])))

    @quick
    @given(
        st.lists(plain | st.sampled_from(["begin", "commit", "abort"]), max_size=7),
        st.sampled_from([1, 3, 10_000]),
    )
    def test_on_transactions(self, steps: list[Any], take: int) -> None:
        batches, aborted, begun = [], [], None
        at = 100
        for step in steps:
            if isinstance(step, Batch):
                batch = step
            elif step == "begin":
                batch = Batch([wide(0), wide(1)], attributes=TRANSACTIONAL, producer_id=9)
                begun = at if begun is None else begun
            else:
                batch = marker(9, commit=step == "commit")
                if step == "abort" and begun is not None:
                    aborted.append(Aborted(9, begun))
                begun = None
            batches.append(batch)
            at += batch.num_offsets
        raw, _ = log_of(batches)
        both(b"".join(raw), 100, take, aborted)

    @quick
    @given(st.lists(plain, min_size=1, max_size=4), st.data())
    def test_on_damage_that_the_crc_tells(self, batches: list[Batch], data: st.DataObject) -> None:
        raw, offsets = log_of(batches)
        which = data.draw(st.integers(0, len(raw) - 1))
        damaged = bytearray(raw[which])
        damaged[data.draw(st.integers(ATTRIBUTES_AT, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
        raw[which] = bytes(damaged)
        ours, _ = both(b"".join(raw), 100, data.draw(st.sampled_from([1, 3, 10_000])))
        assert ours.error is CorruptRecordError
        assert len(ours.records) == sum(len(batch.rows) for batch in batches[:which])
        assert ours.next_offset <= offsets[which]

    @settings(quick, max_examples=150)
    @given(st.lists(plain, min_size=1, max_size=3), st.data())
    def test_on_damage_that_the_crc_does_not_tell(self, batches: list[Batch], data: st.DataObject) -> None:
        raw, _ = log_of(batches)
        which = data.draw(st.integers(0, len(raw) - 1))
        damaged = bytearray(raw[which])
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(BODY_AT, min(len(damaged), BODY_AT + 80) - 1))] = data.draw(
                st.integers(0, 255)
            )
        raw[which] = with_crc(damaged)
        both(b"".join(raw), 100, data.draw(st.sampled_from([1, 3, 10_000])))

    @quick
    @given(st.lists(plain, min_size=1, max_size=3), st.data())
    def test_on_an_answer_that_was_cut_off(self, batches: list[Batch], data: st.DataObject) -> None:
        raw = b"".join(log_of(batches)[0])
        both(raw[: data.draw(st.integers(0, len(raw)))])

    @pytest.mark.parametrize(
        "record",
        [
            bytes([0x10, 0, 0, 0, 1, 1, 0, 0, 0]),  # two bytes behind the headers
            bytes([0x0D, 0, 0, 0, 1, 1, 0]),  # a negative length
            bytes([0x0E, 0x80, 0, 0, 2, 0, 0, 0]),  # attributes of two bytes
            bytes([0x0C, 0, 0, 0, 1, 1, 1]),  # minus one header
            bytes([0x0C, 0, 0, 0, 1, 99, 0]),  # a value that is longer than all
            bytes([0x0C, 0, 0, 0, 3, 5, 0]),  # lengths below -1
            bytes([0x0E, 0, 0x80, 0, 0, 1, 1, 0]),  # a number with a byte to spare
            bytes([0x20, 0, *[0xFF] * 9, 1, 0, 1, 1, 0, 0]),  # the smallest number there is
            bytes([0x8C, 0x80, 0, 0, 0, 0, 1, 1, 0]),  # a length with bytes to spare
            bytes([0x10, 0, 0, 0, 1, 1, 2, 1, 1]),  # a header without a name
        ],
    )
    def test_on_odd_records(self, record: bytes) -> None:
        both(Batch([wide(0)]).to_bytes(100) + batch_around(record))

    @pytest.mark.parametrize("deltas", [(3, 0, 5), (0, 5, 3), (2, 2, 2)])
    @pytest.mark.parametrize("start", range(100, 106))
    def test_on_offsets_that_do_not_ascend(self, deltas: tuple[int, ...], start: int) -> None:
        both(Batch([(delta, START_MS, None, b"x", []) for delta in deltas]).to_bytes(100), start)

    @pytest.mark.parametrize("length", [0, 1, 4, 5, 20, 48, 49, 60])
    @pytest.mark.parametrize("magic", [0, 2])
    def test_on_a_batch_shorter_than_its_header(self, length: int, magic: int) -> None:
        short = bytearray(Batch([wide(0)]).to_bytes(101)[: 12 + length])
        struct.pack_into(">i", short, 8, length)
        short[16:17] = bytes([magic])[: max(0, len(short) - 16)]
        ours, _ = both(Batch([wide(0)]).to_bytes(100) + bytes(short))
        assert ours.error is not None
        assert len(ours.records) == 1

    @pytest.mark.parametrize("magic", [0, 1])
    def test_on_older_formats_behind_new_ones(self, magic: int) -> None:
        old = LegacyRecordBatchBuilder(magic=magic, compression_type=0, batch_size=1 << 20)
        for number in range(3):
            old.append(200 + number, timestamp=START_MS, key=b"k", value=b"old %d" % number)
        raw = Batch([wide(number) for number in range(4)]).to_bytes(100) + bytes(old.build())
        ours, _ = both(raw)
        assert [record.offset for record in ours.records] == [100, 101, 102, 103, 200, 201, 202]

    def test_on_a_codec_that_is_not_installed(self) -> None:
        first = Batch([wide(0)]).to_bytes(100)
        second = Batch([wide(0)], attributes=SNAPPY).to_bytes(101)
        ours, public = both(first + second)
        assert ours.error is not None  # with the codec installed, the body is what cannot be read
        assert kafka.codec.has_snappy() or public.error is UnsupportedCodecError
        assert len(ours.records) == 1

    def test_on_a_body_that_cannot_be_decompressed(self) -> None:
        first = Batch([wide(0)]).to_bytes(100)
        second = Batch([wide(0)], attributes=LZ4).to_bytes(101)
        ours, public = both(first + second)
        assert public.error is RuntimeError
        assert len(ours.records) == 1

    @pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD, 5, 7])
    @pytest.mark.parametrize("num_bytes", [0, 10, 30, -20])
    def test_on_garbage_where_a_compressed_body_should_be(self, codec: int, num_bytes: int) -> None:
        body = Batch([wide(0)], codec=min(codec, ZSTD)).to_bytes(101)[BODY_AT:][:num_bytes]
        body += b"\xff" * max(0, num_bytes)
        ours, _ = both(Batch([wide(0)]).to_bytes(100) + batch_around(body, attributes=codec))
        assert ours.error is CorruptRecordError
        assert len(ours.records) == 1


@dataclass(frozen=True)
class Aborted:
    """An entry of the fetch answer's list."""

    producer_id: int
    first_offset: int


class TestDamage:
    @pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
    def test_it_says_where_the_batch_lies_and_what_is_wrong(self, codec: int) -> None:
        part = ColumnRecords(101, TP, MemoryRecords(batch_around(b"garbage" * 9, attributes=codec)))
        with pytest.raises(
            UnreadableBatchError, match=r"readings/3 at or behind offset 101 cannot be read: ."
        ):
            part.take()
        assert not part

    def test_a_name_of_a_header_that_is_not_text_is_read_as_java_does(self) -> None:
        odd, plain = bytes([4, 0xC3, 0x28, 1]), bytes([4, 0x61, 0x62, 1])
        start = bytes([0x14, 0, 0, 0, 1, 1, 2])
        (batch,) = ColumnRecords(101, TP, MemoryRecords(batch_around(start + odd))).take()
        assert batch.record(0).headers == (("\ufffd(", None),)
        head = bytearray(Batch([wide(0), wide(1)]).to_bytes(101)[:BODY_AT])
        body = start + odd + bytes([0x14, 0, 0, 2, 1, 1, 2]) + plain
        struct.pack_into(">i", head, 8, len(head) + len(body) - 12)
        (batch,) = ColumnRecords(101, TP, MemoryRecords(with_crc(head + body))).take()
        assert [headers[0][0] for headers in batch.headers] == ["\ufffd(", "ab"]


class TestDecompression:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        decompression.install()

    @quick
    @given(rows(), st.sampled_from([GZIP, LZ4, ZSTD]), st.sampled_from([1, 7, 1000]))
    def test_it_gives_what_the_client_gives(self, made: list[Row], codec: int, chunk: int) -> None:
        plain = Batch(made).to_bytes(100)[BODY_AT:]
        packed = Batch(made, codec=codec).to_bytes(100)[BODY_AT:]
        decode = {
            GZIP: decompression.gzip_decode,
            LZ4: decompression.lz4_decode,
            ZSTD: decompression.zstd_decode,
        }[codec]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decompression, "_CHUNK_BYTES", chunk)
            if packed != plain:  # a small body is left as it is
                assert decode(packed) == plain

    @pytest.mark.parametrize("parser", [Fetcher.PartitionRecords, ColumnRecords], ids=["public", "seam"])
    @pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
    def test_a_bomb_is_given_up_before_it_fills_the_memory(
        self, codec: int, parser: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", 2 * 1024 * 1024)
        bomb = Batch([(0, START_MS, None, bytes(64 * 1024 * 1024), [])], codec=codec).to_bytes(101)
        good = Batch([wide(0)], codec=codec).to_bytes(100)
        tracemalloc.start()
        found = read(parser, good + bomb, 100, 10_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.error is (OversizedError if parser is Fetcher.PartitionRecords else CorruptRecordError)
        assert [record.offset for record in found.records] == [100]
        assert peak < 16 * 1024 * 1024

    def test_a_batch_as_large_as_the_limit_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = Batch([wide(n) for n in range(100)], codec=ZSTD).to_bytes(100)
        size = len(decompression.zstd_decode(raw[BODY_AT:]))
        for limit, error in ((size, None), (size - 1, CorruptRecordError)):
            monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", limit)
            assert read(ColumnRecords, raw, 100, 10_000).error is error

    def test_it_takes_the_place_of_the_clients(self) -> None:
        for module in (default_records, legacy_records):
            for name in ("gzip_decode", "lz4_decode", "zstd_decode"):
                if hasattr(module, name):
                    assert getattr(module, name) is getattr(decompression, name)


class TestGuessedEnds:
    @pytest.fixture
    def walked(self, monkeypatch: pytest.MonkeyPatch) -> list[Body]:
        """Producer batches of which each record was walked to."""
        bodies: list[Body] = []
        walk = record_set._walk_ends

        def noted(data: bytes, body: Body) -> Any:
            bodies.append(body)
            return walk(data, body)

        monkeypatch.setattr(record_set, "_walk_ends", noted)
        return bodies

    def test_wide_text_without_headers_is_not_walked(
        self, walked: list[Body], reads_by_client: list[int]
    ) -> None:
        batches = [Batch([wide(n) for n in range(500)], codec=codec) for codec in (NONE, ZSTD)]
        ours, _ = both(b"".join(log_of(batches)[0]))
        assert len(ours.records) == 1_000
        assert (walked, reads_by_client) == ([], [])

    @pytest.mark.parametrize(
        "value",
        [
            bytes(300),
            b"x" * 80 + b"\0ab\0" + b"y" * 80,
            b"\0\xff\xff\0" + b"\xff" * 90,
            b"x" * 80 + b"\0\xff\xff\0\xff\xff",
        ],
    )
    def test_zeros_in_a_value_are_no_ends(
        self, value: bytes, walked: list[Body], reads_by_client: list[int]
    ) -> None:
        row: Row = (1, START_MS, b"C", value, [])
        for made in ([wide(0), row, wide(2)], [wide(0), row], [row]):
            both(Batch([(k, *each[1:]) for k, each in enumerate(made)]).to_bytes(100))
        assert len(walked) == 3
        assert reads_by_client == []

    def test_as_many_ends_as_records_may_be_wrong_ones(self, walked: list[Body]) -> None:
        """One end lies in a value, and a record with a header does not end in a zero."""
        odd: Row = (1, START_MS + 1, None, b"x" * 70 + b"\0\xff\xff\0" + b"x" * 70, [("h", b"1")])
        ours, _ = both(Batch([wide(0), odd, wide(2)]).to_bytes(100))
        assert len(ours.records) == 3
        assert len(walked) == 1


class TestColumnRecords:
    def test_plain_batches_never_reach_the_clients_parser(self, reads_by_client: list[int]) -> None:
        batches = [
            Batch([wide(n, [("sent-at", b"1")]) for n in range(50)], codec=codec, producer_id=5)
            for codec in (NONE, GZIP, LZ4, ZSTD)
        ]
        ours, _ = both(b"".join(log_of(batches)[0]))
        assert len(ours.records) == 200
        assert reads_by_client == []

    def test_a_transaction_goes_to_the_clients_parser_and_what_came_before_does_not(
        self, reads_by_client: list[int]
    ) -> None:
        batches = [
            Batch([wide(n) for n in range(50)]),
            Batch([wide(0)], attributes=TRANSACTIONAL, producer_id=9),
        ]
        ours, _ = both(b"".join(log_of(batches)[0]))
        assert ours.takes == [50, 1]
        assert len(reads_by_client) == 1

    def test_small_batches_come_out_as_one_and_are_counted(self) -> None:
        raw = b"".join(log_of([Batch([wide(n) for n in range(10)]) for _ in range(30)])[0])
        part = ColumnRecords(100, TP, MemoryRecords(raw))
        first = join(list(part.take(250)))
        rest = join(list(part.take(250)))
        assert (len(first), first.num_producer_batches) == (250, 25)
        assert (len(rest), rest.num_producer_batches) == (50, 5)
        assert not part

    @quick
    @given(st.lists(plain, min_size=2, max_size=4))
    def test_joined_fetches_are_what_they_were_one_by_one(self, batches: list[Batch]) -> None:
        fetches: list[RecordBatch] = []
        for raw, offset in zip(*log_of(batches), strict=True):
            if some := ColumnRecords(offset, TP, MemoryRecords(raw)).take():
                fetches += some
        joined = to_records(join(fetches))
        assert joined == [record for fetch in fetches for record in to_records(fetch)]

    def test_a_position_in_the_middle_drops_the_records_before_it(self) -> None:
        raw = Batch([wide(n) for n in range(10)]).to_bytes(100)
        (batch,) = ColumnRecords(106, TP, MemoryRecords(raw)).take()
        assert batch.offset_M.tolist() == [106, 107, 108, 109]
        assert batch.keys[0] == b"C000006"
        assert batch.record(3).value == wide(9)[3]

    def test_the_next_offset_follows_what_was_handed_out(self) -> None:
        raw = Batch([wide(n) for n in range(10)], hole_behind=5).to_bytes(100)
        part = ColumnRecords(100, TP, MemoryRecords(raw))
        part.take(4)
        assert part.next_fetch_offset == 104
        part.take(100)
        assert part.next_fetch_offset == 115

    def test_after_an_error_it_is_done_for(self) -> None:
        damaged = bytearray(Batch([wide(0)]).to_bytes(100))
        damaged[-1] ^= 1
        part = ColumnRecords(100, TP, MemoryRecords(bytes(damaged)))
        with pytest.raises(CorruptRecordError):
            part.take()
        assert not part  # or else the fetcher would ask it for ever
        assert part.next_fetch_offset == 100

    def test_one_batch_is_read_once_though_it_is_handed_out_in_portions(self) -> None:
        drained = []
        raw = Batch([wide(n) for n in range(10)]).to_bytes(100)
        part = ColumnRecords(100, TP, MemoryRecords(raw), on_drain=drained.append)
        portions = [len(part.take(3)) for _ in range(4)]
        assert portions == [3, 3, 3, 1]
        assert drained == [part]
        assert part.records_read == 10


class TestHeaderColumn:
    @quick
    @given(rows())
    @example([wide(0, [("sent-at", None)]), wide(1, [])])
    @example([wide(0, [("sent-at", b"1"), ("x", None)]), wide(1, [("sent-at", b"2"), ("x", b"")])])
    def test_it_reads_as_a_list_of_headers(self, made: list[Row]) -> None:
        (batch,) = ColumnRecords(0, TP, MemoryRecords(Batch(made).to_bytes(0))).take()
        expected = [tuple(row[4]) for row in made]
        if batch.headers is None:
            assert not any(expected)
            return
        assert list(batch.headers) == expected
        if max(map(len, expected)) > MAX_HEADERS:
            return
        assert isinstance(batch.headers, HeaderColumn)
        assert [batch.headers[index] for index in range(len(made))] == expected
        assert list(batch.headers[1:]) == expected[1:]
        names = {tuple(name for name, _ in headers) for headers in expected}
        if (uniform := batch.headers.uniform_names()) is not None:
            assert names == {uniform}
            for name in uniform:
                values = batch.headers.values_of(name)
                assert values is not None
                assert list(values) == [next(value for key, value in row if key == name) for row in expected]

    def test_headers_that_all_records_have_are_told(self) -> None:
        some: Headers = [("sent-at", b"1763796000000"), ("content-type", b"a")]
        (batch,) = ColumnRecords(
            0, TP, MemoryRecords(Batch([wide(n, some) for n in range(3)]).to_bytes(0))
        ).take()
        assert isinstance(batch.headers, HeaderColumn)
        assert batch.headers.uniform_names() == ("sent-at", "content-type")
        values = batch.headers.values_of("sent-at")
        assert values is not None
        assert (numbers := values.digits(13)) is not None
        assert numbers.tolist() == [START_MS] * 3
        assert batch.headers.values_of("other") is None


sent = st.sampled_from([b"%d" % START_MS, b"%d" % (START_MS + 7), b"99", b"17637960000x0", None])


@quick
@given(st.lists(st.sampled_from(["sent-at", "other", "content-type"]), max_size=3), st.data())
def test_columns_and_lists_of_headers_mean_the_same_to_the_codec(
    names: list[str], data: st.DataObject
) -> None:
    made = [wide(number, [(name, data.draw(sent)) for name in names]) for number in range(3)]
    (batch,) = ColumnRecords(0, TP, MemoryRecords(Batch(made).to_bytes(0))).take()
    one_by_one = RecordBatch.of(to_records(batch))
    (time_M, refused), (expected_M, expected) = log_times(batch), log_times(one_by_one)
    assert time_M.tolist() == expected_M.tolist()
    assert [(index, exc.reason) for index, exc in refused] == [(index, exc.reason) for index, exc in expected]


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        ([b"0123", b"9999"], [123, 9999]),
        ([b"0123", b"99999"], None),
        ([b"0123", b"-999"], None),
        ([b"0123", b"99:9"], None),
        ([b"0123", None], None),
    ],
)
def test_digits(texts: list[bytes | None], numbers: list[int] | None) -> None:
    row_of = [(number, START_MS, text, None, []) for number, text in enumerate(texts)]
    (batch,) = ColumnRecords(0, TP, MemoryRecords(Batch(row_of).to_bytes(0))).take()
    assert isinstance(batch.keys, Slices)
    found = batch.keys.digits(4)
    assert (None if found is None else found.tolist()) == numbers


def test_the_seam_is_on_only_for_tested_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seam.is_tested()  # a new client: run this file with it, then add its version
    monkeypatch.setattr(kafka, "__version__", "3.0.13")
    assert not seam.is_tested()
