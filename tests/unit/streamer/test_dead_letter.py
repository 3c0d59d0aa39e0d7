"""What a dead letter says, written by the product's own writer and read back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatchBuilder

from streamer.dead_letters import DeadLetter, Origin
from streamer.dead_letters.letter import read_letter
from streamer.dead_letters.writer import MAX_RECORD_BYTES, pack
from streamer.errors import ConfigError, RecordError
from streamer.records import Headers, Record

ERROR = RecordError("bad_json", "not JSON", stage="decode")
AT = 1_763_796_000_000


def record(value: bytes | None = b"{", key: bytes | None = b"C1", headers: Headers = ()) -> Record:
    return Record("casting.readings", 2, 1234, AT, key, value, headers)


def written(record: Record, error: RecordError = ERROR) -> Record:
    """The dead letter as it would lie in its topic."""
    key, value, headers = pack(record, error, "casting")
    assert all(isinstance(each, bytes) for _, each in headers)  # the client takes no null
    return Record("dead", 0, 0, AT + 5, key, value, tuple(headers))


def letter_of(record: Record, error: RecordError = ERROR) -> DeadLetter:
    letter = read_letter(written(record, error))
    assert letter
    return letter


def test_it_says_what_was_wrong_with_which_record() -> None:
    letter = letter_of(record())
    assert (letter.origin, letter.reason, letter.stage) == (
        Origin("casting.readings", 2, 1234),
        "bad_json",
        "decode",
    )
    assert letter.message == "bad_json: not JSON"
    assert (letter.logged_ms, letter.at_ms, letter.namespace) == (AT, AT + 5, "casting")
    assert (letter.num_attempts, letter.first_origin, letter.cut) == (1, None, None)


names = st.one_of(
    st.text(max_size=8), st.sampled_from(["__connect.errors.topic", "sent-at", "casting.errors.reason"])
)
headers = st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=8))), max_size=6).map(tuple)


@given(headers, st.one_of(st.none(), st.binary(max_size=20)), st.one_of(st.none(), st.binary(max_size=20)))
def test_the_record_is_kept_as_it_came(headers: Headers, key: bytes | None, value: bytes | None) -> None:
    letter = letter_of(record(value, key, headers))
    assert (letter.key, letter.value, letter.headers) == (key, value, headers)
    assert letter.reason == "bad_json"


def test_it_is_sent_again_with_its_log_time_and_where_it_came_from() -> None:
    letter = letter_of(record(headers=(("content-type", b"application/json"), ("trace", None))))
    assert letter.again() == [
        ("content-type", b"application/json"),
        ("sent-at", b"%d" % AT),
        ("casting.replay.origin", b"casting.readings/2@1234"),
        ("casting.replay.number", b"1"),
    ]


@pytest.mark.parametrize("wild", [-1, 1_763_796_000, 4_102_444_800_001, 2**63 - 1])
def test_a_wild_timestamp_is_not_its_log_time(wild: int) -> None:
    letter = letter_of(replace(record(), timestamp_ms=wild))
    assert "sent-at" not in dict(letter.again())


def test_a_log_time_that_it_had_is_kept() -> None:
    letter = letter_of(record(headers=(("sent-at", b"17"),)))
    assert [each for each in letter.again() if each[0] == "sent-at"] == [("sent-at", b"17")]


def test_a_record_that_fails_again_says_where_it_came_from_first() -> None:
    first = letter_of(record())
    second = letter_of(Record("casting.readings", 2, 2000, AT + 9, b"C1", b"{", tuple(first.again())))
    assert (second.origin.offset, second.num_attempts) == (2000, 2)
    assert second.first_origin == Origin("casting.readings", 2, 1234)
    third = dict(second.again())
    assert third["casting.replay.origin"] == b"casting.readings/2@1234"
    assert third["casting.replay.number"] == b"2"
    assert third["sent-at"] == b"%d" % AT
    assert len(third) == len(second.again())


@pytest.mark.parametrize(
    ("large", "said"),
    [
        (record(value=b"v" * MAX_RECORD_BYTES), "value.bytes 1000000"),
        (record(headers=(("h", b"h" * MAX_RECORD_BYTES),)), "headers.dropped 1"),
        (record(key=b"k" * MAX_RECORD_BYTES), "value.bytes 1, key.bytes 1000000"),
    ],
)
def test_what_makes_it_too_large_is_cut_and_it_says_so(large: Record, said: str) -> None:
    dead = written(large)
    size = len(dead.key or b"") + len(dead.value or b"")
    size += sum(len(name) + len(value or b"") for name, value in dead.headers)
    assert size <= MAX_RECORD_BYTES + 200
    letter = read_letter(dead)
    assert letter
    assert letter.cut == said
    assert letter.reason == "bad_json"


@pytest.mark.parametrize(
    ("header", "num", "said"),
    [
        (("h", b""), 50_000, "value.bytes 1000000"),
        (("h", b""), 200_000, "value.bytes 1000000, headers.dropped 200000"),
        (("h", None), 200_000, "value.bytes 1000000, headers.dropped 200000"),
    ],
)
def test_a_crowd_of_headers_makes_no_record_that_a_broker_refuses(
    header: tuple[str, bytes | None], num: int, said: str
) -> None:
    dead = written(record(value=b"v" * MAX_RECORD_BYTES, headers=(header,) * num))
    batch = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=False, producer_id=1, producer_epoch=0, base_sequence=0,
        batch_size=1,
    )  # fmt: skip
    batch.append(0, dead.timestamp_ms, dead.key, dead.value, dead.headers)
    assert len(batch.build()) <= 1_048_588  # what brokers take unless they are told otherwise
    letter = read_letter(dead)
    assert letter
    assert letter.cut == said


def test_a_long_message_is_cut_between_bytes_and_still_read() -> None:
    letter = letter_of(record(), RecordError("bad_value", "°" * 900))
    assert letter.message.startswith("bad_value: °°°")
    assert len(letter.message) < 600


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("__connect.errors.topic", b"t"),),
        (
            ("__connect.errors.topic", b"t"),
            ("__connect.errors.partition", b"x"),
            ("__connect.errors.offset", b"1"),
        ),
        (("__connect.errors.topic", None), ("__connect.errors.partition", None)),
    ],
)
def test_records_that_do_not_say_where_they_came_from_are_none(headers: Headers) -> None:
    assert read_letter(record(headers=headers)) is None


def test_a_letter_of_kafka_connect_is_read_as_well() -> None:
    theirs = (
        ("__connect.errors.topic", b"casting.labels"),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", b"3"),
        ("__connect.errors.exception.message", b"bad_time: ts is 0"),
    )
    letter = read_letter(record(headers=theirs))
    assert letter
    assert (letter.origin, letter.reason, letter.namespace) == (
        Origin("casting.labels", 0, 3),
        "bad_time",
        None,
    )


def test_an_origin_is_read_as_it_is_written() -> None:
    origin = Origin("casting.readings", 2, 1234)
    assert Origin.parse(str(origin)) == origin


@pytest.mark.parametrize(
    "text", ["", "casting.readings/2", "casting.readings@3", "a b/1@2", "t/1@-2", "t/1@2\n"]
)
def test_anything_else_is_no_origin(text: str) -> None:
    with pytest.raises(ConfigError, match="expected topic/partition@offset"):
        Origin.parse(text)
