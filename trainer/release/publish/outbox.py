"""Sends what was decided, once it is sure that nobody else has told of later versions."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from trainer.release.publish.head import Head, adopt, require_abreast
from trainer.release.publish.publisher import Flushed, Publisher
from trainer.release.registry.registry import Registry

log = structlog.get_logger()


class Outbox:
    """The outbox of a registry on its way to Kafka.

    Before the first event of a process, and before each model, the ends of both topics are read: a registry that
    they are ahead of publishes nothing.

    Attributes:
        last_cycle: The highest cycle that the topics know of, as they were last read.

    Args:
        read_head: What the topics know; raises BrokerUnavailableError.
        ensure: Makes sure, before each event, that this trainer is the one that writes.
        adopts: Go on behind what the topics know instead of refusing.
    """

    def __init__(
        self,
        registry: Registry,
        publisher: Publisher,
        *,
        read_head: Callable[[], Head],
        ensure: Callable[[], object],
        adopts: bool = False,
    ) -> None:
        self._registry, self._publisher = registry, publisher
        self._read_head, self._ensure, self._adopts = read_head, ensure, adopts
        self._is_compared = False
        self.last_cycle = 0

    def compare(self) -> None:
        """Compares the registry with the topics.

        Raises:
            RegistryBehindError: They know of later versions.
            BrokerUnavailableError: They cannot be read now.
        """
        head = self._read_head()
        if self._adopts:
            adopt(self._registry, head)
        require_abreast(self._registry, head)
        self._is_compared, self.last_cycle = True, head.cycle

    def flush(self) -> Flushed:
        """Sends what is not yet acknowledged.

        Raises:
            RegistryBehindError: The topics know of later versions; nothing was sent.
            LeaseTakenError: Another trainer writes for this model name; the rest was not sent.
            BrokerUnavailableError: The rest stays in the outbox.
        """
        waiting = [event for event in self._registry.outbox() if not self._publisher.is_put_off(event)]
        if any(event.update_ce_id or not self._is_compared for event in waiting):
            self.compare()
        flushed = self._publisher.flush_outbox(self._registry, before_each=self._ensure)
        for event in flushed.sent:
            log.info("published", what=event.kind, version=event.version)
        return flushed
