"""The command line: `python -m benchmarks.chaos_train [--kills N] [--seed N] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from benchmarks.chaos_train import __doc__ as question
from benchmarks.chaos_train.run import Size, chaos, holds
from benchmarks.chaos_train.site import BROKERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints, and returns 1 unless everything holds."""
    parser = argparse.ArgumentParser(prog="benchmarks.chaos_train", description=question)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the order of the points")
    parser.add_argument("--broker", choices=list(BROKERS), default="embedded", help="apache needs Java 17")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    result = chaos(Size(options.kills, options.seed), say, options.broker)
    result["ok"] = holds(result)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
