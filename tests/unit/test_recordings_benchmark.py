"""The benchmark on recordings cuts, places and labels as the product does, and fails when a check does."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import labelled, plant, recordings
from streamer.plant.recording_csv import RecordedRow
from streamer.plant.simulator import Simulator, SimulatorConfig
from streamer.schema import Label
from streamer.timeline import Grid

RECORDING = Path(__file__).parents[1] / "assets" / "recording"
FAST = """
architecture: {preset: lightweight, hidden_size: 4, stem_stride: 10}
training: {max_epochs: 2}
"""


def row(ts: int, *values: float) -> RecordedRow:
    return RecordedRow("C1", None, ts, list(values), line=2)


def cast(steps: list[int], *labels: Label) -> labelled.Cast:
    x_KF = np.arange(len(steps), dtype=np.float32)[:, None]
    return labelled.Cast("C1", "H1", Grid(1000), np.asarray(steps), x_KF, labels)


def windows(cast: labelled.Cast, max_steps: int = 600) -> list[tuple[int, int, bool]]:
    """Start, length and label of each window."""
    found = labelled.labelled_windows(cast, max_steps)
    return [(address.start, address.length, defective) for address, _, defective in found]


def test_on_each_step_the_value_nearest_to_its_time_wins_for_each_sensor() -> None:
    nan = math.nan
    rows = [row(999, 1, 1), row(1000, 2, nan), row(1001, 3, 3), row(3000, nan, 4), row(3400, 5, 5)]

    step_K, x_KF = labelled.place(rows, Grid(1000))

    # At 999 and 1001 the second sensor is as near: the later stamp wins.
    assert step_K.tolist() == [1, 3]
    np.testing.assert_array_equal(x_KF, [[2, 3], [5, 4]])


def test_a_cast_is_one_window_and_a_longer_one_is_cut() -> None:
    good = Label("C1", False, inspected_at=1)
    assert windows(cast([*range(7, 607)], good)) == [(7, 600, False)]
    assert windows(cast([*range(7, 608)], good)) == [(7, 300, False), (307, 300, False)]
    assert windows(cast([*range(20)], good), max_steps=8) == [(0, 8, False), (8, 8, False)]


def test_gaps_are_steps_and_a_window_without_a_row_is_left_out() -> None:
    good = Label("C1", False, inspected_at=1)
    ((_, x_TF, _),) = labelled.labelled_windows(cast([0, 1, 4], good), 600)
    np.testing.assert_array_equal(x_TF[:, 0], [0, 1, np.nan, np.nan, 2])
    assert windows(cast([0, 1, 950], good)) == [(0, 300, False)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        #  step                     0 .. 299, 300 .. 599, 600 .. 899
        ([(True, 1, None, None)], [True, True, True]),
        ([(False, 1, None, None), (True, 2, 299_000, 299_000)], [True, False, False]),
        ([(True, 1, None, None), (False, 2, 300_000, 599_000)], [True, False, True]),
        ([(True, 1, 0, 1_000), (False, 1, None, None)], [True, False, False]),
        # Where nobody has looked, nothing is known.
        ([(False, 1, 0, 299_000), (True, 1, 700_000, 700_000)], [False, None, True]),
        ([], [None, None, None]),
    ],
)
def test_the_newest_verdict_wins_on_each_step_and_what_is_undecided_is_left_out(
    labels: list[tuple[bool, int, int | None, int | None]], expected: list[bool | None]
) -> None:
    given = [Label("C1", *each) for each in labels]
    decided = [(300 * n, 300, defective) for n, defective in enumerate(expected) if defective is not None]
    assert windows(cast([*range(900)], *given)) == decided


def test_simulated_windows_are_those_of_the_plant_benchmark() -> None:
    theirs = plant.cut(list(Simulator(SimulatorConfig(seed=3, num_casts=40)).casts()))
    ours = [(x_TF, y) for c in labelled.simulated(3, 40) for _, x_TF, y in labelled.labelled_windows(c, 600)]
    assert [y for _, y in ours] == theirs.defect_N.tolist()
    means = [np.nanmean(x_TF.astype(np.float64), axis=0) for x_TF, _ in ours]
    np.testing.assert_allclose(means, theirs.statistics_NS[:, :5], rtol=1e-9)


def test_whole_groups_lie_in_one_part_and_the_newest_in_the_last() -> None:
    def made() -> list[labelled.Cast]:
        casts = []
        for n in range(30):
            label = Label(f"C{n}", n % 2 == 0, inspected_at=1)
            steps, x_KF = np.arange(9) + n * 20, np.full((9 - n % 3, 1), n, np.float32)
            casts.append(labelled.Cast(f"C{n}", f"H{n // 3}", Grid(1000), steps[: len(x_KF)], x_KF, [label]))
        return casts

    train, validation, test = labelled.split(iter(made()), 600)
    assert [part.x_NTF[:, 0, 0].tolist() for part in (train, validation, test)] == [
        [*range(18)],
        [*range(18, 24)],
        [*range(24, 30)],
    ]
    assert train.x_NTF.shape[1] == test.mask_NT.shape[1] == 9
    assert train.mask_NT.sum(axis=1).tolist() == [9, 8, 7] * 6


def test_a_recording_and_a_campaign_give_scores_for_model_and_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fast.yaml").write_text(FAST)
    sources = [str(RECORDING), "simulator", "--casts", "80"]
    options = ["--seeds", "0", "1", "--config", str(tmp_path / "fast.yaml"), "--json"]
    code = recordings.main([*sources, *options])
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["recording", "simulator"]
    for report in result.values():
        for who in ("model", "logistic_regression", "hist_gradient_boosting"):
            assert set(report[who]) == {"auc_roc", "auc_pr", "f1", "ece"}
            seeds = [report["seeds"][seed][who]["auc_roc"] for seed in ("0", "1")]
            assert report[who]["auc_roc"] == pytest.approx(sum(seeds) / 2)
        assert 0 < report["base_rate"] < 1
    campaigns = result["simulator"]["seeds"]
    assert campaigns["0"]["logistic_regression"] != campaigns["1"]["logistic_regression"]
    (passed,) = result["simulator"]["checks"].values()
    assert (result["recording"]["checks"], code) == ({}, 0 if passed else 1)


@pytest.mark.parametrize(("auc_roc", "code"), [(0.99, 0), (0.98, 1)])
def test_it_ends_with_1_when_a_check_fails(
    auc_roc: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"auc_roc": auc_roc, "auc_pr": 0.96, "f1": 0.5, "ece": 0.01}
    baselines = dict.fromkeys(recordings.BASELINES, scores)
    report = {"model": scores, **baselines, "base_rate": 0.1, "windows": {}}
    checks = {text: check(report) for text, check in recordings.CHECKS["hydraulic_rig"].items()}
    monkeypatch.setattr(recordings, "measure", lambda *_: report | {"checks": checks})
    assert recordings.main([str(RECORDING)]) == code
    assert ("FAILED" in capsys.readouterr().out) == bool(code)


def test_behind_the_better_baseline_by_more_than_a_hundredth_fails() -> None:
    (check,) = recordings.CHECKS["simulator"].values()
    report = {name: {"auc_roc": auc} for name, auc in zip(recordings.BASELINES, (0.8, 0.9), strict=True)}
    assert check({"model": {"auc_roc": 0.891}, **report})
    assert not check({"model": {"auc_roc": 0.889}, **report})


def test_a_folder_that_is_none_and_one_with_too_few_groups_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recordings.main([str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert recordings.main(["simulator", "--casts", "8", "--seeds", "0"]) == 1
    assert "simulator: 2 groups of casts cannot be split" in capsys.readouterr().err


def test_folders_of_one_name_are_told_apart_by_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = [str(tmp_path / place / "hydraulic_rig") for place in ("a", "b")]
    for copy in copies:
        shutil.copytree(RECORDING, copy)
    scores = {"auc_roc": 0.5, "auc_pr": 0.5, "f1": 0.5, "ece": 0.01}
    monkeypatch.setattr(recordings, "train", lambda *_: SimpleNamespace(**scores))
    code = recordings.main([*copies, str(RECORDING), "--seeds", "0", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert list(result) == [*copies, "recording"]
    assert [len(report["checks"]) for report in result.values()] == [2, 2, 0]
    assert code == 1


@pytest.mark.parametrize(
    "option", [("--casts", "0"), ("--max-steps", "1"), ("--seeds", "-1"), ("--casts", "x")]
)
def test_a_number_that_is_none_is_a_mistake_of_the_command_line(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        recordings.main(["simulator", "--casts", "40", "--seeds", "0", *option])
    assert ended.value.code == 2
    assert f"argument {option[0]}: " in capsys.readouterr().err
