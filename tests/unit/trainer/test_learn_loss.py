"""The loss against torch's and against the formula, at logits of any size, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from trainer.errors import ModelInputError, NotEnoughDataError
from trainer.learn.config import LossConfig
from trainer.learn.engine.loss import DefectLoss

HUGE = (-1e4, -88.0, -1.0, 0.0, 1.0, 88.0, 1e4)


def _loss(num_good=30, num_defects=10, **config):
    return DefectLoss(LossConfig(**config), num_good=num_good, num_defects=num_defects)


def _windows(num=200, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits_N = 3 * torch.randn(num, generator=generator, dtype=dtype)
    return logits_N, (torch.rand(num, generator=generator) < 0.3).to(dtype)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 9.0),
        ({"weight_multiplier": 2.0}, 6.0),
        ({"pos_weight": 7.5, "weight_multiplier": 2.0}, 7.5),
        ({"pos_weight": "off"}, 1.0),
    ],
)
def test_the_weight_of_a_defect_is_automatic_fixed_or_off(config, expected):
    zero = torch.zeros(1)
    for gamma in (0.0, 2.0):
        loss = _loss(focal_gamma=gamma, **config)

        assert loss.pos_weight == expected
        assert float(loss(zero, torch.ones(1)) / loss(zero, zero)) == pytest.approx(expected)


def test_a_class_weight_needs_both_classes():
    with pytest.raises(NotEnoughDataError, match="0 defective and 5 good"):
        _loss(num_good=5, num_defects=0)
    with pytest.raises(NotEnoughDataError, match="5 defective and 0 good"):
        _loss(num_good=0, num_defects=5, pos_weight="off")


def test_without_options_it_is_torchs_cross_entropy():
    logits_N, y_N = _windows()
    expected_N = binary_cross_entropy_with_logits(
        logits_N, y_N, pos_weight=torch.tensor(9.0, dtype=torch.float64), reduction="none"
    )

    torch.testing.assert_close(_loss()(logits_N, y_N), expected_N)


def test_label_smoothing_is_torchs_at_twice_its_scale():
    logits_N, y_N = _windows()
    # torch spreads a share over both classes, so each label moves by half of it.
    expected_N = cross_entropy(
        torch.stack([torch.zeros_like(logits_N), logits_N], dim=1),
        y_N.long(),
        label_smoothing=0.2,
        reduction="none",
    )

    torch.testing.assert_close(_loss(pos_weight="off", label_smoothing=0.1)(logits_N, y_N), expected_N)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_is_the_formula(gamma, smoothing):
    logits_N, y_N = _windows()
    p_N, soft_N = torch.sigmoid(logits_N), y_N * (1 - 2 * smoothing) + smoothing
    expected_N = -3 * soft_N * (1 - p_N) ** gamma * torch.log(p_N)
    expected_N -= (1 - soft_N) * p_N**gamma * torch.log(1 - p_N)

    loss = _loss(pos_weight=3.0, focal_gamma=gamma, label_smoothing=smoothing)

    torch.testing.assert_close(loss(logits_N, y_N), expected_N)


def test_focal_loss_goes_over_into_cross_entropy_as_gamma_falls():
    logits_N, y_N = _windows()

    torch.testing.assert_close(_loss(focal_gamma=1e-12)(logits_N, y_N), _loss()(logits_N, y_N))


def test_focal_loss_counts_windows_less_that_are_already_right():
    sure, unsure = torch.tensor([4.0]), torch.tensor([0.0])

    def ratio(gamma):
        loss = _loss(pos_weight="off", focal_gamma=gamma)
        return float(loss(sure, torch.ones(1)) / loss(unsure, torch.ones(1)))

    assert ratio(5.0) < ratio(2.0) < ratio(0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_stay_finite_at_any_logit(dtype, gamma, smoothing):
    loss = _loss(focal_gamma=gamma, label_smoothing=smoothing)
    for label in (0.0, 1.0):
        logits_N = torch.tensor(HUGE, dtype=dtype, requires_grad=True)
        loss_N = loss(logits_N, torch.full_like(logits_N, label))
        (gradient_N,) = torch.autograd.grad(loss_N.sum(), logits_N)

        assert torch.isfinite(loss_N).all()
        assert torch.isfinite(gradient_N).all()
        assert (loss_N >= 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_wrong_window_pulls_however_far_its_logit_is(gamma):
    logits_N = torch.tensor([-1e4, 1e4], requires_grad=True)

    loss_N = _loss(pos_weight=3.0, focal_gamma=gamma)(logits_N, torch.tensor([1.0, 0.0]))
    (gradient_N,) = torch.autograd.grad(loss_N.sum(), logits_N)

    assert loss_N.tolist() == pytest.approx([3e4, 1e4])
    assert gradient_N.tolist() == pytest.approx([-3.0, 1.0])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_those_of_the_loss(gamma, smoothing):
    logits_N, y_N = _windows(20)
    weight_N = torch.linspace(0.1, 2.0, 20, dtype=torch.float64)
    loss = _loss(focal_gamma=gamma, label_smoothing=smoothing)

    assert torch.autograd.gradcheck(lambda z: loss(z, y_N, weight_N), logits_N.requires_grad_())


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_each_window_has_its_own_loss_times_its_weight(gamma):
    logits_N, y_N = _windows(50)
    weight_N = torch.linspace(0.0, 2.0, 50, dtype=torch.float64)
    loss = _loss(focal_gamma=gamma)

    one_by_one_N = torch.cat([loss(logits_N[n : n + 1], y_N[n : n + 1]) for n in range(50)])

    torch.testing.assert_close(loss(logits_N, y_N, weight_N), one_by_one_N * weight_N)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_half_precision_logits_cost_what_the_same_numbers_cost_in_full(dtype, gamma):
    logits_N, y_N = _windows(dtype=torch.float32)
    loss = _loss(focal_gamma=gamma)

    loss_N = loss(logits_N.to(dtype), y_N)

    assert loss_N.dtype == torch.float32
    assert torch.equal(loss_N, loss(logits_N.to(dtype).float(), y_N))


def test_labels_or_weights_of_another_length_are_refused():
    loss, logits_N = _loss(focal_gamma=1.0), torch.zeros(3)

    with pytest.raises(ModelInputError, match=r"expected labels and weights \[3\], got \[1\]"):
        loss(logits_N, torch.zeros(1))
    with pytest.raises(ModelInputError, match=r"got \[3, 1\]"):
        loss(logits_N, torch.zeros(3), torch.ones(3, 1))
