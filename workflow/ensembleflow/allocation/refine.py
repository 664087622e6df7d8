"""Hill climbing over allocations by measured speed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["MAX_BENCHES", "NO_GAIN", "Bench", "Refinement", "Score", "refine"]

NO_GAIN = "no neighbour is faster by more than the measured spread"
MAX_BENCHES = "max_benches reached"

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True)
class Score:
    """The speed of one allocation: the median of its repeats in images/s, and their quartiles.

    Attributes:
        images_per_second: median; 0 after a failure.
        images_per_second_q25: lower quartile.
        images_per_second_q75: upper quartile.
        repeats: how many repeats were measured.
        failure: empty, or why the allocation could not run.
    """

    images_per_second: float
    images_per_second_q25: float
    images_per_second_q75: float
    repeats: int = 1
    failure: str = ""

    def improves_on(self, other: Score) -> bool:
        """Whether it is faster by more than the spread of both: their interquartile ranges do not meet."""
        return self.images_per_second_q25 > other.images_per_second_q75


@dataclass(frozen=True)
class Bench(Generic[State]):
    """One measured allocation.

    Attributes:
        step: the round of neighbours that it was in; 0 for the start.
        move: what was changed.
        state: the allocation.
        score: its speed.
    """

    step: int
    move: str
    state: State
    score: Score


@dataclass(frozen=True)
class Refinement(Generic[State]):
    """What `refine` found.

    Attributes:
        benches: everything measured, in order; the first is the start.
        accepted: the benches that were moved to, the start first; the last is the result.
        stop_reason: why the search ended.
    """

    benches: list[Bench[State]]
    accepted: list[Bench[State]]
    stop_reason: str

    @property
    def best(self) -> Bench[State]:
        """The result: never slower than the start."""
        return self.accepted[-1]


def refine(
    start: State,
    neighbours: Callable[[State], Iterable[tuple[str, State]]],
    bench: Callable[[State], Score],
    max_benches: int,
) -> Refinement[State]:
    """Move to the fastest neighbour, round by round, until none is faster.

    Each round benches every neighbour of the present state and moves to the fastest of those that improve
    on it by more than the measured spread (`Score.improves_on`). A state is benched at most once: one that
    lost before cannot improve on a later, faster state. Within a round, moves that gained most in an earlier
    round are benched first; the result depends on that only when `max_benches` cuts the round short.

    Args:
        start: a state that is known to be allowed.
        neighbours: pairs of what changes and the changed state, the most promising first.
        bench: measures a state.
        max_benches: the most benches, the start's included.

    Source: the paper's Algorithm 1 ("Refine GPUs allocation to speed up"), with all neighbours of all
    networks each round, and an end when nothing improves.
    """
    current = Bench(0, "start", start, bench(start))
    benches, accepted = [current], [current]
    seen = {start}
    gains: dict[str, float] = {}
    while True:
        candidates = [
            (place, move, state) for place, (move, state) in enumerate(neighbours(current.state)) if state not in seen
        ]
        candidates.sort(key=lambda each: -gains.get(each[1], 0.0))
        best: tuple[float, int] | None = None
        chosen = current
        cut_short = False
        for place, move, state in candidates:
            if state in seen:
                continue
            if len(benches) >= max_benches:
                cut_short = True
                break
            candidate = Bench(len(accepted), move, state, bench(state))
            benches.append(candidate)
            seen.add(state)
            speed = candidate.score.images_per_second
            gains[move] = speed - current.score.images_per_second
            # Equal speeds go by the neighbours' own order, so that the order of benching never decides.
            if candidate.score.improves_on(current.score) and (best is None or (speed, -place) > best):
                best, chosen = (speed, -place), candidate
        if best is not None:
            current = chosen
            accepted.append(chosen)
        if cut_short or best is None:
            return Refinement(benches, accepted, MAX_BENCHES if cut_short else NO_GAIN)
