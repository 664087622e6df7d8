"""What a search still takes: against every trial simulated, and against bounds that always hold."""

from __future__ import annotations

import random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.search.remaining import expected_epochs, makespan, most_at_once

MAX_EPOCHS = 9
EPOCHS = st.lists(st.integers(0, MAX_EPOCHS), max_size=30)


@given(ended=EPOCHS, running=EPOCHS)
def test_a_trial_trains_one_epoch_more_at_least_and_never_more_than_there_are(
    ended: list[int], running: list[int]
) -> None:
    left = expected_epochs(ended, running, MAX_EPOCHS)
    assert len(left) == MAX_EPOCHS + 1
    assert left[-1] == 0
    assert all(1 <= value <= MAX_EPOCHS - epoch for epoch, value in enumerate(left[:-1]))


@given(running=EPOCHS)
def test_before_a_trial_has_ended_all_are_expected_to_train_to_the_end(running: list[int]) -> None:
    assert expected_epochs([], running, MAX_EPOCHS) == list(range(MAX_EPOCHS, -1, -1))


@given(ended=st.lists(st.integers(1, MAX_EPOCHS), min_size=1, max_size=30))
def test_once_all_have_ended_a_trial_is_expected_to_train_their_mean(ended: list[int]) -> None:
    assert expected_epochs(ended, [], MAX_EPOCHS)[0] == pytest.approx(mean(ended))


def test_long_trials_that_still_run_are_not_forgotten() -> None:
    # Half of all trials train one epoch, half nine. Early in the search only short ones have ended.
    left = expected_epochs([1] * 10, [3] * 10, MAX_EPOCHS)
    assert left[0] == pytest.approx(5)
    assert left[3] == 6


@given(
    running=st.lists(st.floats(0, 100), max_size=8),
    idle=st.integers(0, 4),
    n_waiting=st.integers(0, 30),
    seconds=st.floats(0, 50),
)
def test_the_end_is_what_workers_that_take_the_next_trial_at_once_reach(
    running: list[float], idle: int, n_waiting: int, seconds: float
) -> None:
    n_workers = len(running) + idle
    if not n_workers:
        return
    told = makespan(running, n_workers, n_waiting, seconds)
    work = sum(running) + n_waiting * seconds
    assert max(*running, work / n_workers, 0) <= told + 1e-6
    assert told <= work / n_workers + max(*running, seconds, 0) + 1e-6


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12), st.integers(0, 30))
def test_the_most_at_once_is_that_of_every_moment_looked_at(pairs: list[tuple[int, int]], since: int) -> None:
    intervals = [(float(start), float(start + length)) for start, length in pairs]
    moments = [since + step / 2 for step in range(130)]
    every = [sum(start <= moment < end for start, end in intervals) for moment in moments]
    assert most_at_once(intervals, since) == max(every)


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_made_half_way_is_near_the_end(seed: int) -> None:
    """A search of 200 trials in virtual time; half of them stop at the first epoch, as at a rung."""
    random_ = random.Random(seed)
    epochs = [random_.choice([1, 3, 9, 9]) for _ in range(200)]
    free_at, spans = [0.0] * 4, []
    for number in epochs:
        start = min(free_at)
        free_at[free_at.index(start)] = start + number
        spans.append((start, number))
    now = max(free_at) / 2
    ended = [number for start, number in spans if start + number <= now]
    running = [int(now - start) for start, number in spans if start <= now < start + number]
    left = expected_epochs(ended, running, 9)
    told = makespan([left[each] for each in running], 4, 200 - len(ended) - len(running), left[0])
    assert told == pytest.approx(max(free_at) - now, rel=0.25)
