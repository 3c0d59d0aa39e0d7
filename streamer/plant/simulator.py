"""A casting plant: casts on several strands, defects with causes, changing regimes. Same seed, same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapreplace
from itertools import pairwise
from operator import attrgetter
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from streamer.plant.cast import SCALE_F, SimulatedCast
from streamer.plant.dynamics import CastDynamics
from streamer.plant.events import PlantEvent
from streamer.plant.merge import merge_by_time
from streamer.plant.regimes import KINDS, SENSORS, FloatArray, Regime, Schedule
from streamer.plant.transmission import Transmission
from streamer.plant.verdicts import Inspector, Truth
from streamer.settings import Section

# Smaller: who knows the other verdicts of a block can tell the one left. Larger: regimes differ by chance.
BALANCED_CASTS = 100

Share = Annotated[float, Field(ge=0, le=1)]


class SimulatorConfig(Section):
    """The plant to simulate."""

    seed: int = Field(0, ge=0)
    num_casts: int = Field(1000, ge=1, le=1_000_000)
    strands: int = Field(4, ge=1, le=64)
    casts_per_heat: int = Field(4, ge=1, le=1000)
    start_ts: int = Field(1_767_225_600_000, ge=0, description="of the first cast, epoch milliseconds")
    period_ms: int = Field(1000, ge=1, le=60_000)
    min_steps: int = Field(900, ge=60, description="shortest cast")
    max_steps: int = Field(1500, ge=60, description="longest cast")
    pause_s: float = Field(60.0, ge=0, description="between two casts on one strand")
    chunk_share: Share = Field(0.5, description="of the casts, sent in chunks; the others row by row")
    chunk_rows: int = Field(10, ge=2, le=10_000)
    missing_share: Share = Field(0.01, description="of the values")
    late_share: Share = Field(0.01, description="of the rows")
    very_late_share: Share = Field(0.01, description="of the late rows, by very_late_s")
    late_s: tuple[float, float] = (2.0, 8.0)
    very_late_s: tuple[float, float] = (35.0, 90.0)
    defect_share: Share = Field(0.15, description="of the casts")
    ranged_share: Share = Field(0.5, description="of the defective verdicts, over a stretch of the cast")
    label_noise: Share = Field(0.01, description="of the casts, with a wrong last verdict")
    label_delay_s: tuple[float, float] = Field((300.0, 1800.0), description="from a cast's end, last verdict")
    regime_changes: tuple[float, ...] = Field((0.5,), description="as fractions of the campaign")
    drift_share: Share = Field(0.02, description="of the campaign, in which a change takes place")

    @model_validator(mode="after")
    def _spans_are_ordered(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError("min_steps must not be above max_steps")
        for name in ("late_s", "very_late_s", "label_delay_s"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be two times, the smaller one first")
        steps = (0.0, *self.regime_changes, 1.0)
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("regime_changes must rise, between 0 and 1")
        return self


class Simulator:
    """Simulates a campaign; each call of `casts` or `events` starts it anew and gives the same."""

    sensors = SENSORS

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self._schedule = Schedule(config.regime_changes, config.drift_share)
        self._transmission = Transmission(
            config.missing_share, config.late_share, config.very_late_share, config.late_s, config.very_late_s
        )
        self._inspector = Inspector(config.label_delay_s, config.label_noise)

    def casts(self) -> Iterator[SimulatedCast]:
        """The casts in the order of their starts."""
        outcomes = self._outcomes()
        for index, slot in enumerate(self._timetable()):
            yield self._cast(index, slot, next(outcomes))

    def events(self) -> Iterator[PlantEvent]:
        """All records in the order of sending, those of parallel strands interleaved."""
        return merge_by_time(self._streams(), attrgetter("sent_at"))

    def _streams(self) -> Iterator[tuple[int, Iterator[PlantEvent]]]:
        for cast in self.casts():
            yield cast.start_ts, cast.readings()
            yield cast.start_ts, cast.verdicts()

    def _timetable(self) -> Iterator[tuple[int, int, int]]:
        """Strand, start and length of each cast: the strand that is free first casts next."""
        config = self.config
        rng = np.random.default_rng([config.seed, 0, 0])
        free = [
            (config.start_ts + strand * 17 * config.period_ms, strand) for strand in range(config.strands)
        ]
        for _ in range(config.num_casts):
            start_ts, strand = free[0]
            num_steps = int(rng.integers(config.min_steps, config.max_steps + 1))
            yield strand + 1, start_ts, num_steps
            pause_steps = 1 + round(config.pause_s * 1000 / config.period_ms)
            heapreplace(free, (start_ts + (num_steps + pause_steps) * config.period_ms, strand))

    def _outcomes(self) -> Iterator[bool]:
        """Whether each cast is defective: the same share of each `BALANCED_CASTS`, so of each regime."""
        rng = np.random.default_rng([self.config.seed, 0, 1])
        while True:
            ranks = rng.permutation(BALANCED_CASTS) + rng.random(BALANCED_CASTS)
            yield from (ranks < self.config.defect_share * BALANCED_CASTS).tolist()

    def _cast(self, index: int, slot: tuple[int, int, int], defective: bool) -> SimulatedCast:
        config = self.config
        strand, start_ts, num_steps = slot
        # A generator a cast: a campaign of more casts begins with the same ones.
        rng = np.random.default_rng([config.seed, 1 + index])
        progress = index / config.num_casts
        values_TF, truth = self._measure(rng, progress, num_steps, defective)
        sent_T = self._transmission.sent(rng, num_steps)
        values_TF[self._transmission.silent(rng, num_steps, len(SENSORS)) | ~sent_T[:, None]] = np.nan
        cast_id, group = f"C{index:06d}", f"H{index // config.casts_per_heat:05d}"
        at_step = range(start_ts, start_ts + num_steps * config.period_ms, config.period_ms)
        return SimulatedCast(
            index=index,
            cast_id=cast_id,
            strand=strand,
            group=group,
            start_ts=start_ts,
            period_ms=config.period_ms,
            values_TF=values_TF,
            sent_T=sent_T,
            delay_ms_T=self._transmission.delays_ms(rng, num_steps),
            chunk_rows=config.chunk_rows if rng.random() < config.chunk_share else 1,
            labels=self._inspector.inspect(rng, truth, cast_id, group, at_step),
            regime=self._schedule.number(progress),
            kind=truth.kind,
            defects=tuple((at_step[first], at_step[last]) for first, last in truth.episodes),
        )

    def _measure(
        self, rng: np.random.Generator, progress: float, num_steps: int, defective: bool
    ) -> tuple[FloatArray, Truth]:
        regime = self._schedule.regime(progress)
        dynamics = CastDynamics(rng, num_steps, self.config.period_ms / 1000)
        dynamics.add_baseline(self._schedule.operating_point(progress))
        dynamics.add_harmless(regime)
        truth = self._harm(dynamics, regime, defective)
        rounded_TF = np.round(dynamics.values_TF * SCALE_F) / SCALE_F
        return rounded_TF.astype(np.float32), truth

    def _harm(self, dynamics: CastDynamics, regime: Regime, defective: bool) -> Truth:
        rng = dynamics.rng
        ranged = bool(rng.random() < self.config.ranged_share)
        steps = _stretch(rng, dynamics.num_steps) if ranged else (0, dynamics.num_steps - 1)
        if not defective:
            return Truth(None, ranged, steps)
        kind = KINDS[rng.choice(len(KINDS), p=regime.kind_shares)]
        first = min(steps[0] + int(rng.integers(20)), steps[1] - 1)
        return Truth(kind, ranged, steps, dynamics.add_harm(kind, regime, first, steps[1]))


def _stretch(rng: np.random.Generator, num_steps: int) -> tuple[int, int]:
    """First and last step of a stretch of a quarter to half of a cast."""
    length = int(num_steps * rng.uniform(0.25, 0.5))
    first = int(rng.integers(num_steps - length))
    return first, first + length - 1
