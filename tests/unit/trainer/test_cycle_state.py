"""The state of the cycles: what counts as an attempt, what stays news, and how long a failure waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.cycle.config import CycleConfig
from trainer.cycle.state import FAULTS_KEPT, Cycle, CycleResult, ServingScores, State
from trainer.data.config import DatasetConfig
from trainer.gate.checks import above
from trainer.release.registry.event import Decision, Verdict

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
WINDOWS = "casting/default"
BACKOFF = CycleConfig(max_attempts=3, backoff_s=100, max_backoff_s=350)


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def begun(state: State, configuration: str = "A", last_arrival: int = 10**9) -> State:
    """The next cycle, begun as the runner begins it."""
    cycle = Cycle(
        number=state.last_number + 1,
        trigger="interval",
        began_at=AT,
        config=DatasetConfig(),
        configuration=configuration,
        windows=WINDOWS,
        news_after=state.news_after(configuration, WINDOWS, is_remembered=True),
    )
    return state.begun(cycle)


def current(state: State) -> Cycle:
    assert state.cycle is not None
    return state.cycle


def decided(
    cycle: Cycle,
    kind: Verdict,
    champion_scores: dict[str, float] | None = None,
    champion: int | None = None,
) -> Cycle:
    """A cycle whose version, which bears its number, is promoted or refused."""
    decision = Decision.new(kind, ("why",), AT)
    result = CycleResult(
        number=cycle.number,
        trigger=cycle.trigger,
        version=cycle.number,
        parent=None,
        windows=60,
        defects=7,
        seconds=1.5,
        epochs=3,
        decision=kind,
        reasons=decision.reasons,
        scores={"auc_pr": 0.5, "auc_roc": 0.75},
        champion=champion,
        champion_scores=champion_scores,
        checks=(above("first_lift", "lift", 0.2, 0.1),),
    )
    return cycle.decided(decision, result)


def run(state: State, kind: Verdict, arrival: int, configuration: str = "A") -> State:
    """A whole cycle that froze the windows up to an arrival."""
    state = begun(state, configuration)
    cycle = current(state).frozen(f"d{arrival}", arrival).trained(state.last_number)
    return state.decided(decided(cycle, kind))


def failed(state: State, at: datetime = AT, configuration: str = "A") -> State:
    return begun(state, configuration).failed("it broke", at, BACKOFF)


# Attempts


def test_attempts_count_up_as_long_as_nothing_is_reached() -> None:
    cycle = current(begun(State()))
    counts = []
    for progress in ("", "", "epoch-1", "epoch-1", "epoch-2", "epoch-2", "epoch-2"):
        cycle = cycle.attempt(progress)
        counts.append(cycle.attempts)
    assert counts == [1, 2, 1, 2, 1, 2, 3]


def test_an_attempt_that_was_ended_from_outside_does_not_count() -> None:
    cycle = current(begun(State())).attempt("a").attempt("a")
    assert cycle.attempts == 2
    assert cycle.uncounted().attempts == 1
    assert cycle.uncounted().attempt("a") == cycle
    assert current(begun(State())).uncounted().attempts == 0


def test_the_last_faults_are_kept_and_the_newest_says_why_it_is_given_up() -> None:
    cycle = current(begun(State()))
    for number in range(FAULTS_KEPT + 2):
        cycle = cycle.attempt("").faulted(f"fault {number}")
    assert cycle.faults == tuple(f"fault {number}" for number in range(2, FAULTS_KEPT + 2))
    assert cycle.why_given_up() == "7 attempts failed: fault 6"


def test_attempts_that_ended_without_a_word_name_the_phase_and_what_it_may_have_been() -> None:
    cycle = current(begun(State())).frozen("d1", 10).attempt("").attempt("")
    assert cycle.why_given_up() == (
        "2 attempts failed: the process ended in the phase after 'frozen' without a word: killed, or out of memory?"
    )


def test_a_training_that_is_begun_anew_keeps_its_attempts_so_that_it_ends_some_time() -> None:
    cycle = current(begun(State())).frozen("d1", 10).attempt("").attempt("epoch-3")
    anew = cycle.begun_anew("of another architecture")
    assert (anew.attempts, anew.progress, anew.faults) == (1, "", ("of another architecture",))
    assert anew.attempt("").attempts == 2
    assert anew.attempt("").begun_anew("again").attempt("").attempts == 3
    assert "again" in anew.attempt("").begun_anew("again").why_given_up()


@pytest.mark.parametrize(
    ("phase", "move"),
    [
        ("frozen", lambda cycle: cycle.frozen("d1", 10)),
        ("trained", lambda cycle: cycle.trained(4)),
        ("decided", lambda cycle: decided(cycle, "refused")),
        ("published", lambda cycle: cycle.published()),
    ],
)
def test_a_new_phase_begins_without_attempts_and_faults(phase: str, move: Callable[[Cycle], Cycle]) -> None:
    moved = move(current(begun(State())).attempt("").attempt("epoch-1").faulted("it broke"))
    assert (moved.phase, moved.attempts, moved.progress, moved.faults) == (phase, 0, "", ())


def test_a_cycle_keeps_on_its_way_what_each_phase_has_found() -> None:
    cycle = current(begun(State())).frozen("d1", 10).trained(4)
    cycle = decided(cycle, "promoted").published()
    assert (cycle.dataset, cycle.arrival, cycle.version, cycle.ending) == ("d1", 10, 4, "promoted")
    assert (cycle.ended_at, cycle.reasons, cycle.is_over) == (AT, ("why",), True)
    assert cycle.decision is not None
    assert cycle.decision.update_ce_id


def test_a_cycle_that_failed_says_how_far_it_came_and_is_told_once() -> None:
    cycle = current(begun(State()).moved(current(begun(State())).frozen("d1", 10)))
    ended = State(cycle=cycle, last_number=1).failed("it broke", after(5), BACKOFF)
    assert (current(ended).phase, current(ended).ending) == ("frozen", "failed")
    assert (current(ended).reasons, current(ended).ended_at) == (("it broke",), after(5))
    assert (current(ended).is_told, current(ended).told().is_told) == (False, True)
    assert (ended.in_progress, current(ended).ended_at) == (None, after(5))


# Numbers


def test_a_number_is_never_used_twice_whatever_becomes_of_the_cycle() -> None:
    state, numbers = State(), []
    ways: list[Callable[[State], State]] = [
        lambda state: run(state, "promoted", 10),
        failed,
        lambda state: begun(state).abandoned("its windows are gone", AT),
        lambda state: run(state, "refused", 20),
        lambda state: begun(state.numbered_from(8)),
    ]
    for way in ways:
        state = way(state)
        numbers.append(current(state).number)
    assert numbers == [1, 2, 3, 4, 9]


def test_what_the_topics_know_of_moves_the_numbers_on_and_never_back() -> None:
    state = run(State(), "promoted", 10)
    assert state.numbered_from(7).last_number == 7
    assert state.numbered_from(7).numbered_from(3).last_number == 7
    assert state.numbered_from(0) == state


# News


def test_the_windows_of_a_decided_cycle_are_used_up() -> None:
    for kind in ("promoted", "refused"):
        state = run(State(), kind, 100)  # type: ignore[arg-type]  # mypy does not see the two words
        assert state.news_after("A", WINDOWS, is_remembered=True) == 100


def test_the_windows_of_a_cycle_that_failed_or_was_abandoned_stay_news() -> None:
    state = run(State(), "promoted", 100)
    frozen = begun(state).moved(current(begun(state)).frozen("d2", 150))
    assert frozen.failed("it broke", AT, BACKOFF).news_after("A", WINDOWS, is_remembered=True) == 100
    assert frozen.abandoned("its rows are gone", AT).news_after("A", WINDOWS, is_remembered=True) == 100
    assert frozen.news_after("A", WINDOWS, is_remembered=True) == 100


def test_refused_windows_are_news_again_to_another_configuration() -> None:
    state = run(run(State(), "promoted", 100), "refused", 150)
    assert state.news_after("A", WINDOWS, is_remembered=True) == 150
    assert state.news_after("B", WINDOWS, is_remembered=True) == 100


def test_windows_refused_twice_in_a_row_are_news_to_a_third_configuration() -> None:
    state = run(run(State(), "promoted", 100), "refused", 150)
    state = run(state, "refused", 160, "B")
    assert state.news_after("B", WINDOWS, is_remembered=True) == 160
    assert state.news_after("C", WINDOWS, is_remembered=True) == 100
    # With the same configuration twice, only the windows of the second one are judged anew.
    state = run(run(run(State(), "promoted", 100), "refused", 150), "refused", 160)
    assert state.news_after("B", WINDOWS, is_remembered=True) == 150


def test_windows_of_a_promotion_are_not_news_to_another_configuration() -> None:
    state = run(run(State(), "refused", 100), "promoted", 150, "B")
    assert state.news_after("C", WINDOWS, is_remembered=True) == 150


@pytest.mark.parametrize(
    "come_to_nothing",
    [
        lambda state: state,
        lambda state: state.failed("it broke", AT, BACKOFF),
        lambda state: state.abandoned("its rows are gone", AT),
    ],
    ids=["waiting", "failed", "abandoned"],
)
def test_refused_windows_stay_news_when_the_cycle_of_the_other_configuration_comes_to_nothing(
    come_to_nothing: Callable[[State], State],
) -> None:
    refused = run(run(State(), "promoted", 100), "refused", 150)
    state = come_to_nothing(begun(refused, "B"))
    assert state.news_after("B", WINDOWS, is_remembered=True) == 100
    assert state.news_after("A", WINDOWS, is_remembered=True) == 150
    # The same if the cycle that came to nothing had the configuration that had refused.
    assert come_to_nothing(begun(refused, "A")).news_after("B", WINDOWS, is_remembered=True) == 100


def test_all_windows_of_another_namespace_are_news() -> None:
    state = run(State(), "promoted", 100)
    assert state.news_after("A", "other/default", is_remembered=True) == 0
    assert state.news_after("A", "casting/short", is_remembered=True) == 0
    # Which were read is not known from an older version: the number counts.
    assert State(arrival=100).news_after("A", WINDOWS, is_remembered=True) == 100


def test_all_windows_are_news_when_redis_has_forgotten_the_data_set_of_the_last_decision() -> None:
    state = run(State(), "promoted", 100)
    assert state.news_after("A", WINDOWS, is_remembered=False) == 0
    assert state.news_after("A", WINDOWS, is_remembered=True) == 100


# Failures


def test_a_failure_waits_twice_as_long_each_time_up_to_the_maximum() -> None:
    state, waits = State(), []
    for _ in range(4):
        state = failed(state)
        assert state.retry_at is not None
        waits.append((state.retry_at - AT).total_seconds())
    assert (waits, state.failures) == ([100, 200, 350, 350], 4)


def test_a_trainer_that_has_failed_for_months_waits_the_maximum() -> None:
    state = State(failures=5_000)
    assert failed(state).retry_at == after(350)


def test_a_changed_configuration_is_tried_at_once() -> None:
    state = failed(State())
    assert state.waits_until("A") == after(100)
    assert state.waits_until("B") is None
    assert State().waits_until("A") is None


def test_a_cycle_that_has_begun_waits_for_windows_only() -> None:
    state = begun(failed(State()), "B")
    assert state.waits_until("B") is None
    assert (state.failures, failed(state).retry_at) == (1, after(200))


def test_failing_since_stays_over_several_failures_and_goes_with_the_next_decision() -> None:
    state = begun(State())
    state = state.moved(current(state).attempt("").due(AT)).failed("it broke", after(50), BACKOFF)
    assert (state.failing_since, state.due_since()) == (AT, AT)
    again = begun(state)
    again = again.moved(current(again).attempt("").due(after(500))).failed("again", after(600), BACKOFF)
    assert (again.failing_since, again.due_since()) == (AT, AT)
    assert begun(again).due_since() == AT
    for kind in ("promoted", "refused"):
        over = run(again, kind, 10)  # type: ignore[arg-type]  # mypy does not see the two words
        assert (over.failures, over.failing_since, over.retry_at, over.due_since()) == (0, None, None, None)


def test_an_abandoned_cycle_is_no_failure() -> None:
    state = begun(State()).abandoned("its rows are gone", after(5))
    assert (state.failures, state.failing_since, state.retry_at, state.due_since()) == (0, None, None, None)
    assert (current(state).ending, current(state).reasons) == ("abandoned", ("its rows are gone",))
    # Nor does it end a row of them.
    state = begun(failed(State(), AT)).abandoned("its rows are gone", AT)
    assert (state.failures, state.due_since()) == (1, AT)


def test_without_a_cycle_there_is_nothing_to_end() -> None:
    assert State().failed("it broke", AT, BACKOFF) == State().abandoned("gone", AT) == State()
    assert State().due_since() is None


def test_a_training_is_due_from_its_first_attempt_but_not_while_it_waits_for_windows() -> None:
    state = begun(State())
    assert state.due_since() is None
    tried = current(state).attempt("").due(after(100))
    assert state.moved(tried.uncounted()).due_since() is None  # windows were missing
    assert state.moved(tried.uncounted().attempt("").due(after(300))).due_since() == after(300)
    assert state.moved(tried).due_since() == after(100)
    frozen = tried.frozen("d1", 10)
    assert state.moved(frozen).due_since() == after(100)
    assert state.moved(frozen.attempt("").due(after(300)).uncounted()).due_since() == after(100)
    assert run(State(), "refused", 10).due_since() is None


# The model that serves


def test_the_serving_scores_are_those_of_the_newest_gate_windows() -> None:
    state = run(State(), "promoted", 10)
    assert state.serving == ServingScores(version=1, auc_pr=0.5, auc_roc=0.75)
    cycle = current(begun(state)).frozen("d2", 20).trained(2)
    refused = state.decided(decided(cycle, "refused", {"auc_pr": 0.4, "auc_roc": 0.6}, champion=1))
    assert refused.serving == ServingScores(version=1, auc_pr=0.4, auc_roc=0.6)
    promoted = state.decided(decided(cycle, "promoted", {"auc_pr": 0.4, "auc_roc": 0.6}, champion=1))
    assert promoted.serving == ServingScores(version=2, auc_pr=0.5, auc_roc=0.75)


def test_a_champion_that_could_not_be_scored_has_no_scores_rather_than_old_ones() -> None:
    state = begun(run(State(), "promoted", 10))
    cycle = current(state).frozen("d2", 20).trained(2)
    assert state.decided(decided(cycle, "refused", None, champion=1)).serving == ServingScores(version=1)


def test_without_a_champion_nothing_serves() -> None:
    assert run(State(), "refused", 10).serving is None
    state = run(State(), "promoted", 10)
    assert failed(state).serving == begun(state).abandoned("gone", AT).serving == state.serving


# Any sequence


TEXT = st.text(max_size=3)
CONFIGURATION = st.sampled_from("ABC")
WAY = st.one_of(
    st.tuples(st.just("begin"), CONFIGURATION),
    st.tuples(st.just("attempt"), TEXT),
    st.tuples(st.just("uncounted"), st.none()),
    st.tuples(st.just("faulted"), TEXT),
    st.tuples(st.just("begun_anew"), TEXT),
    st.tuples(st.just("frozen"), st.integers(0, 20)),
    st.tuples(st.just("trained"), st.integers(1, 9)),
    st.tuples(st.sampled_from(["promoted", "refused", "published", "told"]), st.none()),
    st.tuples(st.sampled_from(["failed", "abandoned"]), TEXT),
    st.tuples(st.just("numbered_from"), st.integers(0, 30)),
)


def moved(state: State, arrival: int, way: str, value: object) -> State:  # noqa: PLR0911 - one a transition
    """One transition; one that cannot be taken from here leaves the state as it is."""
    cycle = state.in_progress
    if way == "numbered_from":
        return state.numbered_from(value)  # type: ignore[arg-type]  # drawn as the way wants it
    if way in ("published", "told"):
        over = state.cycle if state.cycle and state.cycle.is_over else None
        return state if over is None else state.moved(getattr(over, way)())
    if way == "begin":
        return begun(state, str(value), arrival) if cycle is None else state
    if cycle is None:
        return state
    if way == "failed":
        return state.failed(str(value), after(60), BACKOFF)
    if way == "abandoned":
        return state.abandoned(str(value), after(60))
    if way in ("promoted", "refused"):
        return state.decided(decided(cycle, way, {"auc_pr": 0.25}))  # type: ignore[arg-type]  # one of the two
    if way == "frozen":
        return state.moved(cycle.frozen("d", arrival))
    return state.moved(getattr(cycle, way)(*(() if value is None else (value,))))


@settings(deadline=None)  # other tests keep this machine busy
@given(st.lists(WAY, max_size=40))
def test_whatever_happens_numbers_rise_and_only_a_decision_uses_windows_up(
    ways: list[tuple[str, object]],
) -> None:
    state, arrival = State(), 0
    for way, value in ways:
        arrival += value if way == "frozen" and isinstance(value, int) else 0  # labels come in meanwhile
        before, state = state, moved(state, arrival, way, value)
        # A killed trainer reads exactly what it wrote.
        assert State.model_validate_json(state.model_dump_json()) == state
        assert state.last_number >= before.last_number
        if state.cycle != before.cycle and way == "begin":
            assert current(state).number > before.last_number
        assert state.cycle is None or state.cycle.number <= state.last_number
        if way not in ("promoted", "refused"):
            assert (state.arrival, state.arrival_before) == (before.arrival, before.arrival_before)
            assert state.news_after("A", WINDOWS, is_remembered=True) == before.news_after(
                "A", WINDOWS, is_remembered=True
            )
        assert state.arrival_before <= state.arrival <= arrival
        assert (state.failures == 0) == (state.failing_since is None)
        assert state.cycle is None or state.cycle.attempts >= 0
