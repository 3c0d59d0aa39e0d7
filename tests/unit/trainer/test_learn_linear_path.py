"""The regression beside the LSTM: what it is fitted to, when it counts, and how much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_training import loaders, model, same, settings, weights

from trainer.learn.config import ArchitectureConfig, EarlyStoppingConfig, ModelSettings
from trainer.learn.engine import run
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model.linear_path import LinearPath
from trainer.learn.model.network import build_model
from trainer.learn.scores.baselines import LabelledPart, score_baselines
from trainer.learn.scores.evaluate import evaluate, predict


def _rows(num=60, columns=4, seed=0):
    rng = np.random.default_rng(seed)
    stats = rng.normal(size=(num, columns)) * [1, 20, 0.1, 3] + [0, 5, 0, -8]
    y = stats[:, 0] + rng.normal(size=num) > 0.8
    return torch.tensor(stats, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def test_the_intercept_moves_by_what_a_defect_counts_more():
    (stats, y), paths = _rows(), (LinearPath(4), LinearPath(4))

    for path, pos_weight in zip(paths, (1.0, 6.0), strict=True):
        path.fit(stats, y, torch.ones(60), pos_weight)

    assert torch.equal(paths[0].weight_S, paths[1].weight_S)
    assert float(paths[1].bias - paths[0].bias) == pytest.approx(np.log(6), rel=1e-5)


def test_units_do_not_matter():
    (stats, y), paths = _rows(), (LinearPath(4), LinearPath(4))

    paths[0].fit(stats, y, torch.ones(60), 1.0)
    paths[1].fit(stats * 1000 + 5, y, torch.ones(60), 1.0)

    torch.testing.assert_close(paths[1].weight_S * 1000, paths[0].weight_S, rtol=1e-3, atol=1e-5)


def test_windows_that_count_nothing_change_nothing():
    paths, (stats, y) = (LinearPath(4), LinearPath(4)), _rows()
    weight = torch.tensor([1.0, 1.0, 0.0]).repeat(20)
    changed = torch.where(weight.unsqueeze(1) > 0, stats, 8 * torch.ones(60, 4))

    paths[0].fit(stats, y, weight, 1.0)
    paths[1].fit(changed, y, weight, 1.0)

    torch.testing.assert_close(paths[0].weight_S, paths[1].weight_S)
    assert paths[0].weight_S.abs().max() > 0.3


@pytest.mark.parametrize("heavy", [1e-20, 1e-12, 1e12, 1e20])
def test_weights_far_apart_give_finite_weights(heavy):
    path, (stats, y) = LinearPath(4), _rows()

    path.fit(stats, y, torch.where(y > 0, 1.0, heavy), 1.0)

    assert torch.isfinite(path(torch.zeros(60), stats)).all()


@pytest.mark.parametrize("lengths", [(24, 24), (6, 24)])
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_sensor_that_stands_still_in_a_fine_tuning_gets_no_weight(lengths, missing):
    # Its mean and spread over other numbers of steps differ by rounding alone.
    configured, (train, _) = settings(), loaders()
    net, rng = model(configured), np.random.default_rng(0)
    net.fit_normalisation(train.x_NTF, train.mask_NT)
    largest = 0.0
    for level in np.linspace(780, 1020, 25):
        x, mask = train.x_NTF.clone(), train.mask_NT.clone()
        x[:, :, 1] = float(np.float32(level))
        x[torch.from_numpy(rng.random(x.shape) < missing)] = torch.nan
        mask &= torch.arange(24) < torch.from_numpy(rng.integers(lengths[0], lengths[1] + 1, 160)).unsqueeze(
            1
        )
        net.fit_linear_path(x, mask, train.y_N, torch.ones(160), 1.0)
        largest = max(largest, float(net.linear_path.weight_S.abs().max()))

    assert 0 < largest < 100


@pytest.mark.parametrize("counted", [0, 1])
def test_a_class_that_counts_nothing_leaves_it_at_zero(counted):
    path, (stats, y) = LinearPath(4), _rows()
    path.fit(stats, y, torch.ones(60), 1.0)

    path.fit(stats, y, (y == counted).float(), 1.0)

    assert not path.weight_S.any()
    assert path.bias == 0


def test_columns_that_rest_and_classes_that_can_be_told_apart_give_finite_weights():
    path, (stats, _) = LinearPath(4), _rows()
    stats[:, 1] = 7.0
    stats[:, 3] = stats[:, 2]

    path.fit(stats, (stats[:, 0] > 0).float(), torch.ones(60), 1.0)

    assert path.weight_S[1] == 0
    assert torch.isfinite(path.weight_S).all()


def test_a_share_mixes_logits():
    path, (stats, y) = LinearPath(4), _rows()
    path.fit(stats, y, torch.ones(60), 1.0)
    lstm_N, regression_N = torch.randn(60), stats @ path.weight_S + path.bias

    assert torch.equal(path(lstm_N, stats), lstm_N)
    path.set_share(1.0)
    torch.testing.assert_close(path(lstm_N, stats), regression_N)
    path.set_share(0.25)
    torch.testing.assert_close(path(lstm_N, stats), 0.75 * lstm_N + 0.25 * regression_N)


def test_it_neither_counts_nor_moves_while_the_model_trains():
    net = model(settings()).train()
    net.layer_dropout.p = 0.0
    x = torch.randn(5, 24, 2)
    torch.nn.init.ones_(net.linear_path.weight_S)
    net.linear_path.set_share(1.0)

    assert "linear_path" not in {name.split(".")[0] for name, _ in net.named_parameters()}
    torch.manual_seed(0)
    first = net(x)
    torch.manual_seed(0)
    net.linear_path.set_share(0.0)
    assert torch.equal(net(x), first)
    net.eval()
    alone = net(x)
    net.linear_path.set_share(1.0)
    assert not torch.allclose(net(x), alone)


def _level_task(num, seed, num_sensors=20):
    """Whether one of many sensors is a little higher; units and offsets differ."""
    rng = np.random.default_rng(seed)
    y = rng.random(num) < 0.3
    x = rng.normal(size=(num, 30, num_sensors))
    x[y, :, 3] += 0.6
    x = x * np.geomspace(0.1, 100, num_sensors) + 500
    return LabelledPart(x.astype(np.float32), np.ones((num, 30), bool), y)


def _trained(parts, **architecture):
    configured = ModelSettings(
        architecture=ArchitectureConfig(**architecture), training={"max_epochs": 20, "num_workers": 1}
    )
    net = build_model(configured.architecture, parts[0].x_NTF.shape[2], seed=0)
    train, val = (WindowLoader(p.x_NTF, p.mask_NT, p.y_N, batch_size=32, shuffle=True) for p in parts[:2])
    result = LSTMTrainer(net, configured, torch.device("cpu")).train(train, val)
    test = parts[2]
    return evaluate(test.y_N, predict(net, test.x_NTF, test.mask_NT), 0.5).auc_roc, result.linear_share


def test_with_few_windows_and_many_sensors_the_model_ranks_no_worse_than_a_regression():
    parts = [_level_task(num, seed) for num, seed in ((200, 0), (100, 1), (400, 2))]
    regression = score_baselines(*parts)["logistic_regression"].auc_roc

    with_path, share = _trained(parts)
    without, none = _trained(parts, linear_path=False)

    assert without < regression - 0.1
    assert with_path > regression + 0.03
    assert (share > 0, none) == (True, 0.0)


def _order_task(num, seed):
    """Which of two pulses comes first: mean, spread and extremes say nothing of it, and the slope is taken off."""
    rng = np.random.default_rng(seed)
    y = rng.random(num) < 0.4
    x = 0.3 * rng.normal(size=(num, 40, 2))
    for n in range(num):
        start, sign = rng.integers(5, 25), 1 if y[n] else -1
        x[n, start : start + 4, 0] += 2 * sign
        x[n, start + 6 : start + 10, 0] -= 2 * sign
    t = np.arange(40) - 19.5
    x -= (x * t[None, :, None]).sum(axis=1, keepdims=True) / (t**2).sum() * t[None, :, None]
    return LabelledPart(x.astype(np.float32), np.ones((num, 40), bool), y)


def test_what_only_a_sequence_shows_is_left_to_the_lstm():
    parts = [_order_task(num, seed) for num, seed in ((300, 0), (150, 1), (300, 2))]
    assert score_baselines(*parts)["logistic_regression"].auc_roc < 0.6

    ranked, share = _trained(parts)

    assert ranked > 0.95
    assert share <= 0.25


def test_the_share_is_one_that_validation_likes_better():
    configured = settings()
    net = model(configured)
    trainer = LSTMTrainer(net, configured, torch.device("cpu"))

    result = trainer.train(*loaders())

    assert result.linear_share > 0
    assert float(net.linear_path.share) == pytest.approx(result.linear_share)
    assert trainer.validate(loaders()[1]).scores.auc_pr > result.best_value
    for share in (0.25, 0.5, 0.75, 0.9, 1.0):
        net.linear_path.set_share(share)
        at_share = trainer.validate(loaders()[1]).scores.auc_pr
        net.linear_path.set_share(result.linear_share)
        assert at_share <= trainer.validate(loaders()[1]).scores.auc_pr + 1e-4


@pytest.mark.parametrize(
    ("values", "min_delta", "chosen"),
    [
        ((0.90, 0.892, 0.884, 0.876, 0.868), 0.01, 0.5),
        ((0.90, 0.90, 0.90, 0.85, 0.84), 1e-4, 0.75),
        ((0.81, 0.90, 0.82, 0.90, 0.83), 1e-4, 0.9),
        ((0.80, 0.80, 0.80, 0.80, 0.80), 1e-4, 0.0),
        ((0.1, 0.2, 0.3, 0.4, 0.7), 1e-4, 0.0),
    ],
)
def test_the_largest_share_that_none_is_better_than_counts(monkeypatch, values, min_delta, chosen):
    configured = settings(early_stopping=EarlyStoppingConfig(min_delta=min_delta), training={"max_epochs": 1})
    net, real, told = model(configured), run.validate, iter((0.8, *values))

    def validated(*arguments):
        found = real(*arguments)
        return replace(found, scores=replace(found.scores, auc_pr=next(told)))

    monkeypatch.setattr(run, "validate", validated)

    result = LSTMTrainer(net, configured, torch.device("cpu")).train(*loaders())

    assert result.linear_share == pytest.approx(chosen)
    assert next(told, None) is None


def test_an_error_while_shares_are_tried_leaves_none_in_the_model(monkeypatch):
    configured = settings(training={"max_epochs": 1})
    net, real, calls = model(configured), run.validate, []

    def validated(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(run, "validate", validated)

    with pytest.raises(KeyboardInterrupt):
        LSTMTrainer(net, configured, torch.device("cpu")).train(*loaders())

    assert net.linear_path.share == 0


def test_a_champion_that_was_not_trained_further_keeps_its_share():
    configured = settings()
    net = model(configured)
    share = LSTMTrainer(net, configured, torch.device("cpu")).train(*loaders()).linear_share
    before = weights(net)

    stopped = LSTMTrainer(net, configured, torch.device("cpu")).train(*loaders(), should_stop=lambda: True)

    assert stopped.linear_share == share > 0
    assert same(weights(net), before)


def test_an_improvement_within_min_delta_is_none():
    configured = settings(early_stopping=EarlyStoppingConfig(min_delta=1.0))
    net = model(configured)

    assert LSTMTrainer(net, configured, torch.device("cpu")).train(*loaders()).linear_share == 0
    assert net.linear_path.share == 0


def test_fine_tuning_fits_it_to_the_new_windows():
    configured, (train, val) = settings(), loaders()
    net = model(configured)
    LSTMTrainer(net, configured, torch.device("cpu")).train(train, val)
    before = weights(net)
    train.y_N, val.y_N = 1 - train.y_N, 1 - val.y_N

    LSTMTrainer(net, configured, torch.device("cpu")).train(train, val)

    strongest = before["linear_path.weight_S"].abs().argmax()
    assert before["linear_path.weight_S"][strongest] * net.linear_path.weight_S[strongest] < 0
    assert torch.equal(before["input_normalisation.center_C"], net.input_normalisation.center_C)


@pytest.mark.parametrize("stop_at_step", [3, 12])
def test_a_stopped_training_leaves_it_out_and_a_resumed_one_ends_with_its_share(tmp_path, stop_at_step):
    configured = settings()
    whole = model(configured)
    share = LSTMTrainer(whole, configured, torch.device("cpu")).train(*loaders()).linear_share
    net, asked = model(configured), []

    def should_stop():
        asked.append(1)
        return len(asked) == stop_at_step

    trainer = LSTMTrainer(net, configured, torch.device("cpu"))
    stopped = trainer.train(*loaders(), run_dir=tmp_path, should_stop=should_stop)
    assert (stopped.stop_reason, stopped.linear_share, float(net.linear_path.share)) == ("stopped", 0.0, 0.0)

    again = model(configured)
    resumed = LSTMTrainer(again, configured, torch.device("cpu")).train(
        *loaders(), run_dir=tmp_path, resume=True
    )

    assert resumed.linear_share == share > 0
    assert same(weights(again), weights(whole))


def test_weights_of_windows_count_in_it():
    configured, (train, val) = settings(), loaders()
    shares = []
    for weight in (None, np.where(np.arange(160) < 40, 10.0, 0.01)):
        net = model(configured)
        loader = WindowLoader(
            train.x_NTF.numpy(), train.mask_NT.numpy(), train.y_N.numpy(), batch_size=32, weight_N=weight
        )
        LSTMTrainer(net, configured, torch.device("cpu")).train(loader, val)
        shares.append(net.linear_path.weight_S)

    assert not torch.allclose(*shares, rtol=0.05)


def test_it_needs_statistics():
    with pytest.raises(ValidationError, match="linear_path without window_statistics has nothing to look at"):
        ArchitectureConfig(window_statistics=False, center_windows=False, linear_path=True)
