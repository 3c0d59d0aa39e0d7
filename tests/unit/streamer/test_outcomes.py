"""The lists of words hold what the code says of records, no more and no less. mypy looks at kinds in variables."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from streamer.open_rows import OUTCOMES
from streamer.outcomes import REASONS, RECORD_KINDS
from streamer.store.counts import RECORDS, STEPS

STREAMER = Path(__file__).parents[3] / "streamer"


def nodes(*, but: str = "") -> Iterator[ast.AST]:
    """Every node of the streamer's code, a package left out."""
    for path in STREAMER.rglob("*.py"):
        if path.parent.name != but:
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8"), path))


def test_the_reasons_are_those_that_the_code_gives() -> None:
    given = [
        node.args[0] if node.args else node
        for node in nodes(but="kafka")  # what a producer refuses never came in
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RecordError"
    ]
    unclear = [ast.unparse(node) for node in given if not isinstance(node, ast.Constant)]
    assert unclear == [], "a reason stands in the call, so that it can be found"
    assert {node.value for node in given if isinstance(node, ast.Constant)} == set(REASONS)
    assert len(set(REASONS)) == len(REASONS)


def test_the_kinds_of_records_are_those_that_the_code_counts() -> None:
    counted = {
        node.slice.value
        for node in nodes()
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "records"
        and isinstance(node.slice, ast.Constant)
    }
    assert {"label", "redelivered", "dead_lettered"} <= counted
    assert counted <= set(RECORD_KINDS)


def test_the_ledger_knows_the_same_kinds_and_outcomes() -> None:
    assert {*RECORDS, "label", "redelivered", "dead_lettered"} == set(RECORD_KINDS)
    assert {*STEPS} == {"carried", *OUTCOMES}
