"""Boosted trees: scored as scikit-learn scores them, the same bits each time, and refused when they are no trees."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from structlog.testing import capture_logs
from threadpoolctl import threadpool_limits

from trainer.errors import ArtifactError, ModelInputError, NotEnoughDataError
from trainer.learn.members import tree_fitting, trees
from trainer.learn.members.tree_fitting import bin_edges, binned, fit_trees, newest_groups, trees_of
from trainer.learn.members.trees import LARGEST, MAX_DEPTH, Trees

ROOMY = 10_000_000
VALUES = [np.nan, -np.inf, np.inf, -LARGEST, LARGEST, 1e300, -0.0, 0.0, 1.0, 1.5, 2.0]


def _task(num=300, seed=0, num_statistics=6):
    """Statistics with gaps, ties and infinities; two of them tell the label."""
    rng = np.random.default_rng(seed)
    stats = rng.normal(size=(num, num_statistics))
    y = stats[:, 0] - np.abs(stats[:, 1]) + 0.5 * rng.normal(size=num) > -0.2
    stats[:, 2] = stats[:, 2].round()
    stats[rng.random(stats.shape) < 0.1] = np.nan
    stats[rng.random(stats.shape) < 0.02] = np.inf
    stats[rng.random(stats.shape) < 0.02] = -np.inf
    return stats, y, np.arange(num) // 5


def _fit(num=300, *, weight=None, max_bytes=ROOMY, **task):
    stats, y, group = _task(num, **task)
    return fit_trees(stats, y, weight, group, seed=0, max_bytes=max_bytes)


FITTED = _fit()
# A tree of three leaves, then one of two.
TENSORS = {
    "baseline": np.array(-1.0),
    "feature_M": np.array([1, -1, 0, -1, -1, 2, -1, -1], dtype=np.int16),
    "missing_left_M": np.array([1, 0, 0, 0, 0, 1, 0, 0], dtype=np.uint8),
    "number_M": np.array([0.5, 1.0, 2.0, 10.0, 100.0, LARGEST, 1000.0, 2000.0]),
}


def _chain(depth):
    """One tree, each split with a leaf on its left."""
    feature = np.array([0, -1] * depth + [-1], dtype=np.int16)
    return {
        "baseline": np.array(0.0),
        "feature_M": feature,
        "missing_left_M": np.zeros(len(feature), np.uint8),
        "number_M": np.zeros(len(feature)),
    }


# Scores


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_logits_are_those_of_scikit_learn_to_the_bit(data):
    seed, num, few = (data.draw(st.integers(*bounds)) for bounds in ((0, 10_000), (2, 120), (1, 3)))
    rng = np.random.default_rng(seed)
    pool = np.array([*data.draw(st.lists(st.sampled_from(VALUES), min_size=1)), *rng.normal(size=few * 5)])
    train, test = rng.choice(pool, size=(num, 4)), rng.choice([*pool, *VALUES], size=(50, 4))
    train[:, data.draw(st.integers(0, 3))] = data.draw(st.sampled_from([np.nan, np.inf, 3.0]))
    y = rng.permutation(np.arange(num) < data.draw(st.integers(1, num - 1)))
    edges = [bin_edges(column) for column in train.T]
    booster = tree_fitting._booster(num, seed).set_params(max_iter=8, min_samples_leaf=1)

    # Not `binned`: that is told of columns without a value.
    columns = zip(edges, test.T, strict=True)
    bins = np.stack([np.where(np.isnan(x), np.nan, np.searchsorted(edge, x)) for edge, x in columns], axis=1)
    # Several threads beside a busy process take many times longer.
    with threadpool_limits(1):
        expected = booster.fit(binned(train, edges), y).decision_function(bins)

    np.testing.assert_array_equal(trees_of(booster, edges).logits(test), expected)


def test_they_are_as_good_as_the_task_allows_on_windows_they_have_not_seen():
    stats, y, _ = _task(seed=1)

    assert ((FITTED.logits(stats) > 0) == y).mean() > 0.75


@pytest.mark.parametrize(
    ("window", "logit"),
    [
        ((3.0, 0.5, 0.0), 1000.0),
        ((2.0, 0.6, np.inf), 1009.0),
        ((np.inf, np.inf, -np.inf), 1099.0),
        ((np.nan, np.inf, 1.0), 1099.0),
        ((0.0, np.nan, LARGEST), 1000.0),
    ],
)
def test_values_up_to_the_threshold_go_left_and_missing_ones_as_the_split_says(window, logit):
    assert Trees.from_tensors(TENSORS, 3).logits(np.array([window])) == [logit]


def test_an_infinite_threshold_tells_missing_values_from_all_others():
    rng = np.random.default_rng(0)
    y = rng.random(200) < 0.4
    stats = np.where(y, np.nan, rng.normal(size=200))[:, None]

    trees = fit_trees(stats, y, None, np.arange(200), seed=0, max_bytes=ROOMY)
    missing, *others = trees.logits(np.array([[np.nan], [-np.inf], [0.0], [LARGEST], [np.inf]]))

    assert missing > 1
    assert max(others) < -1


def test_a_window_scores_the_same_bits_alone_and_among_others(monkeypatch):
    stats, *_ = _task(200)
    together = FITTED.logits(stats)

    assert together.tobytes() == b"".join(FITTED.logits(stats[n : n + 1]).tobytes() for n in range(200))
    monkeypatch.setattr(trees, "VALUES_A_PASS", 7 * FITTED.num_trees)
    assert together.tobytes() == FITTED.logits(stats).tobytes()
    assert FITTED.logits(stats[:0]).shape == (0,)


def test_a_pass_holds_few_windows_at_a_time(monkeypatch):
    sizes = []
    leaves = Trees._leaves
    monkeypatch.setattr(trees, "VALUES_A_PASS", 10 * FITTED.num_trees)
    monkeypatch.setattr(Trees, "_leaves", lambda self, x: sizes.append(len(x)) or leaves(self, x))

    FITTED.logits(_task(25)[0])

    assert sizes == [10, 10, 5]


@pytest.mark.parametrize("shape", [(4, 5), (4, 7), (6,)])
def test_windows_of_other_sensors_are_refused(shape):
    with pytest.raises(ModelInputError, match="expected 6 statistics a window"):
        FITTED.logits(np.zeros(shape))


def test_scoring_needs_neither_scikit_learn_nor_torch():
    code = "import sys, trainer.learn.members.trees; sys.exit(bool({'sklearn', 'torch', 'scipy'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The file


def test_tensors_come_back_from_a_file_as_they_were():
    data = safetensors.numpy.save(FITTED.tensors())
    read = Trees.from_tensors(safetensors.numpy.load(data), 6)

    assert safetensors.numpy.save(read.tensors()) == data
    assert all(np.isfinite(tensor).all() for tensor in FITTED.tensors().values())
    assert FITTED.num_bytes == sum(tensor.nbytes for tensor in FITTED.tensors().values())
    stats, *_ = _task()
    assert read.logits(stats).tobytes() == FITTED.logits(stats).tobytes()


@pytest.mark.parametrize("num", [0, 1, 7, 10_000])
def test_the_first_trees_are_what_the_booster_was_after_so_many(num):
    first = FITTED.first(num)

    end = FITTED.root_K[num] if num < FITTED.num_trees else len(FITTED.feature_M)
    assert first.num_trees == min(num, FITTED.num_trees)
    assert len(first.feature_M) == end
    read = Trees.from_tensors(first.tensors(), 6)
    stats, *_ = _task(50)
    assert read.logits(stats).tobytes() == first.logits(stats).tobytes()
    expected = np.full(50, FITTED.baseline)
    for leaf in FITTED._leaves(np.minimum(stats, LARGEST))[:num]:
        expected += FITTED.number_M[leaf]
    np.testing.assert_array_equal(first.logits(stats), expected)


def _changed(name, value):
    return TENSORS | {name: value}


def _at(name, place, value):
    tensor = TENSORS[name].copy()
    tensor[place] = value
    return _changed(name, tensor)


def _nodes(feature):
    num = len(feature)
    return {
        "baseline": np.array(0.0),
        "feature_M": np.array(feature, dtype=np.int16),
        "missing_left_M": np.zeros(num, np.uint8),
        "number_M": np.zeros(num),
    }


REFUSED = {
    "an array is missing": ({k: v for k, v in TENSORS.items() if k != "number_M"}, "expected the arrays"),
    "an array is foreign": (_changed("left_M", np.zeros(8)), "expected the arrays"),
    "a type that loses digits": (
        _changed("number_M", np.zeros(8, np.float32)),
        "expected number_M",
    ),
    "another byte order": (_changed("number_M", TENSORS["number_M"].astype(">f8")), "expected number_M"),
    "a type without a sign": (_changed("feature_M", np.zeros(8, np.uint16)), "int16 or int32"),
    "flags as bool": (_changed("missing_left_M", np.zeros(8, np.bool_)), "expected missing_left_M"),
    "another number of axes": (_changed("baseline", np.zeros(1)), "expected baseline"),
    "a length of its own": (_changed("missing_left_M", np.zeros(7, np.uint8)), "differ in length"),
    "a flag of 2": (_at("missing_left_M", 3, 2), "neither 0 nor 1"),
    "a statistic too many": (_at("feature_M", 2, 3), "outside 0 to 2"),
    "a statistic below 0": (_at("feature_M", 2, -2), "outside 0 to 2"),
    "a leaf of NaN": (_at("number_M", 1, np.nan), "number_M holds NaN or infinite"),
    "an infinite leaf": (_at("number_M", 7, -np.inf), "number_M holds NaN or infinite"),
    "a threshold of NaN": (_at("number_M", 0, np.nan), "number_M holds NaN or infinite"),
    "an infinite threshold": (_at("number_M", 5, np.inf), "number_M holds NaN or infinite"),
    "a baseline of NaN": (_changed("baseline", np.array(np.nan)), "baseline holds NaN or infinite"),
    "leaves that add up to infinity": (
        TENSORS | {"number_M": np.full(8, LARGEST)},
        "add up to infinity",
    ),
    "a leaf is cut off": ({k: v[:-1] if v.ndim else v for k, v in TENSORS.items()}, "do not make up trees"),
    "splits only": (_nodes([0, 1, 2]), "do not make up trees"),
    "a split without anything below it": (_nodes([-1, -1, 0]), "do not make up trees"),
    "a leaf first, its split behind it": (_nodes([-1, 0, -1, 0]), "do not make up trees"),
    "too deep": (_chain(MAX_DEPTH + 1), f"more than {MAX_DEPTH} splits"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_make_up_trees_is_refused(fault):
    tensors, message = REFUSED[fault]

    with pytest.raises(ArtifactError, match=message):
        Trees.from_tensors(tensors, 3)


def test_the_deepest_trees_that_are_taken_are_scored():
    assert Trees.from_tensors(_chain(MAX_DEPTH), 1).logits(np.ones((2, 1))).tolist() == [0.0, 0.0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=24))
def test_any_nodes_are_refused_or_trees_in_which_each_node_is_reached_once(feature):
    try:
        trees = Trees.from_tensors(_nodes(feature), 2)
    except ArtifactError:
        return
    reached, ahead = [], list(trees.root_K)
    while ahead:
        node = int(ahead.pop())
        reached.append(node)
        if feature[node] >= 0:
            ahead += [node + 1, int(trees.right_M[node])]

    assert sorted(reached) == list(range(len(feature)))
    assert all(trees.right_M[n] > n + 1 for n in range(len(feature)) if feature[n] >= 0)


# The fit


@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_same_windows_and_seed_give_the_same_bits(is_weighted):
    weight = np.linspace(0.1, 3, 300) if is_weighted else None

    first, again = (safetensors.numpy.save(_fit(weight=weight).tensors()) for _ in range(2))

    assert first == again


def test_windows_that_count_nothing_change_nothing_and_weights_have_no_unit():
    stats, y, group = _task()
    weight = np.tile([1.0, 0.5, 0.0], 100)
    other, *_ = _task(seed=9)
    changed = np.where(weight[:, None] > 0, stats, other)

    first, second, third = (
        fit_trees(x, labels, w, group, seed=0, max_bytes=ROOMY)
        for x, labels, w in (
            (stats, y, weight),
            (changed, np.where(weight > 0, y, ~y), weight),
            (stats, y, weight * 2.0**-60),
        )
    )

    assert first.logits(stats).tobytes() == second.logits(stats).tobytes() == third.logits(stats).tobytes()
    assert first.logits(stats).std() > 0.3


def test_windows_that_count_more_are_learnt_more():
    stats, y, group = np.zeros((200, 1)), np.arange(200) % 2 == 0, np.arange(200)

    trees = fit_trees(stats, y, np.where(y, 3.0, 1.0), group, seed=0, max_bytes=ROOMY)

    assert trees.logits(stats[:1]) == pytest.approx(np.log(3))


def test_the_newest_windows_teach_too():
    stats, y, group = _task(400)
    stats[:, 5] = 0.0
    stats[320:, 5] = np.where(y[320:], 50.0, -50.0)

    trees = fit_trees(stats, y, None, group, seed=0, max_bytes=ROOMY)
    probe = np.repeat(stats[:1], 2, axis=0)
    probe[:, 5] = [-50.0, 50.0]
    low, high = trees.logits(probe)

    assert high - low > 1


@pytest.mark.parametrize("turn", [0.0, 1.2])
def test_the_number_of_trees_is_what_ranks_the_newest_windows_best(turn, monkeypatch):
    monkeypatch.setattr(tree_fitting, "LEAST_GAIN", 0.0)
    monkeypatch.setattr(tree_fitting, "PATIENCE", 100)
    stats, y, group = _task(400)
    # A weak column, which is learnt last, and which may turn in the newest windows.
    stats[:, 5] = np.where(y, 0.6, 0.0) + np.random.default_rng(3).normal(size=400)
    stats[320:, 5] -= np.where(y[320:], turn, 0.0)

    num_trees = fit_trees(stats, y, None, group, seed=0, max_bytes=ROOMY).num_trees

    bins = binned(stats, [bin_edges(column) for column in stats.T])
    ranked = {}
    for num in range(tree_fitting.MIN_TREES, tree_fitting.MAX_TREES + 1, tree_fitting.STEP_TREES):
        with threadpool_limits(1):
            booster = tree_fitting._booster(400, 0).set_params(max_iter=num).fit(bins[:320], y[:320])
            ranked[num] = roc_auc_score(y[320:], booster.decision_function(bins[320:]))
    assert len(set(ranked.values())) > 1
    assert num_trees == max(ranked, key=lambda num: ranked[num])


def test_a_statistic_that_only_the_newest_windows_have_can_be_fitted_to():
    stats, y, group = _task(400)
    stats[:-20, 2] = np.nan
    assert np.isfinite(fit_trees(stats, y, None, group, seed=0, max_bytes=ROOMY).logits(stats)).all()


def test_a_rank_that_is_hardly_better_adds_no_trees_and_ends_the_search(monkeypatch):
    monkeypatch.setattr(tree_fitting, "LEAST_GAIN", 0.5)
    monkeypatch.setattr(tree_fitting, "PATIENCE", 2)
    looks = []
    monkeypatch.setattr(
        tree_fitting, "roc_auc_score", lambda *_, **__: looks.append(0.6 + len(looks) / 9) or looks[-1]
    )

    assert _fit().num_trees == tree_fitting.MIN_TREES
    assert len(looks) == 3


def test_too_few_newest_windows_of_a_class_give_the_default_number_of_trees():
    stats, y, group = _task(600)
    y[350:] = False

    assert fit_trees(stats, y, None, group, seed=0, max_bytes=ROOMY).num_trees == tree_fitting.MIN_TREES


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=150))
def test_a_group_is_never_split_and_the_newest_ones_are_set_aside(windows):
    group, y = (np.array(each) for each in zip(*windows, strict=True))

    is_newest = newest_groups(y, group)

    if is_newest is not None:
        low, high = tree_fitting.NEWEST_SHARE
        assert low <= is_newest.mean() <= high
        assert group[is_newest].min() > group[~is_newest].max()
        counts = [(y[side] == label).sum() for side in (is_newest, ~is_newest) for label in (0, 1)]
        assert min(counts) >= tree_fitting.LEAST_OF_A_CLASS


def test_as_few_newest_groups_are_set_aside_as_have_enough_of_each_class():
    group = np.repeat(np.arange(10), 10)
    y = np.tile(np.arange(10) < 5, 10)

    first = newest_groups(y, group)
    y[group == 8] = False
    y[group == 9] = np.arange(10) < 3
    further = newest_groups(y, group)

    assert first is not None
    assert further is not None
    assert group[first].min() == 8
    assert group[further].min() == 7
    assert newest_groups(y, np.zeros(100, np.int64)) is None
    y[group >= 6] = False
    assert newest_groups(y, group) is None
    assert newest_groups((group >= 8) & (np.arange(100) % 2 == 0), group) is None


def test_the_last_trees_are_left_out_where_all_would_be_too_large():
    max_bytes = FITTED.num_bytes // 2

    with capture_logs() as logs:
        small = _fit(max_bytes=max_bytes)

    stats, *_ = _task()
    assert small.num_bytes <= max_bytes < FITTED.first(small.num_trees + 1).num_bytes
    assert small.logits(stats).tobytes() == FITTED.first(small.num_trees).logits(stats).tobytes()
    assert [(log["log_level"], log["num_trees"], log["fitted"]) for log in logs] == [
        ("warning", small.num_trees, FITTED.num_trees)
    ]
    assert _fit(max_bytes=FITTED.num_bytes).num_trees == FITTED.num_trees
    with capture_logs():
        assert _fit(max_bytes=0).num_trees == 0


@pytest.mark.parametrize("num", [2, 3, 9, 30])
def test_very_few_windows_are_fitted(num):
    stats, *_ = _task(num)
    y = np.arange(num) == 0

    trees = fit_trees(stats, y, None, np.arange(num), seed=0, max_bytes=ROOMY)

    assert np.isfinite(trees.logits(stats)).all()


def test_a_statistic_never_seen_in_training_is_ignored_when_it_comes_to_life():
    stats, y, group = _task()
    stats[:, 0], stats[:, 3], stats[:, 4] = np.nan, 7.0, np.inf

    trees = fit_trees(stats, y, None, group, seed=0, max_bytes=ROOMY)
    alive = stats.copy()
    alive[:, [0, 3, 4]] = [[1.0, np.nan, 2.0]]

    assert not np.isin([0, 3, 4], trees.feature_M).any()
    np.testing.assert_array_equal(trees.logits(alive), trees.logits(stats))


def test_statistics_that_tell_nothing_give_the_rate_of_defects():
    y = np.arange(100) < 25

    trees = fit_trees(np.full((100, 2), np.nan), y, None, np.arange(100), seed=0, max_bytes=ROOMY)

    assert trees.logits(np.zeros((1, 2))) == pytest.approx(np.log(25 / 75))


@pytest.mark.parametrize(("num_statistics", "dtype"), [(32_767, np.int16), (32_768, np.int32)])
def test_statistics_beyond_the_range_of_int16_are_named_in_int32(num_statistics, dtype):
    edges = [np.array([0.5])]
    booster = tree_fitting._booster(40, 0).set_params(max_iter=1)
    with threadpool_limits(1):
        booster.fit(np.repeat([[0.0], [1.0]], 20, axis=0), np.arange(40) >= 20)

    trees = trees_of(booster, edges * num_statistics)

    assert trees.tensors()["feature_M"].dtype == dtype
    assert Trees.from_tensors(trees.tensors(), num_statistics).feature_M.tolist() == [0, -1, -1]


@pytest.mark.parametrize("label", [False, True])
@pytest.mark.parametrize("weight", [None, np.ones(60), np.zeros(60)], ids=["none", "ones", "zeros"])
def test_one_class_is_refused(label, weight):
    stats, _, group = _task(60)

    with pytest.raises(NotEnoughDataError, match="trees need both classes"):
        fit_trees(stats, np.full(60, label), weight, group, seed=0, max_bytes=ROOMY)


def test_no_window_of_a_class_that_counts_is_refused():
    stats, y, group = _task(60)

    with pytest.raises(NotEnoughDataError, match="got 0 defective"):
        fit_trees(stats, y, np.where(y, 0.0, 1.0), group, seed=0, max_bytes=ROOMY)


def test_arrays_that_do_not_fit_are_refused():
    stats, y, group = _task(60)

    for arrays, message in (
        ((stats[:, 0], y, None, group), "expected statistics"),
        ((stats[:, :0], y, None, group), "expected statistics"),
        ((stats, y[1:], None, group), "expected 60 labels"),
        ((stats, y.astype(np.int8), None, group), "type bool"),
        ((stats, y, np.ones(59), group), "expected 60 weights"),
        ((stats, y, None, group[:, None]), "expected 60 groups"),
        *((((stats, y, np.where(y, bad, 1.0), group)), "a weight is") for bad in (-1.0, np.nan, np.inf)),
    ):
        with pytest.raises(ModelInputError, match=message):
            fit_trees(*arrays, seed=0, max_bytes=ROOMY)


@pytest.mark.parametrize("num_values", [1, 2, 255, 256, 5000])
def test_bins_are_few_and_of_as_many_windows_each(num_values):
    values = np.random.default_rng(0).permutation(np.arange(num_values) ** 2.0)

    edges = bin_edges(np.append(values, np.nan))

    assert len(edges) == min(num_values, tree_fitting.MAX_BINS) - 1
    sizes = np.bincount(np.searchsorted(edges, values))
    assert sizes.max() - sizes.min() <= 1
