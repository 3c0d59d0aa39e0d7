"""One writer a model name, on any host."""

from streamer.store.lease.holder import LeaseHolder, LeaseTakenError
from streamer.store.lease.lease import Lease

__all__ = ["Lease", "LeaseHolder", "LeaseTakenError"]
