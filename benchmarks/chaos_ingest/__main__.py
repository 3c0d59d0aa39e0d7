"""The command line: `python -m benchmarks.chaos_ingest [--kills N] [--seed N] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from benchmarks.chaos_ingest import __doc__ as question
from benchmarks.chaos_ingest.run import broken_variants, chaos, full_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints, and returns 1 unless everything holds."""
    parser = argparse.ArgumentParser(prog="benchmarks.chaos_ingest", description=question)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--kills", type=int, default=50, help="at least 8")
    parser.add_argument("--seed", type=int, default=1, help="of the log and of the deaths")
    parser.add_argument("--assignment", choices=("range", "cooperative-sticky"), default="range")
    options = parser.parse_args(arguments)
    if options.kills < 8:
        parser.error("--kills must be at least 8: two for each point, and some at random")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    result = chaos(full_size(options.kills, options.seed, options.assignment), say)
    result["broken_variants"] = broken_variants(say)
    result["ok"] = (
        result["hash_equal"]
        and result["ledger_balanced"]
        and result["troubles_done"]
        and result["kills"] >= options.kills
        and all(result["broken_variants"].values())
    )
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
