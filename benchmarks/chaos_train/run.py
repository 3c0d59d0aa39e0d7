"""The run: a calm trainer, then one that everything happens to."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos_train import verdict
from benchmarks.chaos_train.life import POINTS, Life
from benchmarks.chaos_train.site import Scene, Site, until

# A life that is killed at random lives so long: through its start, and into a cycle.
RANDOM_LIFE_S = (0.3, 3.0)
# Of a life that was told where to end: then it has passed that point for this cycle.
PATIENCE_S = 120.0
# Sizes of files that a full disk is played with: the state does not fit, the state fits and a training does not.
FULL_AT_BYTES = (500, 100_000)
AWAY_S = 2.0
# What happens beside kills, by what must hold of it.
TROUBLES = ("trained_without_kafka", "redis_came_back", "disk_full_recovered", "second_trainer_refused")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        kills: By SIGKILL, at least.
        points: Where somebody is killed, beside random moments.
        troubles: What else happens.
        plain_between: Data sets without any other trouble than kills, before each of these.
    """

    kills: int
    seed: int = 1
    points: tuple[str, ...] = POINTS
    troubles: tuple[str, ...] = TROUBLES
    plain_between: int = 2


@dataclass
class Seen:
    """What was seen on the way."""

    kills: Counter[str] = field(default_factory=Counter)
    most_attempts: int = 0
    epochs: int = 0
    held: dict[str, bool] = field(default_factory=dict)


def chaos(size: Size, say: Say = print, broker: str = "embedded") -> dict[str, Any]:
    """Runs both on one of `site.BROKERS` and compares them."""
    with Site(broker) as site:
        seen, scene = Seen(), Scene(site, "chaos")
        num_datasets = _Chaos(site, scene, size, seen, say).run()
        say(f"{num_datasets} data sets, {seen.kills.total()} kills; now the calm run")
        calm = Scene(site, "calm")
        _calm(calm, num_datasets)
        result = {
            "broker": broker,
            "kills": seen.kills.total(),
            "kills_by_point": dict(sorted(seen.kills.items())),
            "cycles": scene.state().last_number,
            "datasets": num_datasets,
            "decided_once": verdict.decided_once(scene, num_datasets),
            "versions_rising": verdict.versions_rising(scene),
            "unknown_versions": verdict.unknown_versions(scene),
            "weights_equal": verdict.weights(scene) == verdict.weights(calm),
            "models_published": len(set(verdict.published(scene))),
            "most_attempts": seen.most_attempts,
            "max_attempts": scene.settings.cycle.max_attempts,
            **seen.held,
        }
        for each in (scene, calm):
            each.close()
    return result


def holds(result: dict[str, Any]) -> bool:
    """Whether all that was promised holds, of what has happened."""
    promised = ("decided_once", "versions_rising", "weights_equal")
    return (
        all(result[name] for name in promised)
        and all(result.get(name, True) for name in TROUBLES)
        and not result["unknown_versions"]
        and result["most_attempts"] <= result["max_attempts"]
    )


def _calm(scene: Scene, num_datasets: int) -> None:
    life = Life(scene.config)
    for _ in range(num_datasets):
        scene.more_windows()
        if not until(scene.is_settled, PATIENCE_S):
            raise AssertionError(f"the calm run stands still: {life.text[-2000:]}")
    life.kill(signal.SIGTERM)


class _Chaos:
    """One data set after the other, and what happens meanwhile."""

    def __init__(self, site: Site, scene: Scene, size: Size, seen: Seen, say: Say) -> None:
        self._site, self._scene, self._size, self._seen, self._say = site, scene, size, seen, say
        self._random = random.Random(size.seed)
        self._points_left = list(size.points)
        self._random.shuffle(self._points_left)
        self._is_random = True
        self._life: Life | None = None
        self._point: str | None = None
        self._dies_at: float | None = None

    def run(self) -> int:
        """Goes on until all kills have happened; returns the number of data sets."""
        make = {
            "trained_without_kafka": self._kafka_away,
            "redis_came_back": self._redis_away,
            "disk_full_recovered": self._disk_full,
            "second_trainer_refused": self._second,
        }
        plain = ["plain"] * self._size.plain_between
        names = [name for trouble in self._size.troubles for name in (*plain, trouble)]
        for number, name in enumerate(itertools.cycle(names), start=1):
            if name == "plain":
                self._plain()
            else:
                self._seen.held[name] = make[name]() and self._seen.held.get(name, True)
            self._say(f"data set {number} decided, {self._seen.kills.total()} kills")
            if number >= len(names) and self._has_all_kills():
                break
        if self._life is not None:
            self._note(self._life)
            assert self._life.kill(signal.SIGTERM) == 128 + signal.SIGTERM, self._life.text[-2000:]
        return number

    def _plain(self) -> None:
        self._scene.more_windows()
        self._live_until(self._scene.is_settled)

    def _has_all_kills(self) -> bool:
        return self._seen.kills.total() >= self._size.kills and not self._points_left

    def _planned_end(self) -> str:
        """A point that was not reached yet, or a random moment, in turns."""
        self._is_random = not self._is_random
        if self._is_random or not self._points_left:
            return "random"
        return self._points_left[0]

    def _live_until(self, is_done: Callable[[], bool]) -> None:
        """Lets lives come and go until it is done."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_done():
            life = self._alive()
            if self._dies_at is not None and time.monotonic() > self._dies_at:
                life.kill()
            if not life.is_alive:
                self._bury(life)
                deadline = time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                raise AssertionError(f"it stands still: {life.text[-3000:]}")
            self._seen.most_attempts = max(self._seen.most_attempts, self._attempts())
            time.sleep(0.02)

    def _alive(self, *, calm: bool = False) -> Life:
        """The life that goes on; a new one, with its end planned, where the last one has ended."""
        if self._life is None:
            end = "none" if calm or self._has_all_kills() else self._planned_end()
            self._point = end if end in POINTS else None
            seconds = self._random.uniform(*RANDOM_LIFE_S)
            self._dies_at = time.monotonic() + seconds if end == "random" else None
            self._life = Life(self._scene.config, self._point)
        return self._life

    def _bury(self, life: Life) -> None:
        if life.exit_code != -signal.SIGKILL:
            raise AssertionError(f"it ended by itself with {life.exit_code}: {life.text[-3000:]}")
        self._seen.kills[self._point or "random"] += 1
        if self._point in self._points_left:
            self._points_left.remove(self._point)
        self._note(life)
        self._life = None

    def _note(self, life: Life) -> None:
        self._seen.epochs += life.count("epoch")

    def _attempts(self) -> int:
        cycle = self._scene.state().in_progress
        return cycle.attempts if cycle else 0

    # What happens beside the kills; each brings one data set to its decision

    def _rest(self) -> Life:
        """A life that nobody ends, idle."""
        if self._life is not None and (self._point or self._dies_at):
            self._life.kill()
            self._bury_quietly(self._life)
        life = self._alive(calm=True)
        assert until(lambda: life.count("watching") > 0 or not life.is_alive), life.text
        return life

    def _bury_quietly(self, life: Life) -> None:
        self._seen.kills["random"] += 1
        self._note(life)
        self._life = None

    def _let_go(self) -> None:
        """From here on ends are planned again."""
        if self._life is not None:
            self._life.kill()
            self._bury_quietly(self._life)

    def _kafka_away(self) -> bool:
        self._rest()
        self._site.broker.go_away()
        self._scene.more_windows()
        decided = until(self._scene.is_decided)
        trained = decided and bool(self._scene.reader.outbox())
        self._let_go()  # killed with its outbox full
        self._site.broker.come_back()
        self._live_until(self._scene.is_settled)
        return trained

    def _redis_away(self) -> bool:
        life = self._rest()
        self._scene.more_windows()
        until(lambda: life.count("epoch") > 0)
        self._site.redis.kill()
        time.sleep(AWAY_S)
        self._site.redis.start()
        self._live_until(self._scene.is_settled)
        came_back = life.is_alive
        self._let_go()
        return came_back

    def _disk_full(self) -> bool:
        held = True
        for num_bytes in FULL_AT_BYTES:
            life = self._rest()
            life.limit_files(num_bytes)
            epochs = life.count("epoch")
            self._scene.more_windows() if num_bytes == FULL_AT_BYTES[0] else None
            told = until(lambda life=life: life.count("waiting", server="disk") > 0)
            time.sleep(AWAY_S)
            stood = life.is_alive and life.count("epoch") == epochs and not self._scene.is_decided()
            held &= told and stood
            if num_bytes != FULL_AT_BYTES[-1]:
                self._let_go()  # killed on a full disk
        life.limit_files(None)
        self._live_until(self._scene.is_settled)
        held &= life.is_alive
        self._let_go()
        return held

    def _second(self) -> bool:
        first, refused = self._rest(), True
        for config in (self._scene.other_config(), self._scene.config):  # another folder, and the same one
            second = Life(config)
            code = second.wait(PATIENCE_S)
            refused &= code == 1 and ("stop that trainer" in second.text or "another trainer" in second.text)
        refused &= first.is_alive
        self._scene.more_windows()
        self._live_until(self._scene.is_settled)
        self._let_go()
        return refused
