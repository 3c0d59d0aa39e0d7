"""What the answers of a broker say of the ends of its logs, in the client's own types."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import kafka
import pytest
from kafka.protocol.consumer import FetchRequest, FetchResponse

from streamer.kafka.quiet import MAX_ANSWER_S, Quiet, QuietLogs

A, B = kafka.TopicPartition("readings", 0), kafka.TopicPartition("readings", 1)
Part = FetchResponse.FetchableTopicResponse.PartitionData


class Asking:
    """The three methods by which the client's fetcher asks brokers and is answered, one broker to a number."""

    def __init__(self) -> None:
        self.offsets = {A: 10, B: 20}
        self.session_epoch = 0
        self.num_handled = 0

    def _create_fetch_requests(self) -> dict[int, Any]:
        request = FetchRequest(session_epoch=self.session_epoch)
        return {0: (request, dict(self.offsets))}

    def _handle_fetch_response(
        self,
        node_id: int,  # noqa: ARG002 - as the client names it
        fetch_offsets: Any,
        send_time: float,  # noqa: ARG002
        response: Any,  # noqa: ARG002
    ) -> None:
        self.num_handled += fetch_offsets == self.offsets

    def _handle_fetch_error(self, node_id: int, exception: Any) -> None:
        """The client tries again."""


class Line:
    """A client at work; each `turn` asks at a time and gets an answer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.fetcher = Asking()
        self.quiet = QuietLogs(lambda: self.now)
        assert self.quiet.watch(self.fetcher)

    def ask(self, at: float) -> Any:
        self.now = at
        ((_, offsets),) = self.fetcher._create_fetch_requests().values()
        self.now += 1000  # whatever comes between, it does not count
        return offsets

    def turn(self, at: float, *parts: tuple[Any, Any], took_s: float = 0.0, **response: Any) -> None:
        offsets = self.ask(at)
        topics = [
            FetchResponse.FetchableTopicResponse(topic=tp.topic, partitions=[part]) for tp, part in parts
        ]
        options = {"throttle_time_ms": 0, "error_code": 0, "session_id": 7, **response}
        answer = FetchResponse(responses=topics, **options)
        self.fetcher._handle_fetch_response(0, offsets, time.monotonic() - took_s, answer)
        assert self.fetcher.num_handled > 0


def part(tp: Any, end: int, records: bytes = b"", error_code: int = 0) -> tuple[Any, Any]:
    return tp, Part(partition_index=tp.partition, high_watermark=end, records=records, error_code=error_code)


@pytest.fixture
def line() -> Iterator[Line]:
    """Both partitions are quiet from 1 s until 2 s; what does not change is left out from now on."""
    line = Line()
    line.turn(1, part(A, 10), part(B, 20))
    line.fetcher.session_epoch = 1
    line.turn(2)
    assert line.quiet.get(A) == Quiet(10, 1, 2)
    assert line.quiet.get(B) == Quiet(20, 1, 2)
    yield line
    # From here on it is quiet anew, or still.
    line.turn(8, part(A, 10), part(B, 20))
    quiet = line.quiet.get(A)
    assert quiet is not None
    assert quiet.until == 8


def test_an_answer_counts_for_the_moment_at_which_it_was_asked_for(line: Line) -> None:
    line.ask(60)
    assert line.quiet.get(A) == Quiet(10, 1, 2)
    line.turn(70)
    assert line.quiet.get(A) == Quiet(10, 1, 70)


def test_records_end_the_quiet_of_their_partition_alone(line: Line) -> None:
    line.turn(3, part(A, 11, b"a batch"))
    assert line.quiet.get(A) is None
    line.fetcher.offsets[A] = 11
    line.turn(4)
    assert line.quiet.get(A) == Quiet(11, 4, 4)
    assert line.quiet.get(B) == Quiet(20, 1, 4)
    line.fetcher.offsets[A] = 10


def test_an_answer_that_had_no_room_for_records_says_that_there_are_some(line: Line) -> None:
    """The end has moved on; the next answer says nothing of it, as it has not moved again."""
    line.turn(3, part(A, 12))
    assert line.quiet.get(A) is None
    line.turn(4)
    assert line.quiet.get(A) is None
    assert line.quiet.get(B) == Quiet(20, 1, 4)


@pytest.mark.parametrize("took_s", [0.0, MAX_ANSWER_S + 1])
def test_a_broker_that_took_long_or_failed_starts_the_wait_anew(line: Line, took_s: float) -> None:
    if took_s:
        line.turn(3, took_s=took_s)
    else:
        line.ask(3)
        line.fetcher._handle_fetch_error(0, ConnectionError("gone"))
    assert line.quiet.get(A) is line.quiet.get(B) is None
    line.turn(4)
    assert line.quiet.get(A) == Quiet(10, 4, 4)


def test_an_error_of_one_partition_starts_its_wait_anew(line: Line) -> None:
    line.turn(3, part(A, 10, error_code=6))
    assert line.quiet.get(A) is None
    assert line.quiet.get(B) == Quiet(20, 1, 3)


@pytest.mark.parametrize(
    "response", [{"throttle_time_ms": 5}, {"error_code": 70}], ids=["throttled", "session over"]
)
def test_an_answer_about_no_log_says_nothing(line: Line, response: dict[str, int]) -> None:
    line.turn(3, **response)
    assert line.quiet.get(A) == Quiet(10, 1, 2)


def test_without_a_session_what_is_left_out_is_not_known(line: Line) -> None:
    line.fetcher.session_epoch = 0
    line.turn(3, part(B, 20), session_id=0)
    assert line.quiet.get(A) == Quiet(10, 1, 2)
    assert line.quiet.get(B) == Quiet(20, 1, 3)


def test_a_fetcher_that_works_in_another_way_is_left_alone() -> None:
    class Other(Asking):
        def _handle_fetch_error(self, node_id: int, exception: Any, retry: bool = False) -> None:
            """One argument more."""

    other = Other()
    assert not QuietLogs(time.monotonic).watch(other)
    assert not vars(other).keys() & {
        "_create_fetch_requests",
        "_handle_fetch_response",
        "_handle_fetch_error",
    }
    assert not QuietLogs(time.monotonic).watch(object())
