"""What a score depends on, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from trainer.errors import ModelInputError
from trainer.learn.config import ArchitectureConfig
from trainer.learn.model import build_model

F = 3
PLAIN = {"readout": "last", "stem_stride": 1, "window_statistics": False, "center_windows": False}
ARCHITECTURES = {
    "default": {},
    "no stem": {"stem_stride": 1},
    "plain": PLAIN,
    "max": {"readout": "max", "stem_stride": 1},
    "mean": {"readout": "mean", "stem_stride": 3},
    "bidirectional": {"bidirectional": True, "stem_stride": 1},
    "bidirectional last": {**PLAIN, "bidirectional": True, "stem_stride": 4},
    "one layer, linear head": {"num_layers": 1, "head_hidden_dims": ()},
}


def _windows(num=6, steps=21, seed=0):
    x = np.random.default_rng(seed).normal([1.2, 900.0, 30.0], [0.2, 60.0, 5.0], size=(num, steps, F))
    return torch.tensor(x, dtype=torch.float32)


def _model(**options):
    model = build_model(ArchitectureConfig(hidden_size=8, **options), F, seed=1)
    model.fit_normalisation(_windows(40))
    return model.eval()


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def model(request):
    return _model(**request.param)


def test_padding_at_the_end_never_changes_a_score(model):
    x = _windows()
    for num_padding in (1, 2, 7, 40):
        padding = torch.full((6, num_padding, F), 77.0)
        padded = torch.cat([x, padding], dim=1)
        mask = torch.zeros(padded.shape[:2], dtype=torch.bool)
        mask[:, : x.shape[1]] = True

        torch.testing.assert_close(model(padded, mask), model(x))


def test_a_score_does_not_depend_on_the_lengths_of_its_batch_mates(model):
    x, mask = _windows(), torch.zeros(6, 21, dtype=torch.bool)
    for n, length in enumerate((21, 1, 5, 12, 20, 3)):
        mask[n, :length] = True

    together = model(x, mask)

    for n in range(6):
        alone = model(x[n : n + 1, : int(mask[n].sum())])
        assert alone.shape == (1,)
        torch.testing.assert_close(alone[0], together[n])


def test_values_at_masked_steps_are_never_seen(model):
    x, mask = _windows(), torch.ones(6, 21, dtype=torch.bool)
    mask[:, 8:11] = False
    changed = x.clone()
    changed[:, 8:11] = torch.nan

    torch.testing.assert_close(model(changed, mask), model(x, mask), rtol=0, atol=0)


def test_missing_and_infinite_values_and_empty_windows_still_get_a_finite_score(model):
    x, mask = _windows(), torch.ones(6, 21, dtype=torch.bool)
    x[0, 3:9, 1] = torch.nan
    x[1, :, 2] = torch.nan
    x[2] = torch.nan
    x[3, 4, 0] = torch.inf
    x[4, 4, 0] = 3e38
    mask[5] = False

    assert torch.isfinite(model(x, mask)).all()


def test_a_missing_value_leaves_no_trace_in_the_gradient(model):
    x, mask = _windows(), torch.ones(6, 21, dtype=torch.bool)
    x[:, :, 1] = torch.nan
    mask[:2] = False

    model(x, mask).sum().backward()

    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_score_depends_on_a_valid_step(model):
    x = _windows()
    changed = x.clone()
    changed[:, 4, 0] += 1.0

    assert (model(changed) - model(x)).abs().min() > 0


def test_raw_units_do_not_matter_when_normalisation_was_fitted_in_them():
    x = _windows(30)
    in_other_units = x * torch.tensor([60.0, 1.8, 1.0]) + torch.tensor([0.0, 32.0, 0.0])
    a = build_model(ArchitectureConfig(hidden_size=8), F, seed=3).eval()
    b = build_model(ArchitectureConfig(hidden_size=8), F, seed=3).eval()
    a.fit_normalisation(x)
    b.fit_normalisation(in_other_units)

    torch.testing.assert_close(a(x), b(in_other_units), rtol=1e-3, atol=1e-3)


def test_a_dead_sensor_that_comes_to_life_does_not_move_scores():
    x = _windows(30)
    x[:, :, 1] = 850.0
    model = build_model(ArchitectureConfig(hidden_size=8), F, seed=3).eval()
    model.fit_normalisation(x)
    alive = x.clone()
    alive[:, :, 1] += torch.randn(30, 21) * 100

    torch.testing.assert_close(model(alive), model(x), rtol=0, atol=0)


def test_masked_steps_do_not_enter_the_fit():
    x, mask = _windows(30), torch.ones(30, 21, dtype=torch.bool)
    x[:, 15:] = 1e6
    mask[:, 15:] = False
    masked = build_model(ArchitectureConfig(hidden_size=8), F, seed=3)
    cut = build_model(ArchitectureConfig(hidden_size=8), F, seed=3)

    masked.fit_normalisation(x, mask)
    cut.fit_normalisation(x[:, :15])

    for name, value in cut.state_dict().items():
        torch.testing.assert_close(masked.state_dict()[name], value, msg=name)


def test_the_state_is_all_that_a_scorer_needs(model):
    other = build_model(model.config, F, seed=99).eval()
    other.load_state_dict(model.state_dict())

    assert other.is_normalised
    assert torch.equal(other(_windows()), model(_windows()))


def test_building_a_model_depends_on_the_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)

    a, b, c = (build_model(ArchitectureConfig(hidden_size=8), F, seed) for seed in (1, 1, 2))

    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(a.lstm.weight_hh_l0, b.lstm.weight_hh_l0)
    assert not torch.equal(a.lstm.weight_hh_l0, c.lstm.weight_hh_l0)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (torch.zeros(2, 5, F + 1), None, r"expected windows \[N, T, 3\], got \[2, 5, 4\]"),
        (torch.zeros(5, F), None, r"got \[5, 3\]"),
        (torch.zeros(2, 0, F), None, r"got \[2, 0, 3\]"),
        (torch.zeros(2, 5, F, dtype=torch.float64), None, "expected torch.float32, got torch.float64"),
        (torch.zeros(2, 5, F), torch.ones(2, 4, dtype=torch.bool), "expected a bool mask"),
        (torch.zeros(2, 5, F), torch.ones(2, 5), "expected a bool mask"),
    ],
)
def test_inputs_that_do_not_fit_say_what_was_expected_and_what_came(x, mask, message):
    with pytest.raises(ModelInputError, match=message):
        _model()(x, mask)


def test_nothing_valid_is_nothing_to_fit_on():
    with pytest.raises(ModelInputError, match="no valid value in 4 windows"):
        _model().fit_normalisation(torch.full((4, 5, F), torch.nan))


def test_an_architecture_that_sees_no_level_is_refused():
    with pytest.raises(ValidationError, match="hides every level"):
        ArchitectureConfig(window_statistics=False, center_windows=True)
