"""Units convert as the books say, or are refused with those that would."""

from __future__ import annotations

import pytest

from streamer.units import IDENTITY, conversion


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [
        ("degF", "degC", 212, 100),
        ("degF", "degC", -40, -40),
        ("degC", "degF", 100, 212),
        ("K", "degC", 273.15, 0),
        ("degC", "K", 0, 273.15),
        ("delta_degF", "degC", 54, 30),
        ("delta_K", "degC", 30, 30),
        ("K", "delta_degC", 30, 30),
        ("in/min", "m/min", 50, 1.27),
        ("mm/s", "m/min", 20, 1.2),
        ("in", "mm", 6, 152.4),
        ("gal/min", "L/min", 1000, 3785.411784),
        ("m3/h", "L/min", 6, 100),
        ("psi", "bar", 14.503773773, 1),
        ("MPa", "bar", 1, 10),
        ("kg/h", "t/h", 1000, 1),
        ("kW", "W", 1.5, 1500),
        ("rpm", "Hz", 60, 1),
        ("%", "1", 50, 0.5),
    ],
)
def test_conversions(source: str, target: str, value: float, expected: float) -> None:
    scale, offset = conversion(source, target)
    assert value * scale + offset == pytest.approx(expected, rel=1e-9, abs=1e-9)
    back = conversion(target, source)
    assert expected * back.scale + back.offset == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("unit", ["mm", "", "furlong"])
def test_a_unit_is_itself(unit: str) -> None:
    assert conversion(unit, unit) is IDENTITY


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("degF", "mm", "units for it are m, cm, mm, um, in, ft"),
        ("Fahrenheit", "degC", "units for it are degC, K, degF, delta_degC"),
        ("mm", "furlong", "give scale and offset"),
        ("mm", "", "give scale and offset"),
    ],
)
def test_units_that_do_not_fit_are_told_what_would(source: str, target: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        conversion(source, target)
