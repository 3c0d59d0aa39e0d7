"""`streamer ledger`: what became of every record and every step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamer.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, read_settings
from streamer.ledger import Ledger, RecordLedger, StepLedger, read_ledger


def ledger(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a moment in which nothing moves.", metavar="S")
    ] = 10.0,
    as_json: JsonOption = False,
) -> int:
    """Accounts for every record and every step; ends with 1 if something is missing or counted twice."""
    read = read_ledger(read_settings(config), patience_s=patience)
    if as_json:
        typer.echo(json.dumps(read.as_dict()))
    else:
        _tell(read)
    return 1 if read.faults else 0


def _tell(read: Ledger) -> None:
    # A narrow terminal breaks the line rather than the figure.
    console = Console(width=max(160, Console().width))
    names = [str(each.partition) for each in read.partitions]
    console.print(_table("records", RecordLedger, names, [each.records for each in read.partitions]))
    console.print()
    with_steps = [each for each in read.partitions if each.steps.carried or each.steps.judged]
    names = [str(each.partition) for each in with_steps]
    console.print(_table("steps", StepLedger, names, [each.steps for each in with_steps]))
    console.print()
    for line in _notes(read):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(
    title: str,
    kind: type[RecordLedger | StepLedger],
    names: Sequence[str],
    rows: Sequence[RecordLedger | StepLedger],
) -> Table:
    """One row a partition, and their sum; the first figure is that which the others make up."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold")
    table.add_column(title, no_wrap=True)
    terms = [field.name for field in fields(kind)]
    for term in terms:
        table.add_column(term.replace("_", " "), justify="right")
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *(f"{getattr(row, term):,}" for term in terms))
    if len(rows) > 1:
        table.add_section()
        sums = (sum(getattr(row, term) for row in rows) for term in terms)
        table.add_row("together", *(f"{number:,}" for number in sums), style="bold")
    return table


def _notes(read: Ledger) -> list[str]:
    lines = list(read.faults)
    if not read.dead_letters_are_whole:
        lines.append(
            "retention has cut the dead-letter topic: dead lettered is what was counted with the positions"
        )
    if not read.is_calm:
        lines.append(
            "members were at work all the time: differences of a batch in flight are no fault, and not told"
        )
    elif not read.faults:
        lines.append("everything is accounted for")
    elif any(each.records.pending for each in read.partitions):
        lines.append(
            "a member that died in the middle of a batch shows like this until its partition is read on"
        )
    return lines
