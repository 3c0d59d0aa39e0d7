"""Does the data set survive kills, cuts and restarts? `python -m benchmarks.chaos_ingest --kills 50 --json`"""
