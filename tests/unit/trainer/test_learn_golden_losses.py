"""Loss curves are those that were written down: to the byte on the machine that the file names, else nearly."""

from __future__ import annotations

import pytest
from golden_losses import CURVES, FOLDER, curve, header, rows

# Scores that step from window to window may differ by more than the losses.
LOSSES = ("train_loss", "val_loss")


@pytest.mark.parametrize("name", CURVES)
def test_the_curve_is_the_golden_one(name):
    golden = (FOLDER / f"{name}.csv").read_text()
    found = curve(name)

    if golden.startswith(header()):
        assert header() + found == golden
    for mine, its in zip(rows(found), rows(golden), strict=True):
        for loss in LOSSES:
            assert float(mine[loss]) == pytest.approx(float(its[loss]), abs=1e-4)
