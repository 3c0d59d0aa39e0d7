"""What the gate looked at: each check with its figure, its bound and its verdict, kept whole."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Name = Literal[
    "upper_difference", "median_difference", "lower_difference", "first_lift", "baseline_difference"
]


class Check(BaseModel):
    """One condition.

    Attributes:
        value: What was found; None if it could not be worked out.
        bound: What it is held against.
        met: Whether the condition holds.
        text: One sentence with the figures.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    value: float | None
    bound: float
    met: bool
    text: str


def at_least(name: Name, what: str, value: float, bound: float) -> Check:
    """Holds when the value reaches the bound."""
    met = value >= bound
    text = f"{what} is {value:+.3f}, {'at least' if met else 'below'} {bound:+.3f}"
    return Check(name=name, value=value, bound=bound, met=met, text=text)


def above(name: Name, what: str, value: float, bound: float) -> Check:
    """Holds when the value lies above the bound."""
    met = value > bound
    text = f"{what} is {value:+.3f}, {'above' if met else 'not above'} {bound:.3f}"
    return Check(name=name, value=value, bound=bound, met=met, text=text)
