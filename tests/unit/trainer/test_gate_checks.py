"""A check of the gate keeps what it looked at: figure, bound, verdict and the sentence that says so."""

from __future__ import annotations

import pytest

from trainer.gate.checks import Check, above, at_least

NEXT = 0.1 + 1e-12


@pytest.mark.parametrize(
    ("value", "met", "text"),
    [
        (0.25, True, "median difference is +0.250, at least -0.100"),
        (-0.1, True, "median difference is -0.100, at least -0.100"),
        (-0.1 - 1e-12, False, "median difference is -0.100, below -0.100"),
        (-0.25, False, "median difference is -0.250, below -0.100"),
    ],
)
def test_at_least_is_met_at_the_bound_and_from_there_on(value: float, met: bool, text: str) -> None:
    check = at_least("median_difference", "median difference", value, -0.1)
    assert check == Check(name="median_difference", value=value, bound=-0.1, met=met, text=text)


@pytest.mark.parametrize(
    ("value", "met", "text"),
    [
        (0.25, True, "lift is +0.250, above 0.100"),
        (NEXT, True, "lift is +0.100, above 0.100"),
        (0.1, False, "lift is +0.100, not above 0.100"),
        (-0.25, False, "lift is -0.250, not above 0.100"),
    ],
)
def test_above_is_not_met_at_the_bound(value: float, met: bool, text: str) -> None:
    check = above("first_lift", "lift", value, 0.1)
    assert check == Check(name="first_lift", value=value, bound=0.1, met=met, text=text)


def test_a_figure_that_is_not_a_number_meets_nothing() -> None:
    assert not at_least("median_difference", "median difference", float("nan"), -1.0).met
    assert not above("first_lift", "lift", float("nan"), -1.0).met


@pytest.mark.parametrize("value", [0.1 + 0.2, -1e-300, None])
def test_a_check_is_read_back_as_it_was_written(value: float | None) -> None:
    check = Check(name="lower_difference", value=value, bound=1 / 3, met=False, text="why, at 1 600 °C")
    assert Check.model_validate_json(check.model_dump_json()) == check


def test_a_check_that_a_newer_version_wrote_is_read() -> None:
    text = '{"name": "of_tomorrow", "value": 1, "bound": 0, "met": true, "text": "t", "unit": "%"}'
    assert Check.model_validate_json(text) == Check(name="of_tomorrow", value=1, bound=0, met=True, text="t")
