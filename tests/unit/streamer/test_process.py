"""How a command line ends."""

from __future__ import annotations

import subprocess
import sys

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
