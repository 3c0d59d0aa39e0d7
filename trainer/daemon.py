"""The trainer's loop: wait for a trigger, run a cycle, publish what was decided."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from streamer.errors import BrokerUnavailableError, CastingError, UnavailableError
from streamer.http import Health
from streamer.process import StopRequest
from streamer.store.reading import WindowReader
from streamer.store.requests import CycleRequests
from trainer.config import TrainerSettings
from trainer.cycle.decide import warn_if_behind
from trainer.cycle.journal import CycleJournal
from trainer.cycle.phases import WriterLease
from trainer.cycle.result import CycleResult
from trainer.cycle.runner import CycleRunner
from trainer.cycle.state import State
from trainer.errors import (
    AttemptFailedError,
    CycleStoppedError,
    DiskUnavailableError,
    InputsChangedError,
    NotEnoughDataError,
)
from trainer.metrics import TrainerMetrics
from trainer.release.publish.outbox import Outbox
from trainer.release.registry.registry import Registry
from trainer.triggers import Trigger, due

log = structlog.get_logger()

# After a disk that takes nothing, or an attempt that failed, the loop waits twice as long each time, up to this.
# Smaller: what fails costs more. Larger: a disk that was mended is noticed later.
MAX_WAIT_S = 300.0


class TrainerDaemon:
    """Runs cycles for one model; it holds the registry's lock and the lease, so there is one of it.

    Args:
        open_reader: Opens the namespace; raises NotEnoughDataError while no streamer has written to it.
        now: The clock, timezone-aware.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        *,
        open_reader: Callable[[], WindowReader],
        registry: Registry,
        journal: CycleJournal,
        runner: CycleRunner,
        outbox: Outbox,
        lease: WriterLease,
        requests: CycleRequests,
        metrics: TrainerMetrics,
        health: Health,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._open_reader = open_reader
        self._registry, self._journal, self._runner = registry, journal, runner
        self._outbox, self._lease, self._requests = outbox, lease, requests
        self._metrics, self._health, self._now = metrics, health, now
        self._started_at = now()
        self._due_since: datetime | None = None
        self._tried_arrival = -1  # up to here the windows were not enough, and nothing has come since
        self._answers: dict[str, bytes] = {}  # by request, not yet in Redis
        self._last_said = ""
        self._away: dict[str, str] = {}  # what does not answer, as it was said
        self._wait_s = settings.triggers.poll_s

    def run(self, stop: StopRequest) -> None:
        """Runs until stopped.

        Raises:
            RegistryError: The registry cannot be used, or is behind the topics.
            LeaseTakenError: Another trainer writes for this model name.
        """
        champion = self._registry.champion_version()
        if champion is not None:
            warn_if_behind(self._registry.manifest(champion), decision="promoted")
        self.compare()
        self._health.ready()
        self._observe()
        while not stop():
            self._health.beat()
            self._turn()
            stop.wait(self._wait_s)

    def run_once(self) -> CycleResult | None:
        """Publishes what is left from before, then runs a cycle if one is in progress, due, or asked for.

        Raises:
            UnavailableError: Redis or the disk does not answer; nothing is lost.
            NotEnoughDataError: A cycle is due, but the windows do not suffice yet.
            AttemptFailedError: The cycle is tried again.
        """
        self._lease.ensure()
        self._send_answers()
        self._runner.settle()
        self.publish()
        asked = self._requests.pending_all()
        try:
            reader = self._open_reader()
            trigger = "manual" if asked else self._due(reader)
            if trigger is None and not self._goes_on():
                return None
            result = self.run_cycle(reader, trigger or "interval")
        except (NotEnoughDataError, InputsChangedError) as exc:
            self._answer(asked, {"error": str(exc)})
            raise
        self._answer(asked, self._told(result))
        return result

    def run_cycle(self, reader: WindowReader, trigger: Trigger) -> CycleResult | None:
        """Runs the cycle in progress, or a new one.

        Returns:
            What came of it; None if it failed, which is logged and counted, and the champion stays.

        Raises:
            UnavailableError: Redis or the disk does not answer; the cycle goes on later.
            NotEnoughDataError: The windows do not suffice yet.
            AttemptFailedError: It is tried again.
        """
        self._metrics.training.set(1)
        arrival = reader.last_arrival()  # what comes while it looks may be what is missing
        try:
            result = self._runner.run(reader, trigger)
        except NotEnoughDataError:
            self._due_since = None
            if self._state.in_progress is not None:
                self._tried_arrival = arrival
            if trigger == "manual":
                self._runner.abandon("asked for, and the windows did not suffice")
            raise
        finally:
            self._metrics.training.set(0)
        self._due_since, self._last_said = None, ""
        self.publish()
        return result

    def publish(self) -> None:
        """Sends what was decided and is not yet acknowledged; while Kafka is away it waits, and all else goes on."""
        try:
            flushed = self._outbox.flush()
        except BrokerUnavailableError as exc:
            self._miss("kafka", exc)
            return
        finally:
            self._take_numbers_up()
        self._metrics.refused_events.set(flushed.num_refused)
        if flushed.sent:
            self._reached("kafka")
        cycle = self._state.cycle
        if cycle is not None and cycle.phase == "decided" and not self._registry.outbox():
            self._reached("kafka")
            self._journal.note(self._state.moved(cycle.published()))

    @property
    def _state(self) -> State:
        return self._journal.state

    def _turn(self) -> None:
        """One turn of the loop, whatever comes of it."""
        try:
            self.run_once()
            self._works()
        except UnavailableError as exc:
            self._cannot_work(exc)
        except NotEnoughDataError as exc:
            self._works()
            self._say("waiting", str(exc))
        except InputsChangedError as exc:
            self._refuses(exc)
        except CycleStoppedError as exc:
            log.info("stopped in training", reason=str(exc))
        except AttemptFailedError as exc:
            log.error("attempt failed", error=str(exc), kind=type(exc.__cause__).__name__)  # noqa: TRY400
            self._reached("redis", "disk")
            self._health.ready()
            self._wait_longer()
        try:
            self._observe()
        except DiskUnavailableError as exc:
            self._cannot_work(exc)

    def compare(self) -> None:
        """Holds the registry against the topics; while Kafka is away, that is done before the first event goes."""
        try:
            self._outbox.compare()
        except BrokerUnavailableError as exc:
            self._miss("kafka", exc)
        self._take_numbers_up()

    def _take_numbers_up(self) -> None:
        """No cycle bears a number that the topics know of."""
        if self._outbox.last_cycle > self._state.last_number:
            self._journal.note(self._state.numbered_from(self._outbox.last_cycle))

    def _goes_on(self) -> bool:
        """Whether the cycle in progress can go on: it has its windows, or was cut off while it chose them."""
        cycle = self._state.in_progress
        return cycle is not None and (cycle.phase != "waiting" or cycle.attempts > 0)

    def _due(self, reader: WindowReader) -> Trigger | None:
        state, configuration = self._state, self._runner.configuration
        news = reader.num_labelled_since(self._runner.news_after(reader))
        self._metrics.new_windows.set(news)
        if reader.last_arrival() == self._tried_arrival:
            return None
        until = state.waits_until(configuration)
        if until is not None and self._now() < until:
            return None
        since = self._now() - (state.decided_at or self._started_at)
        trigger = due(self._settings.triggers, num_new_windows=news, since_last_s=since.total_seconds())
        if trigger is None and news > 0 and (state.failing_since or state.in_progress):
            trigger = "interval"  # it was due before it failed, or before windows were found missing
        self._due_since = None if trigger is None else self._due_since or self._now()
        return trigger

    def _told(self, result: CycleResult | None) -> dict[str, object]:
        if result is not None:
            return {"result": result.model_dump(mode="json")}
        cycle = self._state.cycle
        return {"error": "; ".join(cycle.reasons) if cycle else "the cycle failed"}

    def _answer(self, asked: list[str], told: dict[str, object]) -> None:
        self._answers |= {request_id: json.dumps(told).encode() for request_id in asked}
        self._send_answers()

    def _send_answers(self) -> None:
        """Sends answers, those first that an outage of Redis has held up."""
        for request_id, payload in list(self._answers.items()):
            self._requests.answer(request_id, payload)
            del self._answers[request_id]

    # What is said, and how long it waits

    def _works(self) -> None:
        """Redis, the lease and the disk are there."""
        self._reached("redis", "disk")
        self._wait_s = self._settings.triggers.poll_s
        self._health.ready()

    def _cannot_work(self, exc: UnavailableError) -> None:
        is_disk = isinstance(exc, DiskUnavailableError)
        self._miss("disk" if is_disk else "redis", exc)
        self._health.not_ready(str(exc))
        if is_disk:
            self._metrics.write_failures.inc()
            self._wait_longer()

    def _refuses(self, exc: InputsChangedError) -> None:
        if str(exc) != self._last_said:
            self._metrics.failures.labels(type(exc).__name__).inc()
        self._say("refused to train", str(exc))
        self._health.not_ready(str(exc))

    def _wait_longer(self) -> None:
        self._wait_s = max(self._settings.triggers.poll_s, min(2 * self._wait_s, MAX_WAIT_S))

    def _miss(self, server: str, exc: CastingError) -> None:
        """A server did not answer: said once an outage, however it is worded from call to call."""
        if server not in self._away:
            self._away[server] = str(exc)
            log.warning("waiting", server=server, error=str(exc))

    def _reached(self, *servers: str) -> None:
        for server in servers:
            if self._away.pop(server, None) is not None:
                log.info("recovered", server=server)

    def _say(self, event: str, message: str) -> None:
        """Logs a state once, not at every turn."""
        if message != self._last_said:
            log.warning(event, error=message)
            self._last_said = message

    def _observe(self) -> None:
        self._metrics.unpublished.set(len(self._registry.outbox()))
        self._metrics.ready.set(self._health.why_not_ready() is None)
        self._metrics.show_state(self._state)
        if self._due_since is not None and self._state.due_since() is None:
            self._metrics.due_since.set(self._due_since.timestamp())
        champion = self._registry.champion_version()
        if champion is not None:
            self._metrics.show_champion(self._registry.manifest(champion), self._registry.decision(champion))
