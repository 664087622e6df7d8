"""Hill climbing over allocations by measured speed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ensembleflow.allocation.benches.score import Score

__all__ = ["CONFIRMATION", "MAX_BENCHES", "NO_GAIN", "Refinement", "ScoredState", "refine"]

NO_GAIN = "no neighbour is better by more than the measured spread"
MAX_BENCHES = "max_benches reached"
CONFIRMATION = "again: "

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True)
class ScoredState(Generic[State]):
    """A state and its score, from one bench.

    Attributes:
        step: the round of neighbours that it was in; 0 for the start.
        move: what was changed; after "again: ", of an allocation benched once more.
        state: what was benched.
        score: how good it is.
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

    benches: list[ScoredState[State]]
    accepted: list[ScoredState[State]]
    stop_reason: str

    @property
    def best(self) -> ScoredState[State]:
        """The result: never slower than the start."""
        return self.accepted[-1]


Moves = Iterable[tuple[str, State]]


def refine(
    start: State,
    neighbours: Callable[[State], Moves[State]],
    bench: Callable[[State], Score],
    max_benches: int,
    *,
    proposals: Moves[State] = (),
    second_chances: Callable[[State], Moves[State]] | None = None,
    confirm: bool = False,
    signature: Callable[[State], Hashable] = lambda state: state,
    hopeless: Callable[[State, Score], bool] = lambda state, score: False,
) -> Refinement[State]:
    """Move to the best neighbour, round by round, until none is better.

    Each round benches every neighbour of the present state and moves to the best of those that improve on it by more
    than the measured spread (`Score.improves_on`). A state that lost is never benched again: it cannot improve on a
    later, better state. Within a round, moves that gained most in an earlier round are benched first; the result
    depends on that only when `max_benches` cuts the round short.

    Args:
        start: a state that is known to be allowed.
        neighbours: pairs of what changes and the changed state, those that should be best first.
        bench: measures a state.
        max_benches: the most benches, the start's and the confirmations' included.
        proposals: states to be tried before the first neighbours, as one round.
        second_chances: more distant states, tried as one round whenever no neighbour is better.
        confirm: whether a state is moved to only after the present one and then it have been benched once more, and
            these two fresh scores say the same. The best of many noisy scores is too high by selection, and the
            machine may have changed since the present state was benched. Where fewer than two benches are left for it,
            nothing is moved to any more.
        signature: equal for states that are equally good: of those only one is benched.
        hopeless: whether a state is known to be worse than one of such a score; then it is not benched.

    Source: the paper's Algorithm 1 ("Refine GPUs allocation to speed up"), with all neighbours of all
    networks each round, and an end when nothing improves. Proposals, second chances and confirmations are not in it.
    """
    climb = _Climb(start, bench, max_benches, confirm, signature, hopeless)
    climb.round(proposals)
    while not climb.cut_short:
        moved = climb.round(neighbours(climb.current.state))
        if not moved and second_chances is not None and not climb.cut_short:
            moved = climb.round(second_chances(climb.current.state))
        if not moved:
            break
    return Refinement(climb.benches, climb.accepted, MAX_BENCHES if climb.cut_short else NO_GAIN)


class _Climb(Generic[State]):
    def __init__(
        self,
        start: State,
        bench: Callable[[State], Score],
        max_benches: int,
        confirm: bool,
        signature: Callable[[State], Hashable],
        hopeless: Callable[[State, Score], bool],
    ) -> None:
        self._bench = bench
        self._max_benches = max_benches
        self._confirm = confirm
        self._signature = signature
        self._hopeless = hopeless
        self._seen: set[Hashable] = set()
        self._gains: dict[str, float] = {}
        self.benches: list[ScoredState[State]] = []
        self.current = self._measure(0, "start", start)
        self.accepted = [self.current]
        self.cut_short = False

    def round(self, moves: Moves[State]) -> bool:
        """Bench all moves, and take the best that improves; whether there was one."""
        step = self.benches[-1].step + 1
        candidates = sorted(enumerate(moves), key=lambda each: -self._gains.get(each[1][0], 0.0))
        claims: list[tuple[float, int, ScoredState[State]]] = []
        for place, (move, state) in candidates:
            if self._signature(state) in self._seen or self._hopeless(state, self.current.score):
                continue
            if self._n_left < (3 if self._confirm and claims else 1):
                self.cut_short = True
                break
            candidate = self._measure(step, move, state)
            self._gains[move] = candidate.score.value - self.current.score.value
            if candidate.score.improves_on(self.current.score):
                # Equal ones go by the neighbours' own order, so that the order of benching never decides.
                claims.append((-candidate.score.value, place, candidate))
        for _, _, claim in sorted(claims, key=lambda each: each[:2]):
            if self._confirm:
                if not claim.score.improves_on(self.current.score):
                    continue  # nor does it claim so any more, since the present state was benched again
                if self._n_left < 2:
                    self.cut_short = True
                    break
                self.current = self._measure_again(step, self.current)
                claim = self._measure_again(step, claim)
                if not claim.score.improves_on(self.current.score):
                    continue
            self.current = claim
            self.accepted.append(claim)
            return True
        return False

    @property
    def _n_left(self) -> int:
        return self._max_benches - len(self.benches)

    def _measure_again(self, step: int, bench: ScoredState[State]) -> ScoredState[State]:
        return self._measure(step, CONFIRMATION + bench.move.removeprefix(CONFIRMATION), bench.state)

    def _measure(self, step: int, move: str, state: State) -> ScoredState[State]:
        found = ScoredState(step, move, state, self._bench(state))
        self.benches.append(found)
        self._seen.add(self._signature(state))
        return found
