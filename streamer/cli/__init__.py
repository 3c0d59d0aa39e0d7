"""Command line of the streamer. Results on stdout, logs and progress on stderr."""

from __future__ import annotations

import typer

from streamer import process
from streamer.cli import breaker, dead_letters
from streamer.cli.backfilling import backfill
from streamer.cli.feeding import replay, simulate
from streamer.cli.holding import holds
from streamer.cli.indexing import index
from streamer.cli.ledger import ledger
from streamer.cli.running import run, status

app = typer.Typer(
    help="Collects casting sensor streams from Kafka into windowed, labelled data sets in Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, status, ledger, index, holds, backfill, simulate, replay):
    app.command()(command)
app.add_typer(dead_letters.app, name="dead-letters", no_args_is_help=True)
app.add_typer(breaker.app, name="breaker", no_args_is_help=True)


def main() -> None:
    """Entry point."""
    process.main(app)
