"""Hill climbing over synthetic tables of speeds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.allocation import Score, refine
from ensembleflow.allocation.refine import MAX_BENCHES, NO_GAIN

State = tuple[int, ...]


def grid_neighbours(sizes: tuple[int, ...]):
    """States are coordinates; a neighbour differs in one of them, as with members' devices and batch sizes."""

    def neighbours(state: State) -> list[tuple[str, State]]:
        return [
            (f"{axis}: {state[axis]} -> {value}", (*state[:axis], value, *state[axis + 1 :]))
            for axis, size in enumerate(sizes)
            for value in range(size)
            if value != state[axis]
        ]

    return neighbours


class Table:
    """A bench that looks speeds up and counts."""

    def __init__(self, speeds: dict[State, tuple[float, float]]) -> None:
        self.speeds = speeds
        self.benched: list[State] = []

    def __call__(self, state: State) -> Score:
        self.benched.append(state)
        speed, spread = self.speeds[state]
        return Score(speed, speed - spread, speed + spread)


def hill_climb(start: State, neighbours, speeds: dict[State, tuple[float, float]]) -> State:
    """The oracle: look at all neighbours, go to the fastest one that clears the spread, until there is none."""

    def lower(state: State) -> float:
        return speeds[state][0] - speeds[state][1]

    def upper(state: State) -> float:
        return speeds[state][0] + speeds[state][1]

    while True:
        better = [state for _, state in neighbours(start) if lower(state) > upper(start)]
        if not better:
            return start
        start = max(better, key=lambda state: speeds[state][0])


@st.composite
def problems(draw: st.DrawFn):
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    states: list[State] = [()]
    for size in sizes:
        states = [(*state, value) for state in states for value in range(size)]
    speeds = {state: (draw(st.integers(0, 50)) * 1.0, draw(st.integers(0, 4)) * 1.0) for state in states}
    return sizes, speeds, draw(st.sampled_from(states))


@given(problems())
def test_without_a_limit_it_ends_where_plain_hill_climbing_ends(problem):
    sizes, speeds, start = problem
    neighbours = grid_neighbours(sizes)
    found = refine(start, neighbours, Table(speeds), max_benches=10**6)
    assert found.best.state == hill_climb(start, neighbours, speeds)
    assert found.stop_reason == NO_GAIN


@given(problems(), st.integers(1, 30))
def test_it_never_ends_slower_than_it_started_nor_benches_too_often_nor_twice(problem, max_benches):
    sizes, speeds, start = problem
    bench = Table(speeds)
    found = refine(start, grid_neighbours(sizes), bench, max_benches)
    accepted = [each.score.images_per_second for each in found.accepted]
    assert accepted == sorted(accepted)
    assert accepted[0] == speeds[start][0]
    assert len(bench.benched) == len(found.benches) <= max_benches
    assert len(set(bench.benched)) == len(bench.benched)
    assert [each.state for each in found.benches] == bench.benched


@given(problems(), st.integers(1, 30))
def test_the_stop_reason_tells_whether_neighbours_were_left_out(problem, max_benches):
    sizes, speeds, start = problem
    neighbours = grid_neighbours(sizes)
    bench = Table(speeds)
    found = refine(start, neighbours, bench, max_benches)
    unseen = {state for _, state in neighbours(found.best.state)} - set(bench.benched)
    assert found.stop_reason == (MAX_BENCHES if unseen else NO_GAIN)


def test_a_gain_within_the_spread_is_no_gain():
    speeds = {(0,): (100.0, 5.0), (1,): (109.0, 5.0)}
    assert refine((0,), grid_neighbours((2,)), Table(speeds), 10).best.state == (0,)
    speeds[1,] = (111.0, 5.0)
    assert refine((0,), grid_neighbours((2,)), Table(speeds), 10).best.state == (1,)


def test_moves_that_gained_before_are_benched_first_in_the_next_round():
    speeds = {(a, b, c): (100.0 + 10 * a + 30 * b - 5 * c, 0.0) for a in (0, 1) for b in (0, 1) for c in (0, 1)}
    bench = Table(speeds)
    neighbours = grid_neighbours((2, 2, 2))
    found = refine((0, 0, 0), lambda state: list(reversed(neighbours(state))), bench, max_benches=5)
    # c comes first in the given order, but lost in the first round, where a gained.
    assert bench.benched[4] == (1, 1, 0)
    assert found.best.state == (1, 1, 0)


def test_a_failing_start_is_left_for_a_neighbour_that_runs():
    def bench(state: State) -> Score:
        return Score(0, 0, 0, failure="out of memory") if state == (0,) else Score(5, 5, 5)

    assert refine((0,), grid_neighbours((2,)), bench, 5).best.state == (1,)
