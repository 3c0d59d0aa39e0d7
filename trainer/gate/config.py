"""When a challenger is let through."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamer.settings import Section


class GateConfig(Section):
    """When a challenger replaces the champion."""

    # Smaller: one odd cast decides. Larger: the first model comes later.
    min_defective_casts: int = Field(10, ge=2, description="in the gate part; fewer: the cycle waits")
    min_good_casts: int = Field(10, ge=2, description="in the gate part; fewer: the cycle waits")
    # Smaller: the bounds move by more than 0.01 with the seed. Larger: the decision takes longer.
    num_bootstrap: int = Field(1000, ge=100, le=100_000)
    lower_quantile: float = Field(0.10, gt=0, lt=0.5, description="of the resamples: the lower bound")
    # A challenger knows newer windows, and is published with those of the gate learned, so a tie is for it. On few
    # defects the median of equal models scatters by 0.05 and more, and half of them were refused at 0.
    min_upper_difference: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="upper bound (1 - lower_quantile) of AUC-PR(challenger) - AUC-PR(champion): below 0 it is worse "
        "by more than chance explains",
    )
    # Nearer to zero: small gate parts refuse equal models. Further off: a worse model may pass by luck.
    min_median: float = Field(-0.10, ge=-1, le=1, description="of that difference")
    min_lower_difference: float = Field(-0.30, ge=-1, le=0, description="lower bound of that difference")
    # At 0 a model trained on shuffled labels passes as the first one in up to half of the cases: average
    # precision is biased upwards on few casts, and a random ranking of real sensor data is often a little
    # better than chance. Larger: a weak but honest first model waits for more casts.
    min_first_lift: float = Field(
        0.10, ge=0, lt=1, description="first model: lower bound of AUC-PR - base rate is above this"
    )
    # By the same resamples: behind only where chance does not explain it.
    baseline: Literal["refuse", "warn"] = Field(
        "refuse", description="what becomes of a challenger that ranks worse than a baseline fitted beside it"
    )
    seed: int = Field(0, ge=0, description="of the resamples: the same scores give the same decision")
