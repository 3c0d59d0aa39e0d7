"""The whole loop on one machine: `python -m demo`, or `make demo`."""
