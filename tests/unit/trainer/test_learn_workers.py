from __future__ import annotations

import threading

import pytest
import torch
from small_training import loaders, same, weights
from small_training import model as make_model
from small_training import settings as make_settings

from trainer.learn.engine.workers import SLOWDOWN, TRIAL_STEPS, WATCHED_STEPS, WorkerChoice, Workers
from trainer.learn.lstm_trainer import LSTMTrainer

CPU = torch.device("cpu")


@pytest.fixture
def workers():
    with Workers(make_model(make_settings()), 3, num_threads=1) as workers:
        yield workers


@pytest.mark.parametrize("number", [1, 2, 3, None])
def test_results_stand_in_the_order_of_their_tasks(workers, number):
    tasks = [lambda _, n=n: n for n in range(7)]

    assert workers.run(tasks, number) == list(range(7))
    assert workers.run(tasks[:1], number) == [0]


def test_tasks_run_side_by_side(workers):
    barrier = threading.Barrier(3)

    places = workers.run([lambda _: barrier.wait(timeout=20)] * 3)

    assert sorted(places) == [0, 1, 2]


def test_replicas_share_the_memory_of_the_model_and_not_its_gradients(workers):
    def seen(replica):
        return replica, [p.data_ptr() for p in replica.parameters()]

    (first, mine), (second, its), _ = workers.run([seen] * 3)

    assert first is not second
    assert mine == its
    assert [b.data_ptr() for b in first.buffers()] == [b.data_ptr() for b in second.buffers()]


def test_subnormals_are_flushed_in_every_thread(workers):
    assert workers.run([lambda _: float(torch.tensor(1e-38) / 1000)] * 3) == [0.0, 0.0, 0.0]


def test_what_a_task_raises_is_raised(workers):
    def fail(_):
        raise ValueError("of a slice")

    with pytest.raises(ValueError, match="of a slice"):
        workers.run([lambda _: 0, fail, lambda _: 0])


@pytest.mark.parametrize("head_norm", ["none", "batch", "layer"])
def test_a_training_ends_with_the_same_bits_whoever_computes_the_slices(head_norm):
    ended = []
    for number in (1, 2, 4, "auto"):
        settings = make_settings(
            architecture={"head_norm": head_norm},
            training={"num_slices": 4, "num_workers": number, "max_epochs": 2},
        )
        model = make_model(settings)
        LSTMTrainer(model, settings, CPU).train(*loaders(num=150))
        ended.append(weights(model))

    assert all(same(each, ended[0]) for each in ended[1:])


def _times(choice, seconds_by_number, steps):
    numbers = []
    for _ in range(steps):
        numbers.append(choice.number)
        choice.step_done(seconds_by_number[choice.number])
    return numbers


@pytest.mark.parametrize(("seconds", "best"), [({2: 1.0, 1: 1.5}, 2), ({2: 5.0, 1: 1.5}, 1)])
def test_the_faster_number_of_workers_is_kept(seconds, best):
    choice = WorkerChoice(2)

    numbers = _times(choice, seconds, 2 * TRIAL_STEPS + 40)

    assert numbers[: 2 * TRIAL_STEPS] == [2] * TRIAL_STEPS + [1] * TRIAL_STEPS
    assert set(numbers[2 * TRIAL_STEPS :]) == {best}


def test_the_choice_is_made_again_when_the_speed_halves():
    choice = WorkerChoice(2)
    _times(choice, {2: 1.0, 1: 1.5}, 2 * TRIAL_STEPS)

    _times(choice, {2: 1.0 / SLOWDOWN - 0.1, 1: 1.5}, 2 * WATCHED_STEPS)
    assert choice.number == 2
    _times(choice, {2: 1.0 / SLOWDOWN + 0.1, 1: 1.5}, WATCHED_STEPS + 2 * TRIAL_STEPS)

    assert choice.number == 1


@pytest.mark.parametrize(("most", "tried"), [(1, True), (3, False)])
def test_without_a_choice_nothing_is_tried(most, tried):
    choice = WorkerChoice(most, tried=tried)

    assert set(_times(choice, {most: 1.0}, 30)) == {most}
