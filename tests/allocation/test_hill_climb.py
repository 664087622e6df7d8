"""Hill climbing over synthetic tables of speeds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.allocation import Score, refine
from ensembleflow.allocation.hill_climb import CONFIRMATION, MAX_BENCHES, NO_GAIN

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


def steady(speed: float, spread: float = 0.0) -> Score:
    """A score whose quartiles are so far from its median."""
    return Score(images_per_second=(speed - spread, speed - spread, speed, speed + spread, speed + spread))


class Table:
    """A bench that looks speeds up and counts."""

    def __init__(self, speeds: dict[State, tuple[float, float]]) -> None:
        self.speeds = speeds
        self.benched: list[State] = []

    def __call__(self, state: State) -> Score:
        self.benched.append(state)
        speed, spread = self.speeds[state]
        return steady(speed, spread)


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
    accepted = [each.score.value for each in found.accepted]
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
        return Score(failure="out of memory") if state == (0,) else steady(5)

    assert refine((0,), grid_neighbours((2,)), bench, 5).best.state == (1,)


def test_proposals_are_tried_first_and_taken_only_if_they_are_better():
    speeds = {(a, b): (100.0 + a + b, 0.0) for a in range(4) for b in range(4)}
    bench = Table(speeds)
    found = refine((0, 0), grid_neighbours((4, 4)), bench, 3, proposals=[("bold", (2, 3)), ("bolder", (3, 3))])
    assert bench.benched == [(0, 0), (2, 3), (3, 3)]
    assert found.best.state == (3, 3)
    speeds[3, 3] = speeds[2, 3] = (1.0, 0.0)
    assert refine((0, 0), grid_neighbours((4, 4)), Table(speeds), 3, proposals=[("bold", (3, 3))]).best.state != (3, 3)


def test_a_second_chance_leads_out_of_where_no_neighbour_is_better():
    speeds = {(0, 0): (5.0, 0.0), (0, 1): (1.0, 0.0), (1, 0): (1.0, 0.0), (1, 1): (9.0, 0.0)}
    neighbours = grid_neighbours((2, 2))
    assert refine((0, 0), neighbours, Table(speeds), 10).best.state == (0, 0)
    bench = Table(speeds)
    found = refine((0, 0), neighbours, bench, 10, second_chances=lambda state: [("both", (1 - state[0], 1 - state[1]))])
    assert found.best.state == (1, 1)
    assert bench.benched[-1] == (1, 1) and len(bench.benched) == 4


class Drifting:
    """A bench of equal states on a machine that becomes faster, or slower, with every bench."""

    def __init__(self, factor: float, true_gain: float = 1.0) -> None:
        self.factor = factor
        self.true_gain = true_gain
        self.n_benches = 0

    def __call__(self, state: State) -> Score:
        self.n_benches += 1
        return steady(100.0 * self.true_gain ** sum(state) * self.factor**self.n_benches)


@given(st.floats(1.0005, 1.05), st.floats(1.005, 1.5))
def test_a_confirmed_gain_compares_two_benches_in_a_row(drift, true_gain):
    # Each bench is faster than the last, so that every neighbour seems better than the start.
    neighbours = grid_neighbours((2, 2, 2))
    fooled = refine((0, 0, 0), neighbours, Drifting(drift), 100)
    assert len(fooled.accepted) > 1
    found = refine((0, 0, 0), neighbours, Drifting(drift, true_gain), 100, confirm=True)
    places = {id(each): place for place, each in enumerate(found.benches)}
    for before, accepted in zip(found.accepted, found.accepted[1:], strict=False):
        place = places[id(accepted)]
        again = found.benches[place - 1]
        assert again.state == before.state and accepted.score.improves_on(again.score)
        assert again.move == CONFIRMATION + before.move.removeprefix(CONFIRMATION)
        assert accepted.move.startswith(CONFIRMATION)


class Lucky:
    """All states are alike; the first bench of each draws its luck, the later ones do not."""

    def __init__(self, luck: dict[State, float]) -> None:
        self.luck = luck
        self.seen: set[State] = set()

    def __call__(self, state: State) -> Score:
        first, self.seen = state not in self.seen, self.seen | {state}
        return steady(100.0 + (self.luck[state] if first else 0.0), 1.0)


@given(st.lists(st.floats(-20, 20), min_size=8, max_size=8))
def test_a_lucky_bench_is_not_moved_to_when_it_is_confirmed(luck):
    states = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    bench = Lucky(dict(zip(states, luck, strict=True)))
    found = refine((0, 0, 0), grid_neighbours((2, 2, 2)), bench, 100, confirm=True)
    assert found.best.state == (0, 0, 0)


def test_after_an_unlucky_start_one_confirmation_answers_all_claims():
    states = [(a, b) for a in range(4) for b in range(4)]
    bench = Lucky(dict.fromkeys(states, 0.0) | {(0, 0): -20.0})
    found = refine((0, 0), grid_neighbours((4, 4)), bench, 100, confirm=True)
    assert found.best.state == (0, 0)
    # The start, its six neighbours, the start and one neighbour once more.
    assert len(found.benches) == 9


@given(problems(), st.integers(1, 30))
def test_confirmations_count_as_benches_and_change_nothing_where_there_is_no_noise(problem, max_benches):
    sizes, speeds, start = problem
    bench = Table(speeds)
    found = refine(start, grid_neighbours(sizes), bench, max_benches, confirm=True)
    assert len(bench.benched) == len(found.benches) <= max_benches
    first_benches = [each.state for each in found.benches if not each.move.startswith(CONFIRMATION)]
    assert len(set(first_benches)) == len(first_benches)
    unlimited = refine(start, grid_neighbours(sizes), Table(speeds), 10**6, confirm=True)
    assert unlimited.best.state == hill_climb(start, grid_neighbours(sizes), speeds)


def test_scores_are_compared_by_their_objective():
    slow_start = {"latency_p50_ms": (10.0,), "latency_p99_ms": (11.0,)}
    spiky = {"latency_p50_ms": (5.0,), "latency_p99_ms": (50.0,)}
    assert Score("throughput", (100.0,), **slow_start).improves_on(Score("throughput", (90.0,), **spiky))
    assert Score("latency_p50", (90.0,), **spiky).improves_on(Score("latency_p50", (100.0,), **slow_start))
    assert Score("latency_p99", (90.0,), **slow_start).improves_on(Score("latency_p99", (100.0,), **spiky))
    assert Score("latency_p50", (90.0,), **spiky).value == 200.0
    assert Score("latency_p50", failure="dead").value == 0.0
    assert Score("throughput", (1.0, 2.0, 9.0)).median("latency_p50_ms") is None


@given(problems())
def test_of_equally_good_states_one_is_benched_and_what_cannot_win_is_not(problem):
    sizes, speeds, start = problem

    def signature(state: State) -> State:
        return tuple(sorted(state))

    even = {state: speeds.get(signature(state), speeds[state]) for state in speeds}
    best = max(speed for speed, _ in even.values())

    def hopeless(state: State, score: Score) -> bool:
        return even[state][0] < min(score.value, best / 2)

    bench = Table(even)
    found = refine(start, grid_neighbours(sizes), bench, 10**6, signature=signature, hopeless=hopeless)
    assert len(set(map(signature, bench.benched))) == len(bench.benched)
    for each in found.benches[1:]:
        present = max(accepted.score.value for accepted in found.accepted if accepted.step < each.step)
        assert not hopeless(each.state, steady(present)), "it was known before the bench that it cannot win"
    # What was left out would not have been moved to.
    speed, spread = even[found.best.state]
    assert not any(
        even[state][0] - even[state][1] > speed + spread for _, state in grid_neighbours(sizes)(found.best.state)
    )
