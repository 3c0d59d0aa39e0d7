"""What a score depends on, and what it must not depend on."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamer.errors import ConfigError
from trainer.errors import ModelInputError
from trainer.learn.config import PRESETS, ArchitectureConfig, DataProcessingConfig
from trainer.learn.model.network import build_model

F = 3
PLAIN = {
    "readout": "last",
    "stem_stride": 1,
    "window_statistics": False,
    "center_windows": False,
}
READOUTS = ["last", "mean", "max", "mean_max", "attention", "mean_max_attention"]
ARCHITECTURES = {
    "default": {},
    "no stem": {"stem_stride": 1},
    "plain": PLAIN,
    "max": {"readout": "max", "stem_stride": 1},
    "mean": {"readout": "mean", "stem_stride": 3},
    "bidirectional": {"bidirectional": True, "stem_stride": 1},
    "bidirectional last": {**PLAIN, "bidirectional": True, "stem_stride": 4},
    "one layer, linear head": {"num_layers": 1, "head_hidden_dims": ()},
    "attention": {**PLAIN, "readout": "attention", "num_layers": 3},
    "bidirectional attention": {"bidirectional": True, "readout": "mean_max_attention", "stem_stride": 2},
    "batch normalisation": {"head_norm": "batch", "head_hidden_dims": (6, 5), "head_activation": "gelu"},
    "layer normalisation": {"head_norm": "layer", "head_hidden_dims": (6, 5), "head_activation": "tanh"},
}


def _windows(num=6, steps=21, seed=0):
    x = np.random.default_rng(seed).normal([1.2, 900.0, 30.0], [0.2, 60.0, 5.0], size=(num, steps, F))
    return torch.tensor(x, dtype=torch.float32)


def _model(method="robust", **options):
    model = build_model(ArchitectureConfig(**{"hidden_size": 8, **options}), F, seed=1)
    model.fit_normalisation(_windows(40), None, DataProcessingConfig(normalisation=method))
    return model.eval()


def _train_one_step(model, x, generator=None):
    model.train().set_generator(generator)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(x).square().sum().backward()
    optimizer.step()
    return model


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def model(request):
    return _model(**request.param)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_padding_at_the_end_never_changes_a_score(data):
    draw = data.draw
    statistics = draw(st.booleans())
    model = _model(
        draw(st.sampled_from(["zscore", "robust", "quantile"])),
        readout=draw(st.sampled_from(READOUTS)),
        bidirectional=draw(st.booleans()),
        num_layers=draw(st.integers(1, 3)),
        stem_stride=draw(st.integers(1, 7)),
        head_norm=draw(st.sampled_from(["none", "batch", "layer"])),
        window_statistics=statistics,
        center_windows=statistics and draw(st.booleans()),
    )
    num_steps, num_padding = draw(st.integers(1, 30)), draw(st.integers(1, 40))
    x, rng = _windows(3, num_steps), np.random.default_rng(draw(st.integers(0, 99)))
    mask = torch.from_numpy(rng.random((3, num_steps)) < draw(st.sampled_from([0.3, 1.0])))
    padding = torch.full((3, num_padding, F), draw(st.sampled_from([77.0, torch.nan, 3e38])))

    padded = model(torch.cat([x, padding], dim=1), torch.nn.functional.pad(mask, (0, num_padding)))

    torch.testing.assert_close(padded, model(x, mask))


@pytest.mark.parametrize("method", ["zscore", "robust", "quantile"])
@pytest.mark.parametrize("num_moving", [0, 10])
def test_padding_does_not_change_the_score_of_a_setpoint_that_rests(method, num_moving):
    # Its spread and slope within a window are rounding, and sums over other lengths round otherwise.
    x = _windows(200, steps=60)
    x[num_moving:, :, 0] = torch.linspace(0.7, 1.9, 200 - num_moving).unsqueeze(1)
    model = build_model(ArchitectureConfig(hidden_size=8), F, seed=3).eval()
    model.fit_normalisation(x, None, DataProcessingConfig(normalisation=method))
    mask = torch.ones(200, 60, dtype=torch.bool)

    padded = model(*(torch.nn.functional.pad(*each) for each in ((x, (0, 0, 0, 13)), (mask, (0, 13)))))

    torch.testing.assert_close(padded, model(x), rtol=1e-4, atol=1e-5)


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


def test_an_infinite_value_reads_as_a_missing_one(model):
    x = _windows()
    missing, infinite = x.clone(), x.clone()
    missing[:, 4, :2] = torch.nan
    infinite[:, 4, :2] = torch.tensor([torch.inf, -torch.inf])

    assert torch.equal(model(infinite), model(missing))


def test_the_last_output_of_the_backward_direction_is_that_of_the_first_step():
    model, x = _model(**PLAIN, num_layers=1, bidirectional=True, head_hidden_dims=()), _windows()
    z, layer = model.input_normalisation(x), model.lstm[0]

    ends = torch.cat([layer.forwards(z)[0][:, -1], layer.backwards(z.flip(1))[0][:, -1]], dim=1)

    torch.testing.assert_close(model(x), model.head(ends).squeeze(1))


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


def test_a_setpoint_that_rests_within_most_windows_is_not_made_of_rounding():
    x = _windows(200)
    x[10:, :, 0] = torch.linspace(0.7, 1.9, 190).unsqueeze(1)
    model = build_model(ArchitectureConfig(hidden_size=8), F, seed=3)

    model.fit_normalisation(x)

    mean, std, _, _, slope = model.statistics_normalisation.gain_C.view(5, F)[:, 0]
    assert mean < std < 20
    assert std < slope < 1e3


@pytest.mark.parametrize("method", ["zscore", "robust", "quantile"])
def test_the_state_is_all_that_a_scorer_needs(model, method):
    model.fit_normalisation(_windows(40), None, DataProcessingConfig(normalisation=method))
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
    assert torch.equal(a.lstm[0].weight_hh_l0, b.lstm[0].weight_hh_l0)
    assert not torch.equal(a.lstm[0].weight_hh_l0, c.lstm[0].weight_hh_l0)


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


def test_one_window_scores_and_trains_like_many(model):
    x = _windows(1)
    assert model(x).shape == (1,)

    _train_one_step(model, x)

    assert all(
        torch.isfinite(value).all() for value in model.state_dict().values() if value.is_floating_point()
    )
    assert torch.isfinite(model.eval()(_windows())).all()


def test_no_window_at_all_is_no_score(model):
    assert model(torch.zeros(0, 21, F)).shape == (0,)


def test_attention_weights_share_1_among_the_valid_steps():
    model = _model(**PLAIN | {"readout": "attention"})
    x, mask = _windows(4), torch.ones(4, 21, dtype=torch.bool)
    mask[0, 15:] = False
    mask[1, 3:8] = False
    mask[2] = False

    weights = model.attention_weights(x, mask)

    assert weights.shape == (4, 21)
    assert (weights[~mask] == 0).all()
    assert (weights[mask] > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0]))


def test_attention_weights_have_a_step_for_each_stride_of_the_stem():
    model = _model(readout="mean_max_attention", stem_stride=5)

    assert model.attention_weights(_windows(2)).shape == (2, 5)


def test_without_attention_there_are_no_weights_to_show():
    with pytest.raises(ConfigError, match=r"architecture\.readout: mean_max has no attention weights"):
        _model(readout="mean_max").attention_weights(_windows(2))


@pytest.mark.parametrize(
    ("names", "begin"),
    [
        (["stem"], ("stem.",)),
        (["lstm.0", "attention"], ("lstm.0.", "attention.")),
        (["lstm"], ("lstm.",)),
        (["head.1.weight"], ("head.1.weight",)),
        ([], ()),
    ],
)
def test_frozen_layers_keep_their_weights_and_the_others_move(names, begin):
    model = _model(readout="mean_max_attention", num_layers=2, bidirectional=True)
    before = copy.deepcopy(dict(model.named_parameters()))

    model.freeze(names)
    _train_one_step(model, _windows(20))

    kept = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert kept == {name for name in before if begin and name.startswith(begin)}


def test_freezing_lstm_1_leaves_a_layer_whose_name_only_begins_like_it():
    model = _model(head_hidden_dims=(4,) * 5)

    model.freeze(["head.1"])

    assert not model.head[1].weight.requires_grad
    assert model.head[10].weight.requires_grad


def test_an_unknown_layer_is_refused_with_the_known_ones_and_nothing_is_frozen():
    model = _model()
    with pytest.raises(
        ConfigError, match=r"no layer lstm\.7, neck to freeze; there are stem, .*lstm\.1.*head"
    ):
        model.freeze(["stem", "lstm.7", "neck"])

    assert all(p.requires_grad for p in model.parameters())


def test_replicas_in_threads_with_generators_of_their_own_train_as_if_alone():
    source = _model(readout="mean_max_attention", dropout=0.5)

    def train(seed, into):
        model = copy.deepcopy(source)
        for _ in range(3):
            _train_one_step(model, _windows(8), torch.Generator().manual_seed(seed))
        into[seed] = model.head[1].weight

    alone, together = {}, {}
    for seed in (0, 1):
        train(seed, alone)
    threads = [threading.Thread(target=train, args=(seed, together)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])
    assert not torch.equal(alone[0], alone[1])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_builds_and_trains_a_step(preset):
    model = build_model(ArchitectureConfig(preset=preset), F, seed=1)
    model.fit_normalisation(_windows(40))
    before = copy.deepcopy(dict(model.named_parameters()))

    _train_one_step(model, _windows(20))

    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]


def test_standard_is_two_lstm_layers_of_64_whose_last_output_goes_into_the_head():
    model = build_model(ArchitectureConfig(preset="standard"), F, seed=1).eval()
    model.fit_normalisation(_windows(40))
    plain = torch.nn.LSTM(F, 64, num_layers=2, batch_first=True)
    for index, layer in enumerate(model.lstm):
        for name, value in layer.named_parameters():
            plain.get_parameter(name.replace("l0", f"l{index}")).data.copy_(value.data)
    x = _windows()

    expected = model.head(plain(model.input_normalisation(x))[0][:, -1]).squeeze(1)

    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("options", [{}, {**PLAIN, "readout": "attention", "bidirectional": True}])
def test_half_precision_inside_leaves_logits_of_full_precision(options):
    model, x = _model(**options), _windows(50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)

    assert logits.dtype == torch.float32
    assert len(logits.unique()) == 50
    torch.testing.assert_close(logits, model(x), rtol=0, atol=0.05)
