"""The benchmark of test-then-train: nothing is learned before it is known, and nothing scored after it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog

from benchmarks.continual import __main__ as command_line
from benchmarks.continual import rivals, verdict
from benchmarks.continual.campaign import Campaign, Known, LabelChange, campaign_of
from benchmarks.continual.method import Cost
from benchmarks.continual.product import NeverRetrained, Ours
from benchmarks.continual.run import METHODS, methods_of
from benchmarks.continual.run import test_then_train as work_off
from benchmarks.continual.source import RecordedWindows
from benchmarks.labelled import Cast, Ints
from streamer.schema import Label
from streamer.timeline import Grid
from trainer.data.dataset import DatasetManifest, freeze, load
from trainer.errors import NotEnoughDataError
from trainer.learn.config import ArchitectureConfig, ModelSettings, TrainingConfig
from trainer.learn.scores.evaluate import Probabilities

STEPS, PERIOD_MS, GROUP = 20, 1000, 3
CAST_MS = STEPS * PERIOD_MS
DELAY_MS = 5 * CAST_MS
SMALL = ModelSettings(
    architecture=ArchitectureConfig(
        preset="lightweight", hidden_size=4, window_statistics=True, linear_path=True
    ),
    training=TrainingConfig(max_epochs=2),
)
FAST = "architecture: {preset: lightweight, hidden_size: 4}\ntraining: {max_epochs: 1}\n"
FIGURES = {"auc_roc", "auc_pr", "brier", "ece"}
COSTS = {"seconds", "cpu_seconds", "published", "refused", "unscored"}


def casts(num_casts: int, delay_ms: int = DELAY_MS) -> list[Cast]:
    """Casts one after the other, three a heat, every third one defective and higher in its first sensor."""
    rng, made = np.random.default_rng(0), []
    for n in range(num_casts):
        defective = n % GROUP == 1
        x_TF = rng.standard_normal((STEPS - n % 2, 2)).astype(np.float32)
        x_TF[:, 0] += 6 * defective
        label = Label(f"C{n:03}", defective, inspected_at=(n + 1) * CAST_MS + delay_ms)
        steps = n * STEPS + np.arange(len(x_TF))
        made.append(Cast(f"C{n:03}", f"H{n // GROUP:03}", Grid(PERIOD_MS), steps, x_TF, [label]))
    return made


def campaign(num_casts: int = 120) -> Campaign:
    return campaign_of(casts(num_casts), 600)


@pytest.fixture(autouse=True)
def _logging_is_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_chunks_are_whole_groups_one_after_the_other() -> None:
    made = campaign()
    chunks = made.chunks(7)
    assert [n for chunk_N in chunks for n in chunk_N] == list(range(36, 120))
    assert {len(chunk_N) for chunk_N in chunks} == {12}
    groups = [{made.groups[n] for n in chunk_N} for chunk_N in chunks]
    assert sum(map(len, groups)) == len(set().union(*groups))
    with pytest.raises(NotEnoughDataError, match="1 groups"):
        campaign(3).chunks(7)


def test_groups_that_overlap_in_time_stand_in_the_order_of_their_beginnings() -> None:
    made = casts(12)
    strands = [
        Cast(each.cast_id, f"S{n % 2}-{n // 6}", each.grid, each.step_K, each.x_KF, each.labels)
        for n, each in enumerate(made)
    ]
    mixed = campaign_of(reversed(strands), 600)
    assert list(dict.fromkeys(mixed.groups)) == ["S0-0", "S1-0", "S0-1", "S1-1"]
    begins = [mixed.start_ms_N[chunk_N].min() for chunk_N in mixed.chunks(3)]
    assert begins == sorted(begins)


def test_a_label_is_known_from_its_inspection_on_and_a_later_one_changes_it() -> None:
    (cast,) = casts(1)
    labels = [
        Label("C000", False, inspected_at=1),  # long before the cast is over
        Label("C000", True, inspected_at=CAST_MS + 500, from_ts=0, to_ts=3_000),
        Label("C000", True, inspected_at=CAST_MS + 900),  # says nothing new
    ]
    made = campaign_of([Cast("C000", "H", cast.grid, cast.step_K, cast.x_KF, labels)], 600)
    assert made.changes == (LabelChange(CAST_MS, 0, False), LabelChange(CAST_MS + 500, 0, True))
    known = [made.known(CAST_MS + ms).y_N.tolist() for ms in (-1, 0, 499, 500)]
    assert known == [[], [False], [False], [True]]
    assert made.y_N.tolist() == [True]


def test_the_trainer_freezes_what_is_known_and_reads_it_again_to_the_bit() -> None:
    made = campaign()
    windows = RecordedWindows(made, now_ms=60 * CAST_MS)
    frozen = freeze(windows, max_windows=1000)
    # The labels of the last five casts are on their way.
    assert frozen.casts == tuple(f"C{n:03}" for n in range(55))
    assert frozen.y_N.tolist() == [n % GROUP == 1 for n in range(55)]
    assert frozen.manifest.arrival == windows.last_arrival() == 55
    np.testing.assert_array_equal(load(windows, frozen.manifest).x_NTF, frozen.x_NTF)
    np.testing.assert_array_equal(frozen.mask_NT, made.mask_NT[:55])


class Watched:
    """Ours, with a look at what its models were trained on whenever they score."""

    def __init__(self, ours: Ours, campaign: Campaign) -> None:
        self.ours, self._campaign = ours, campaign
        self.now_ms, self.scored, self.champions = 0, [], []

    @property
    def cost(self) -> Cost:
        return self.ours.cost

    def update(self, known: Known) -> str:
        self.now_ms = known.at_ms
        return self.ours.update(known)

    def score(self, index_N: Ints) -> Probabilities | None:
        registry = self.ours.registry
        version = registry.champion_version()
        self.champions.append(version)
        self.scored += index_N.tolist()
        if version is not None:
            path = registry.folder / "versions" / f"{version}" / "dataset.json"
            trained_on = DatasetManifest.model_validate_json(path.read_bytes()).casts
            assert trained_on.keys() <= {f"C{n:03}" for n in range(self.now_ms // CAST_MS - 5)}
            assert not trained_on.keys() & {self._campaign.addresses[n].cast_id for n in index_N}
        return self.ours.score(index_N)


def test_no_window_is_scored_by_a_model_that_saw_it_or_a_label_that_had_not_arrived(tmp_path: Path) -> None:
    made = campaign(240)
    ours = Ours(made, SMALL, tmp_path)
    watched, first = Watched(ours, made), NeverRetrained(made, ours)
    lines: list[str] = []

    result = work_off(made, {"ours": watched, "never_retrained": first}, 4, lines.append)

    ours.close()
    assert sorted(watched.scored) == list(range(72, 240))
    # As long as the gate part has too few defective casts there is no model.
    assert watched.champions[0] is None
    assert None not in watched.champions[1:]
    assert result["ours"]["unscored"] == result["never_retrained"]["unscored"] == 42
    assert "waits: " in lines[0]
    decided = result["ours"]["published"] + result["ours"]["refused"]
    assert (decided, result["never_retrained"]["published"]) == (3, 1)
    assert 0 < result["never_retrained"]["seconds"] < result["ours"]["seconds"]


def test_an_lstm_validates_on_the_newest_groups_and_on_more_where_these_are_of_one_class() -> None:
    made = campaign(30)
    index_N = np.arange(30)
    train_N, validation_N = rivals.in_time(made, index_N, made.y_N)
    assert (train_N.tolist(), validation_N.tolist()) == ([*range(24)], [*range(24, 30)])

    last_defect = made.y_N & (index_N < 12)
    train_N, _ = rivals.in_time(made, index_N, last_defect)
    assert train_N.tolist() == [*range(9)]
    with pytest.raises(NotEnoughDataError, match="30 windows have no"):
        rivals.in_time(made, index_N, np.zeros(30, dtype=np.bool_))


def test_fine_tuning_sees_what_is_new_alone_and_refitting_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = campaign(60)
    monkeypatch.setattr(rivals, "ModelSettings", lambda **given: SMALL.model_copy(update=given))  # noqa: PLW0108
    architecture = SMALL.architecture
    told: dict[bool, list[str]] = {}
    for carries_on in (True, False):
        method = rivals.TrainedLSTM(made, architecture, 0, carries_on=carries_on)
        assert method.score(np.arange(3)) is None
        # Nothing new was labelled the third time.
        told[carries_on] = [method.update(made.known(n * CAST_MS)) for n in (35, 45, 45)]
    assert told[True][:2] == ["trained on 24 + 6 windows", "trained on 6 + 4 windows"]
    assert told[True][2].startswith("keeps its model: 0 windows")
    assert told[False][1:] == ["trained on 33 + 7 windows"] * 2


def test_all_methods_score_the_same_windows() -> None:
    made = campaign(120)
    with methods_of(made, SMALL, 0, METHODS) as methods:
        result = work_off(made, methods, 1, lambda _: None)
    assert list(result) == list(METHODS)
    for report in result.values():
        assert set(report) == FIGURES | COSTS
    assert result["logistic_regression"]["auc_roc"] > 0.9
    assert result["lstm_refit"]["published"] == 1


def test_a_recording_gives_one_report_a_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fast.yaml").write_text(FAST)
    methods = ["ours", "logistic_regression", "hist_gradient_boosting"]
    options = ["--casts", "90", "--chunks", "2", "--seeds", "0", "1", "--config", str(tmp_path / "fast.yaml")]

    code = command_line.main(["simulator", *options, "--methods", *methods, "--json"])

    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["simulator", "windows", "mean", "checks"]
    assert list(result["simulator"]) == list(result["mean"]) == methods
    assert set(result["simulator"]["ours"]) == FIGURES | COSTS
    # Ours waits for more casts: too few of the gate part are defective.
    assert result["simulator"]["ours"]["unscored"] == result["windows"]["simulator"]["scored"]
    assert code == 1


def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err


def report(auc_roc: float, auc_pr: float, seconds: float) -> dict[str, float]:
    return {"auc_roc": auc_roc, "auc_pr": auc_pr, "seconds": seconds}


def test_ours_may_be_a_hundredth_behind_but_not_on_average_and_not_dearer_than_refitting() -> None:
    def failed(*reports: dict[str, dict[str, float]]) -> list[str]:
        mean = {name: verdict.mean_of([each[name] for each in reports]) for name in reports[0]}
        named = {f"r{n}": each for n, each in enumerate(reports)}
        return [text for text, holds in verdict.checks_of(named, mean).items() if not holds]

    behind = {"ours": report(0.891, 0.8, 9), "lstm_refit": report(0.9, 0.7, 10)}
    ahead = {"ours": report(0.9, 0.8, 9), "lstm_refit": report(0.88, 0.7, 10)}
    far_behind = {"ours": report(0.88, 0.8, 11), "lstm_refit": report(0.9, 0.7, 10)}
    assert failed(behind, ahead) == []
    assert failed(behind) == ["mean AUC-ROC ahead of every rival"]
    assert failed(far_behind, ahead) == [
        "r0: at most 0.01 AUC-ROC behind the best rival",
        "mean AUC-ROC ahead of every rival",
        "r0: trains no longer than lstm_refit",
    ]
    assert failed({"ours": report(0.5, 0.5, 1)}) == []
