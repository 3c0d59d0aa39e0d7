"""Names of sensors as plants give them: each works wherever a name goes."""

from __future__ import annotations

ODD_NAMES = (
    "Volume Flow RateRMS",
    "2nd stage / Δp [mbar], 100 %",
    'Rohr 3" "Süd"',
    "C:\\PLC\\new",
    "Temperature °C; TI-4711.PV",
    "[bold]x[/bold]",
    "[/]",
    "連鋳機 温度",
    "{{ sensor }} $1 `id` #1 !x &a *b ~ | @",
    "payload",
    "=1+1",
    "'",
    "7",
    "x" * 128,
)
