"""How a command line ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from streamer.process import StopRequest

COUNTS = """
import typer
from streamer.process import main
app = typer.Typer()
@app.command()
def count() -> None:
    for number in range(100_000):
        print(number)
main(app)
"""


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COUNTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as counting:
        assert counting.stdout is not None
        assert counting.stderr is not None
        assert counting.stdout.readline() == b"0\n"
        counting.stdout.close()
        assert (counting.wait(30), counting.stderr.read()) == (0, b"")


# A signal before each line that runs while the main thread waits, one after the other.
STOPPED_ANYWHERE = """
import os, signal, sys
from streamer.process import StopRequest

class Tracer:
    def __init__(self, line):
        self.left = line

    def __call__(self, frame, event, arg):
        self.left -= event == "line"
        if self.left == 0 and event == "line":
            os.kill(os.getpid(), signal.SIGTERM)
        return self

tracer, line = Tracer(0), 0
while tracer.left <= 0:
    line += 1
    stop, tracer = StopRequest(), Tracer(line)
    stop.install()
    sys.settrace(tracer)
    stop.wait(0.01)
    sys.settrace(None)
print(line, flush=True)
"""


def test_a_signal_at_any_moment_of_a_wait_is_heard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_ANYWHERE], timeout=60, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 3


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = StopRequest()
    stop.install()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_stop_ends_every_wait_and_a_second_signal_the_process(stop: StopRequest) -> None:
    assert not stop.wait(0.01)
    assert not stop()
    beside = threading.Thread(target=stop.wait, args=(60,))
    beside.start()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    started = time.monotonic()
    assert stop.wait(60)
    beside.join(30)
    assert not beside.is_alive()
    assert time.monotonic() - started < 30
    assert stop.wait(60)
    assert stop()
    assert stop.exit_code() == 143
    with pytest.raises(SystemExit, match="130"):
        signal.raise_signal(signal.SIGINT)
