"""What SMOBF is compared with: the selection methods that others use, on the same candidates and losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ensembleflow.arguments import instance, items, whole_number
from ensembleflow.errors import SelectionError
from ensembleflow.selection.budget import BudgetLike, Spending, budget_limits
from ensembleflow.selection.candidates import Candidates, checked_limits
from ensembleflow.selection.greedy import (
    TIED_WITHIN,
    BestOnPath,
    GreedySearch,
    SelectedEnsemble,
    Step,
    after_each_step,
    best_on_path,
    best_place,
    grow,
)
from ensembleflow.selection.local_search import spending_of
from ensembleflow.selection.smobf import checked_weights

__all__ = [
    "SWEEP_WEIGHTS",
    "best_single",
    "greedy_with_replacement",
    "lowest_within",
    "multiplicities",
    "top_k",
    "weight_sweep",
]

FloatArray = npt.NDArray[np.float64]

SWEEP_WEIGHTS = tuple(tenth / 10 for tenth in range(11))


def best_single(candidates: Candidates, budget: BudgetLike = None) -> SelectedEnsemble:
    """The single model of lowest loss within a budget.

    Args:
        candidates: what to choose from.
        budget: as for `smobf`.

    Raises:
        SelectionError: no model fits the budget, or it is not valid.
    """
    limits = checked_limits(candidates, budget)
    (single,) = grow([GreedySearch(candidates, limits, "best_single", 0.0, max_members=1)], candidates)
    return replace(single, weight=None)


def top_k(candidates: Candidates, budget: BudgetLike = None) -> BestOnPath:
    """The k models of lowest loss, averaged; of all k that the budget holds, the one of lowest loss.

    Models that exceed the budget alone are passed over. The rest are ranked by their own loss (ties by cost, then
    id), and k grows up to the first ensemble that exceeds the budget.

    Args:
        candidates: what to choose from.
        budget: as for `smobf`.

    Returns:
        The pick (of equal losses the smaller k); its path has an ensemble for each k.

    Raises:
        SelectionError: no model fits the budget, or it is not valid.
    """
    limits = checked_limits(candidates, budget)
    spending = Spending(candidates.cost_columns, limits)
    singles = candidates.evaluator.losses_with([])
    ranked = _ranked(candidates, candidates.usable[spending.fits(candidates.usable)], singles)
    members: list[int] = []
    costs = []
    for model in ranked:
        if not spending.fits(np.array([model]))[0]:
            break
        spending.add(model)
        members.append(model)
        costs.append(spending.seconds)
    candidates.evaluator.evaluate(members[:size] for size in range(len(members)))
    steps: list[Step] = []
    path = []
    for size, (model, cost) in enumerate(zip(members, costs, strict=True), start=1):
        loss = float(candidates.evaluator.losses_with(members[: size - 1])[model])
        steps.append(_step(candidates, size, model, loss, cost))
        path.append(SelectedEnsemble("top_k", None, members[:size], loss, cost, loss, tuple(steps)))
    stop = "the next model in the ranking exceeds the budget" if len(members) < len(ranked) else "no model is left"
    trace = (*steps, replace(steps[-1], step=len(steps) + 1, model=None, stop_reason=stop))
    return best_on_path(candidates, path, trace)


def _ranked(candidates: Candidates, models: npt.NDArray[np.intp], losses: FloatArray) -> list[int]:
    """Models by ascending loss."""
    ranked = []
    while len(models):
        own = losses[models]
        best = models[best_place(own, own, candidates.costs[models], candidates.tie_ranks[models])]
        ranked.append(int(best))
        models = models[models != best]
    return ranked


def _step(candidates: Candidates, number: int, model: int, loss: float, cost: float) -> Step:
    tried, none = np.array([model], dtype=np.intp), np.empty(0, dtype=np.intp)
    return Step(number, model, loss, cost, loss, tried, np.array([loss]), candidates.tie_ranks[tried], none)


def greedy_with_replacement(
    candidates: Candidates, budget: BudgetLike = None, n_steps: int = 100, among: Sequence[int] | None = None
) -> BestOnPath:
    """Greedy selection with replacement: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004.

    From the empty ensemble each of `n_steps` steps adds the model, members included, that gives the lowest loss of the
    average; a member that was added twice weighs twice. The step of lowest loss is the result. auto-sklearn and
    AutoGluon select so. Ties fall to a member before all others, then to the lower cost and the id; auto-sklearn
    draws, AutoGluon prefers members and then draws.

    Args:
        candidates: what to choose from.
        budget: as for `smobf`. A member costs once, however often it was added.
        n_steps: steps, 1 or more.
        among: indices of the only models that may be added, as far as they are usable; None for all.

    Returns:
        The pick (of equal losses the earliest step). `members` repeats a model as often as it was added: its weight is
        its share of them. The path has an ensemble for each step.

    Raises:
        SelectionError: no model fits the budget, or an argument is wrong.
    """
    instance("candidates", candidates, Candidates, "read_candidates")
    if among is not None:
        among = [whole_number(f"among[{i}]", each) for i, each in enumerate(items("among", among, "a list of indices"))]
        usable = np.intersect1d(candidates.usable, np.array(among, dtype=np.intp))
        if len(usable) == 0:
            raise SelectionError("no usable model may be added", where="among", found=list(among))
        candidates = replace(candidates, usable=usable)
    limits = checked_limits(candidates, budget)
    _check_steps(n_steps)
    search = GreedySearch(
        candidates, limits, "greedy_with_replacement", 0.0, n_steps, only_gains=False, with_replacement=True
    )
    (whole,) = grow([search], candidates)
    return best_on_path(candidates, after_each_step(whole, weight=None), whole.trace)


def multiplicities(candidates: Candidates, members: Sequence[int], n_steps: int = 100) -> dict[int, int]:
    """How often greedy selection with replacement, among the members alone, adds each: by index, in their order.

    A member that it never adds is left out: its weight is 0.

    Args:
        candidates: gives the validation losses that the weights are fitted to.
        members: indices of usable models.
        n_steps: as for `greedy_with_replacement`.
    """
    added = Counter(greedy_with_replacement(candidates, n_steps=n_steps, among=members).members)
    return {member: added[member] for member in members if added[member]}


class _SweepSearch(GreedySearch):
    """A search of `weight_sweep`."""

    def __init__(self, candidates: Candidates, weight: float, n_steps: int) -> None:
        super().__init__(candidates, {}, "weight_sweep", weight, n_steps, only_gains=False, with_replacement=True)

    def _scores(self, losses: FloatArray) -> FloatArray:
        costs = self._candidates.costs[self._fitting]
        spread = losses.max() - losses.min()
        if spread <= TIED_WITHIN:
            return self._weight * _min_max(costs)
        # In units of the loss, so that what is rounding in a loss is rounding in the score.
        return (1 - self._weight) * (losses - losses.min()) + self._weight * spread * _min_max(costs)


def weight_sweep(
    candidates: Candidates, weights: Sequence[float] = SWEEP_WEIGHTS, n_steps: int = 100
) -> tuple[SelectedEnsemble, ...]:
    """Greedy selection with replacement for static weights of the cost, knowing no budget (MULTI_GES).

    It is the cost-aware greedy of Maier, Möller and Purucker, Hardware Aware Ensemble Selection for Balancing
    Predictive Accuracy and Cost (AutoML 2024 workshop; code: Atraxus/HA-ES and Atraxus/phem). Each step adds the model
    m of the lowest (1 - w) · L_m + w · C_m: L_m is the loss of the ensemble with m, min-max normalised over the
    models at that step; C_m is the model's own cost, min-max normalised over the models. Where all are equal, L or C
    is 0. C does not know what is in the ensemble already: that is the authors' definition. Ties fall to the lower
    loss, then as in `greedy_with_replacement`; the authors draw.

    Args:
        candidates: what to choose from.
        weights: values of w, in 0 … 1; the authors take 20, evenly spaced.
        n_steps: steps a weight, 1 or more.

    Returns:
        The ensembles of all steps of all weights, in order; `lowest_within` picks one for a budget. `members` repeats
        a model as often as it was added, and a member costs once. `score` is in units of the loss: the sum above times
        the spread of the losses at that step.

    Raises:
        SelectionError: an argument is wrong.
    """
    instance("candidates", candidates, Candidates, "read_candidates")
    _check_steps(n_steps)
    weights = checked_weights(weights)
    found = grow([_SweepSearch(candidates, float(weight), n_steps) for weight in weights], candidates)
    return tuple(each for whole in found for each in after_each_step(whole, whole.weight))


def lowest_within(
    candidates: Candidates, ensembles: Iterable[SelectedEnsemble], budget: BudgetLike
) -> SelectedEnsemble | None:
    """The ensemble of lowest loss that fits the budget; None where none does.

    Of equal losses the cheaper one, then the first.

    Args:
        candidates: what they were chosen from.
        ensembles: by any methods.
        budget: as for `smobf`.

    Raises:
        SelectionError: the budget is not valid.
    """
    limits = budget_limits(budget, candidates.cost_columns)
    fitting = [each for each in ensembles if _fits(candidates, each.members, limits)]
    lowest = min((each.loss for each in fitting), default=0.0)
    return min(
        (each for each in fitting if each.loss <= lowest + TIED_WITHIN), key=lambda each: each.cost, default=None
    )


def _fits(candidates: Candidates, members: Sequence[int], limits: dict[str, float]) -> bool:
    *rest, last = dict.fromkeys(members)
    return bool(spending_of(candidates, limits, rest).fits(np.array([last]))[0])


def _check_steps(n_steps: int) -> None:
    if whole_number("n_steps", n_steps) < 1:
        raise SelectionError("n_steps leaves no ensemble", found=n_steps, expected="1 or more")


def _min_max(values: FloatArray) -> FloatArray:
    lowest, highest = values.min(), values.max()
    return (values - lowest) / (highest - lowest) if highest > lowest else np.zeros(len(values))
