"""How one process asks another for a cycle."""

from streamer.store.requests.cycle_requests import CycleRequests

__all__ = ["CycleRequests"]
