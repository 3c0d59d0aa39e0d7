"""How fast do readings become windows in Redis, beside peers that do the same? See `docs/benchmarks.md`."""
