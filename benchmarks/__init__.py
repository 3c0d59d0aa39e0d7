"""One file a question; run one with `python -m benchmarks.NAME`."""
