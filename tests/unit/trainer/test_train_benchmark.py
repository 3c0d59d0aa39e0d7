"""The training benchmark: that everyone trains the same, its checks, and a small run of ours."""

from __future__ import annotations

import importlib
import io
import json
import math
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ingest.child import CompetitorError
from benchmarks.ingest.environment import PeersMissingError
from benchmarks.train import __main__ as command
from benchmarks.train import measured, race, report
from benchmarks.train.__main__ import main
from benchmarks.train.data import simulate, write_race, write_work
from benchmarks.train.job import Job
from benchmarks.train.measured import Run, medians, run_child, train
from benchmarks.train.peers.plain_model import Data

RUN = Run(
    seconds=2.0, cpu_s=3.0, peak_rss_mb=10.0, torch="2", val_loss=1.0, auc=(0.5, 0.9), champion_auc=None
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("work") / "work.npz"
    write_work(path, 64, 64, num_epochs=2, batch_size=16)
    return path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Competitors run in this process: most of the time of a short training is the start of Python and torch."""

    def run_here(_: str, module: str, *arguments: str, python: str) -> tuple[dict[str, Any], float]:
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with redirect_stdout(io.StringIO()) as out:
            importlib.import_module(module).main()
        return json.loads(out.getvalue()), 1.0

    monkeypatch.setattr(measured, "run_child", run_here)
    # The loop of the tutorials needs torch alone, so it runs without the peers' environment.
    monkeypatch.setattr(measured, "python_of", lambda _: sys.executable)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("readout", "max_epochs"), [("last", 1), ("mean", 2)])
def test_ours_and_the_plain_loop_come_to_the_same_loss(work: Path, readout: Any, max_epochs: int) -> None:
    job = Job(str(work), readout, max_epochs, batch_size=16)
    ours, plain = train("ours", job), train("plain", job)
    assert math.isclose(ours.val_loss, plain.val_loss, rel_tol=1e-4)
    assert ours.torch == plain.torch


@pytest.mark.usefixtures("here")
def test_fine_tuning_begins_with_the_weights_of_the_champion(work: Path, tmp_path: Path) -> None:
    champion = str(tmp_path / "champion.pt")
    trained = train("ours", Job(str(work), "last", max_epochs=1, save_to=champion))
    tuned = train("ours", Job(str(work), "last", max_epochs=1, champion=champion))
    assert tuned.champion_auc == pytest.approx(trained.auc[0], abs=1e-6)


def test_peers_get_each_window_once_an_epoch_in_another_order(work: Path) -> None:
    sampler = Data(Job(str(work), "last", max_epochs=2)).sampler
    assert sampler is not None
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second


def test_peers_get_standardised_windows_without_gaps(work: Path) -> None:
    data = Data(Job(str(work), "last", max_epochs=2))
    with np.load(work) as arrays:
        known = np.isfinite(arrays["x_train"])
    x_NTF = data.train.tensors[0].numpy()
    assert not known.all()
    assert (x_NTF[~known] == 0).all()
    assert abs(x_NTF[known].mean()) < 1e-4
    assert abs(x_NTF[..., 0][known[..., 0]].std() - 1) < 1e-4


def test_a_race_is_split_by_regime_and_by_whole_heats(tmp_path: Path) -> None:
    write_race(tmp_path / "before.npz", tmp_path / "after.npz", seed=1, num_casts=160)
    windows = simulate(1, 160, regime_changes=(0.25, 0.5, 0.75))
    for regime, name in ((2, "before"), (3, "after")):
        with np.load(tmp_path / f"{name}.npz") as arrays:
            train_x, val_x = arrays["x_train"], arrays["x_val"]
        part = windows[windows.regime_N == regime]
        assert np.array_equal(np.concatenate([train_x, val_x]), part.x_NTF, equal_nan=True)
        assert part.heat_N[len(train_x) - 1] < part.heat_N[len(train_x)]
        assert 0.2 < len(val_x) / len(part) < 0.4


@pytest.mark.parametrize(
    ("auc_E", "reached"),
    [((0.9,), False), ((0.9, 0.8, 0.9), False), ((0.1, 0.88, 0.88), True), ((0.9, 0.9, 0.1), False)],
)
def test_the_target_is_reached_by_two_validations_running(auc_E: tuple[float, ...], reached: bool) -> None:
    assert Job("", None, 1, target_auc=0.88).is_reached(auc_E) is reached
    assert not Job("", None, 1).is_reached(auc_E)


def lap(seconds: float, reached: bool = True, champion_auc: float | None = None) -> race.Lap:
    return race.Lap(replace(RUN, seconds=seconds, champion_auc=champion_auc), reached)


def test_the_median_of_the_seeds_counts_and_who_did_not_arrive_took_longer() -> None:
    laps = [lap(3.0), lap(50.0, reached=False), lap(2.0)]
    assert race.seconds(laps) == 3.0
    assert race.seconds([*laps[:2], lap(40.0, reached=False)]) is None
    races = {seed: {"scratch": lap(2.0), "lightning": each} for seed, each in enumerate(laps)}
    assert race.summary(races, "scratch") == {"scratch": 2.0, "lightning": 3.0, "lightning_at_least": 3.0}
    unreached = {1: {"scratch": lap(2.0), "lightning": lap(50.0, reached=False)}}
    assert race.summary(unreached) == {"lightning": None, "lightning_at_least": 50.0}


def test_a_champion_that_is_still_good_does_not_count() -> None:
    assert race.seconds([lap(1.0, champion_auc=0.81), lap(5.0, champion_auc=0.79)]) == 5.0
    assert race.seconds([lap(1.0, champion_auc=0.81)]) is None
    races = {seed: {"finetune": lap(1.0, champion_auc=auc)} for seed, auc in enumerate((0.79, 0.81))}
    assert not any(race.checks(races).values())
    assert all(race.checks({0: races[0]}).values())


def test_the_median_of_the_rounds_counts_and_the_largest_memory() -> None:
    runs = [replace(RUN, seconds=seconds, peak_rss_mb=100 / seconds) for seconds in (1.0, 4.0, 2.0)]
    figures = medians(runs, num_sequences=1000)
    assert (figures["sequences_per_s"], figures["peak_rss_mb"]) == (500, 100)
    assert figures["cpu_s_per_thousand"] == 3
    assert figures["runs"] == [1000, 250, 500]


def figures(last: dict[str, float], pooled: dict[str, float]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        readout: {
            name: {"sequences_per_s": speed, "peak_rss_mb": 500.0, "val_loss": 1.0, "torch": "2"}
            for name, speed in speeds.items()
        }
        for readout, speeds in (("last", last), ("pooled", pooled))
    }


def good() -> dict[str, dict[str, dict[str, Any]]]:
    return figures(
        {"ours": 800, "lightning": 88, "skorch": 87, "plain": 84},
        {"ours": 800, "lightning": 590, "skorch": 590, "plain": 590},
    )


SECONDS = {"scratch": 10.0, "finetune": 3.0, "lightning": None, "lightning_at_least": 60.0}
RACE_RATIOS = {"seconds_lightning_to_scratch": 6.0, "seconds_lightning_to_finetune": 20.0}


def checks(figures: report.Figures, ceiling: float = 160.0, subnormal_cost: float = 20.0) -> dict[str, bool]:
    core = report.Core(ceiling, subnormal_cost)
    return report.checks(figures, report.ratios(figures) | RACE_RATIOS, SECONDS, core)


def test_what_is_reached_passes() -> None:
    found = checks(good())
    assert all(found.values())
    assert len(found) == 24


@pytest.mark.parametrize(
    ("readout", "name", "key", "value", "fails"),
    [
        ("last", "ours", "sequences_per_s", 500, "last_ours_to_lightning is at least 6"),
        ("pooled", "ours", "sequences_per_s", 700, "pooled_ours_to_lightning is at least 1.25"),
        ("pooled", "ours", "sequences_per_s", 90, "pooled: ours, 60 epochs under 600 s"),
        ("last", "plain", "sequences_per_s", 66, "last: plain runs as fast as it is known to"),
        ("last", "skorch", "val_loss", 1.02, "last: validation losses within 1 %"),
        ("last", "plain", "val_loss", math.nan, "last: validation losses within 1 %"),
        ("last", "ours", "val_loss", math.nan, "last: validation losses within 1 %"),
        ("last", "skorch", "torch", "3", "last: the same torch"),
        ("last", "ours", "peak_rss_mb", 1001, "last: ours under 1000 MB"),
    ],
)
def test_what_is_not_reached_fails(readout: str, name: str, key: str, value: Any, fails: str) -> None:
    found = good()
    found[readout][name][key] = value
    assert not checks(found)[fails]


def test_peers_are_measured_against_the_ceiling() -> None:
    name = "pooled: lightning runs as fast as it is known to"
    slow = good()
    slow["pooled"]["lightning"]["sequences_per_s"] = 300
    assert checks(slow, 100.0)[name]
    assert not checks(slow, 110.0)[name]


def test_where_subnormals_cost_nothing_both_readouts_are_the_same_work() -> None:
    found = good()
    found["last"] = found["pooled"]
    assert not checks(found)["last_ours_to_lightning is at least 6"]
    told = checks(found, subnormal_cost=1.0)
    assert told["last_ours_to_lightning is at least 1.25, as subnormals cost nothing here"]
    found["last"] = good()["last"]
    assert not checks(found, subnormal_cost=1.0)["last: lightning runs as fast as it is known to"]


def test_what_subnormals_cost_is_measured() -> None:
    told, _ = run_child("ceiling", "benchmarks.train.ceiling", python=sys.executable)
    assert told["gflops"] > 1
    assert 0.5 < told["subnormal_cost"] < 1000


@pytest.mark.parametrize(
    ("ratios", "scratch", "fails"),
    [
        ({"seconds_lightning_to_scratch": 4.9}, 12.0, "scratch is at least 5 times faster than Lightning"),
        ({"seconds_lightning_to_finetune": 14.0}, 1.0, "finetune is at least 15 times faster than Lightning"),
        ({}, None, "scratch reaches the target"),
        ({}, None, "scratch is at least 5 times faster than Lightning"),
    ],
)
def test_a_lost_race_fails(ratios: dict[str, float], scratch: float | None, fails: str) -> None:
    assert not report.checks({}, ratios, SECONDS | {"scratch": scratch}, None)[fails]


def test_ratios_of_a_race_compare_the_seeds_that_count() -> None:
    races = {
        1: {"scratch": lap(4.0), "finetune": lap(1.0, champion_auc=0.9), "lightning": lap(20.0)},
        2: {
            "scratch": lap(4.0),
            "finetune": lap(2.0, champion_auc=0.7),
            "lightning": lap(60.0, reached=False),
        },
    }
    for each in races.values():
        each["plain"] = lap(50.0, reached=False)
    assert race.ratios(races) == {"seconds_lightning_to_scratch": 10.0, "seconds_lightning_to_finetune": 30.0}


def test_a_plain_lstm_takes_91_megaflops_a_sequence() -> None:
    assert report.flops_a_sequence() == 3 * 300 * (2 * 256 * (5 + 64) + 2 * 256 * (64 + 64))
    assert report.ceiling_share(590, 160.0, num_cpus=1) == pytest.approx(0.335, abs=0.001)


def test_a_small_run_of_ours_prints_the_names_that_are_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--only", "ours", "--parts", "pooled", "--repeat", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pooled"]["ours"] > 0
    assert 0 < result["ceiling_share"] < 1
    assert result["details"]["pooled"]["ours"]["runs"] == [result["pooled"]["ours"]]
    assert result["details"]["pooled"]["ours"]["peak_rss_mb"] > 50
    assert "seconds_to_auc" not in result


@pytest.mark.usefixtures("here")
def test_a_small_race_of_ours_prints_the_names_that_are_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--only", "ours", "--parts", "race", "--seeds", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["seconds_to_auc"]) == {"scratch", "finetune"}
    assert set(result["seconds_to_auc_plain"]) == {"plain"}
    assert 0 < result["details"]["race"]["1"]["finetune"]["champion_auc"] < 1
    assert "ceiling_share" not in result


def test_an_unknown_engine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "keras"])
    assert "--only: there is no keras; there are ours, lightning, skorch, plain" in capsys.readouterr().err


def test_a_race_without_ours_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "lightning", "--parts", "race"])
    assert "--parts race needs ours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "message"),
    [("benchmarks.train.absent", "plain ended with 1: .*No module named"), ("this", "plain said .* figures")],
)
def test_who_dies_or_tells_no_figures_is_named(module: str, message: str) -> None:
    with pytest.raises(CompetitorError, match=f"(?s){message}"):
        run_child("plain", module, python=sys.executable)


def test_missing_peers_are_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: str) -> str:
        raise PeersMissingError("no index")

    monkeypatch.setattr(command, "python_of", missing)
    assert main(["--quick"]) == 1
    assert capsys.readouterr().err == "error: no index\n"
