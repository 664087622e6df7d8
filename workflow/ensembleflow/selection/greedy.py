"""Greedy searches: ensembles that grow by the best next model, many of them side by side over the same data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ensembleflow.selection.budget import Spending
from ensembleflow.selection.candidates import Candidates

__all__ = [
    "N_RUNNERS_UP",
    "TIED_WITHIN",
    "BestOnPath",
    "GreedySearch",
    "SelectedEnsemble",
    "Step",
    "after_each_step",
    "best_on_path",
    "best_place",
    "grow",
]

FloatArray = npt.NDArray[np.float64]
PlaceArray = npt.NDArray[np.intp]

TIED_WITHIN = 1e-12
"""Losses and scores closer than this are equal: less is rounding, such as that of averaging equal models."""

N_RUNNERS_UP = 3
"""Of the models that were not taken, how many are kept with what they would have given."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a search, or the row that says why it stopped.

    Attributes:
        step: 1-based.
        model: the model added; None on the last row, which repeats the ensemble's loss, cost and score.
        loss: validation loss of the ensemble after this step.
        cost: its summed cost in seconds.
        score: equation 2.
        tried: the models that were tried, ascending.
        scores: the score with each of them.
        tie_ranks: of the models that were tried: of equal scores the lower comes first.
        over_budget: models left out of this step because the ensemble would exceed the budget.
        stop_reason: empty but for the last row.
    """

    step: int
    model: int | None
    loss: float
    cost: float
    score: float
    tried: PlaceArray
    scores: FloatArray
    tie_ranks: PlaceArray
    over_budget: PlaceArray
    stop_reason: str = ""

    @property
    def runners_up(self) -> tuple[tuple[int, float], ...]:
        """The next three models and their scores; on the last row the three best that were refused."""
        order = np.lexsort((self.tie_ranks, self.scores))
        others = [place for place in order[: N_RUNNERS_UP + 1] if self.tried[place] != self.model]
        return tuple((int(self.tried[place]), float(self.scores[place])) for place in others[:N_RUNNERS_UP])

    @property
    def no_gain(self) -> PlaceArray:
        """The models that were tried and not taken: on the last row those that would not lower the score."""
        return self.tried[self.tried != self.model] if self.model is not None else self.tried

    @property
    def n_over_budget(self) -> int:
        """How many models were left out because of the budget."""
        return len(self.over_budget)


@dataclass(frozen=True, eq=False)
class SelectedEnsemble:
    """The ensemble that a method selected, and how.

    Attributes:
        method: `smobf`, `forward_greedy`, `best_single` or another of `ensembleflow.selection.rivals.methods`.
        weight: w of equation 2; None where no weight led to the members.
        members: indices in the order chosen.
        loss: validation loss of the members' average.
        cost: summed cost in seconds.
        score: equation 2 at `weight`; the loss without a weight.
        trace: every step, then the row that says why it stopped.
    """

    method: str
    weight: float | None
    members: list[int]
    loss: float
    cost: float
    score: float
    trace: tuple[Step, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class BestOnPath(SelectedEnsemble):
    """The ensemble of lowest loss that a method came by, and all of them.

    Attributes:
        path: the ensemble after each step, in order, the selected one among them.
        dropped: index to reason of the models that have diverged.
    """

    path: tuple[SelectedEnsemble, ...]
    dropped: dict[int, str]


def best_place(scores: FloatArray, losses: FloatArray, costs: FloatArray, tie_ranks: npt.NDArray[np.intp]) -> int:
    """Where the lowest score is; of equal ones the lower loss, the lower cost, the first id.

    Scores and losses are equal within `TIED_WITHIN` of the lowest: rounding decides nothing.
    """
    places = (scores <= scores.min() + TIED_WITHIN).nonzero()[0]
    if len(places) > 1:
        places = places[losses[places] <= losses[places].min() + TIED_WITHIN]
        places = places[costs[places] == costs[places].min()]
    return int(places[tie_ranks[places].argmin()])


class GreedySearch:
    """A search that is under way.

    Args:
        candidates: what it chooses from.
        limits: the budget, by cost column.
        method: its name.
        weight: w of equation 2.
        max_members: where it ends at the latest.
        only_gains: end when no candidate lowers the score; otherwise the best one is added all the same.
        with_replacement: a member may be added again, counts once more in the average and costs nothing more.
    """

    def __init__(
        self,
        candidates: Candidates,
        limits: Mapping[str, float],
        method: str,
        weight: float,
        max_members: int | None = None,
        only_gains: bool = True,
        with_replacement: bool = False,
    ) -> None:
        self._candidates = candidates
        self._spending = Spending(candidates.cost_columns, limits)
        self._method, self._weight = method, weight
        self._max_members, self._only_gains = max_members, only_gains
        self._with_replacement = with_replacement
        self._left = candidates.usable
        self._fitting, self._over_budget = self._sort_out()
        self._loss = self._score = math.inf
        self._trace: list[Step] = []
        self.members: list[int] = []
        self.result: SelectedEnsemble | None = None

    @property
    def needs_losses(self) -> bool:
        """Whether the next step depends on the losses with the candidates."""
        return self.result is None and len(self._fitting) > 0 and len(self.members) != self._max_members

    def advance(self, losses_with: FloatArray | None) -> None:
        """Take the next step, or end.

        Args:
            losses_with: the loss of the members with each model (models,); None where none is needed.
        """
        scores: FloatArray = np.empty(0)
        best = -1
        if losses_with is None:
            stop = self._stop_without_trying()
        else:
            stop = ""
            losses = losses_with[self._fitting]
            scores = self._scores(losses)
            best = best_place(scores, losses, self._tie_costs(), self._candidates.tie_ranks[self._fitting])
            if self._only_gains and not scores[best] < self._score - TIED_WITHIN:
                stop = "no model that fits lowers the score"
        if stop:
            self._record(None, scores, stop)
            seconds = self._spending.seconds
            self.result = SelectedEnsemble(
                self._method, self._weight, self.members, self._loss, seconds, self._score, tuple(self._trace)
            )
            return
        model = int(self._fitting[best])
        self._loss, self._score = float(losses[best]), float(scores[best])
        self._spending.add(model)
        self.members = [*self.members, model]
        self._record(model, scores, "")
        if not self._with_replacement:
            self._left = self._left[self._left != model]
        self._fitting, self._over_budget = self._sort_out()

    def _scores(self, losses: FloatArray) -> FloatArray:
        """The score with each model that fits, from the losses with them."""
        return (1 - self._weight) * losses + self._weight * self._spending.shares(self._fitting)

    def _tie_costs(self) -> FloatArray:
        """The costs by which ties are broken: a member comes before all others, for it costs nothing more."""
        costs = self._candidates.costs[self._fitting]
        if not self._with_replacement:
            return costs
        return np.where(np.isin(self._fitting, self.members), costs - costs.max() - 1, costs)

    def _stop_without_trying(self) -> str:
        if len(self._left) == 0:
            return "no model is left"
        if len(self.members) == self._max_members:
            return f"max_members ({self._max_members}) is reached"
        return "no model left fits the budget"

    def _record(self, model: int | None, scores: FloatArray, stop: str) -> None:
        tried = self._fitting if len(scores) else self._fitting[:0]
        step = Step(
            len(self._trace) + 1,
            model,
            self._loss,
            self._spending.seconds,
            self._score,
            tried,
            scores,
            self._candidates.tie_ranks[tried],
            self._over_budget,
            stop,
        )
        self._trace.append(step)

    def _sort_out(self) -> tuple[PlaceArray, PlaceArray]:
        fits = self._spending.fits(self._left)
        return self._left[fits], self._left[~fits]


def grow(searches: Sequence[GreedySearch], candidates: Candidates) -> list[SelectedEnsemble]:
    """Take all searches to their ends, a step of each at a time, so that they share every pass over the data."""
    evaluator = candidates.evaluator
    active = list(searches)
    while active:
        evaluator.evaluate(search.members for search in active if search.needs_losses)
        for search in active:
            search.advance(evaluator.losses_with(search.members) if search.needs_losses else None)
        active = [search for search in active if search.result is None]
    return [search.result for search in searches if search.result is not None]


def after_each_step(whole: SelectedEnsemble, weight: float | None) -> list[SelectedEnsemble]:
    """The ensembles on the way to one, itself the last of them.

    Args:
        whole: with its trace.
        weight: theirs.
    """
    return [
        SelectedEnsemble(
            whole.method, weight, whole.members[:size], step.loss, step.cost, step.score, whole.trace[:size]
        )
        for size, step in enumerate(whole.trace[:-1], start=1)
    ]


def best_on_path(candidates: Candidates, path: Sequence[SelectedEnsemble], trace: tuple[Step, ...]) -> BestOnPath:
    """The ensemble of lowest loss; of equal losses the first.

    Args:
        candidates: what the ensembles were chosen from.
        path: the ensemble after each step.
        trace: every step, then the row that says why the method stopped.
    """
    lowest = min(each.loss for each in path)
    best = next(each for each in path if each.loss <= lowest + TIED_WITHIN)
    return BestOnPath(**{**vars(best), "trace": trace}, path=tuple(path), dropped=candidates.dropped)
