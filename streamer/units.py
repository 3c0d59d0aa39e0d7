"""Units of measurement that one another can be converted into, linearly: value * scale + offset."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Conversion(NamedTuple):
    """``y = x * scale + offset``."""

    scale: float
    offset: float

    @property
    def is_identity(self) -> bool:
        """Whether values stay as they are."""
        return self == (1.0, 0.0)


IDENTITY = Conversion(1.0, 0.0)
_INCH = Fraction("0.0254")
_POUND = Fraction("0.45359237")
_GALLON = Fraction("3.785411784")
_PSI = Fraction("6894.757293168")
# Each dimension: unit -> size in the dimension's base unit.
_LINEAR: dict[str, dict[str, Fraction]] = {
    "speed": {
        "m/min": Fraction(1),
        "m/s": Fraction(60),
        "cm/min": Fraction("0.01"),
        "mm/min": Fraction("0.001"),
        "mm/s": Fraction("0.06"),
        "in/min": _INCH,
        "in/s": 60 * _INCH,
        "ft/min": 12 * _INCH,
        "ft/s": 720 * _INCH,
    },
    "length": {
        "m": Fraction(1),
        "cm": Fraction("0.01"),
        "mm": Fraction("0.001"),
        "um": Fraction("0.000001"),
        "in": _INCH,
        "ft": 12 * _INCH,
    },
    "flow": {
        "L/min": Fraction(1),
        "L/s": Fraction(60),
        "L/h": Fraction(1, 60),
        "m3/min": Fraction(1000),
        "m3/h": Fraction(1000, 60),
        "m3/s": Fraction(60_000),
        "gal/min": _GALLON,
        "gal/h": _GALLON / 60,
    },
    "pressure": {
        "bar": Fraction(1),
        "mbar": Fraction("0.001"),
        "Pa": Fraction("0.00001"),
        "kPa": Fraction("0.01"),
        "MPa": Fraction(10),
        "psi": _PSI / 100_000,
    },
    "mass": {"kg": Fraction(1), "g": Fraction("0.001"), "t": Fraction(1000), "lb": _POUND},
    "mass flow": {
        "kg/s": Fraction(1),
        "kg/min": Fraction(1, 60),
        "kg/h": Fraction(1, 3600),
        "t/h": Fraction(1000, 3600),
        "lb/min": _POUND / 60,
        "lb/h": _POUND / 3600,
    },
    "power": {"W": Fraction(1), "kW": Fraction(1000), "MW": Fraction(1_000_000)},
    "current": {"A": Fraction(1), "mA": Fraction("0.001"), "kA": Fraction(1000)},
    "voltage": {"V": Fraction(1), "mV": Fraction("0.001"), "kV": Fraction(1000)},
    "frequency": {"Hz": Fraction(1), "kHz": Fraction(1000), "1/min": Fraction(1, 60), "rpm": Fraction(1, 60)},
    "share": {"1": Fraction(1), "%": Fraction("0.01"), "ppm": Fraction("0.000001")},
}
# Temperatures have a zero of their own: degC = value * scale + offset.
_TEMPERATURE: dict[str, tuple[Fraction, Fraction]] = {
    "degC": (Fraction(1), Fraction(0)),
    "K": (Fraction(1), Fraction("-273.15")),
    "degF": (Fraction(5, 9), Fraction(-160, 9)),
}
# Differences of temperatures, such as superheat: no zero to shift.
_DIFFERENCE = {"delta_degC": "degC", "delta_K": "K", "delta_degF": "degF"}


def conversion(source: str, target: str) -> Conversion:
    """How values in one unit become values in another.

    A unit converts into itself whether it is known or not. ``delta_degF`` and its like are differences of
    temperatures: between them and a temperature only the size of a degree changes.

    Raises:
        ValueError: No way leads from the one to the other; the message names the units that do.
    """
    if source == target:
        return IDENTITY
    if {source, target} <= _TEMPERATURE.keys() | _DIFFERENCE.keys():
        scale, zero = _temperature(source)
        target_scale, target_zero = _temperature(target)
        is_difference = bool({source, target} & _DIFFERENCE.keys())
        shift = Fraction(0) if is_difference else zero - target_zero
        return Conversion(float(scale / target_scale), float(shift / target_scale))
    for units in _LINEAR.values():
        if source in units and target in units:
            return Conversion(float(units[source] / units[target]), 0.0)
    raise ValueError(_no_way(source, target))


def _temperature(unit: str) -> tuple[Fraction, Fraction]:
    return _TEMPERATURE[_DIFFERENCE.get(unit, unit)]


def _no_way(source: str, target: str) -> str:
    known = _beside(target)
    if known:
        return f"cannot convert {source!r} into {target!r}; units for it are {', '.join(known)}"
    return (
        f"cannot convert {source!r} into {target!r}, which no other unit is known for; give scale and offset"
    )


def _beside(unit: str) -> list[str]:
    """The units of the same dimension."""
    dimensions = [*map(list, _LINEAR.values()), [*_TEMPERATURE, *_DIFFERENCE]]
    return [name for units in dimensions if unit in units for name in units]
