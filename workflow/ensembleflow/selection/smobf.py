"""SMOBF, the paper's cost-aware greedy selection, and the forward greedy that it is held against (section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ensembleflow.arguments import items, whole_number
from ensembleflow.config import PRIMARY_COST
from ensembleflow.errors import SelectionError
from ensembleflow.selection.budget import BudgetLike
from ensembleflow.selection.candidates import Candidates, checked_limits
from ensembleflow.selection.greedy import (
    TIED_WITHIN,
    BestOnPath,
    GreedySearch,
    SelectedEnsemble,
    Step,
    after_each_step,
    best_on_path,
    grow,
)

__all__ = ["WEIGHTS", "SmobfResult", "checked_weights", "forward_greedy_path", "smobf_budgets"]

WEIGHTS = (0.1, 0.01, 0.001)
"""The values of w that are tried unless others are given: the paper's."""


@dataclass(frozen=True, eq=False)
class SmobfResult(SelectedEnsemble):
    """The ensemble that was picked: a weight's, or the best single model where that has the lower loss.

    Attributes:
        budget_seconds: the limit of `cost_seconds`; infinity without one.
        limits: every limit by cost column; empty without a budget.
        by_weight: the ensemble of each weight, in the order given.
        best_single: the single model of lowest loss that fits the budget.
        dropped: index to reason of the models that have diverged.
    """

    budget_seconds: float
    limits: dict[str, float]
    by_weight: tuple[SelectedEnsemble, ...]
    best_single: SelectedEnsemble
    dropped: dict[int, str]


def smobf_budgets(
    candidates: Candidates, budgets: Sequence[BudgetLike] = (None,), weights: Sequence[float] = WEIGHTS
) -> list[SmobfResult]:
    """Scalarised multi-objective forward greedy (the paper's equation 2), for several budgets at once.

    For each weight w, starting from the empty ensemble, the model is added that gives the ensemble a the
    lowest score (1 - w) · E_a + w · C_a + P_a, where E_a is the loss of the averaged probabilities, C_a the
    summed cost as a share of the budget (of several limits, the largest share), and P_a excludes ensembles over any
    limit. A search stops when no model lowers the score or none fits. Of the weights' ensembles the one of lowest loss
    is picked; where the best single model that fits has a lower loss still, that model is (`weight` is then None,
    `score` the loss, and the trace says so). Ties fall to the lower loss, cost, then id, and between weights to the
    first given: nothing depends on the models' order. An ensemble that several searches come by is evaluated once.

    Args:
        candidates: what to choose from.
        budgets: each is seconds, a multiple of the median of the costs (`4x`), the same of other columns
            (`4x,parameter_bytes=2x`), or None for no budget (C_a is then 0).
        weights: values of w, in 0 … 1.

    Returns:
        One result per budget, in the order given.

    Raises:
        SelectionError: a budget is not valid or is below the cheapest model, or a weight is out of range.
    """
    weights = checked_weights(weights)
    if len(weights) == 0:
        raise SelectionError("no weight is given", expected="at least one weight in 0 … 1")
    all_limits = [checked_limits(candidates, each) for each in items("budgets", budgets, "a list of budgets")]
    selected = iter(
        grow(
            [
                search
                for limits in all_limits
                for search in (
                    *(GreedySearch(candidates, limits, "smobf", float(weight)) for weight in weights),
                    GreedySearch(candidates, limits, "best_single", 0.0, max_members=1),
                )
            ],
            candidates,
        )
    )
    return [_pick(candidates, limits, list(islice(selected, len(weights) + 1))) for limits in all_limits]


def _pick(candidates: Candidates, limits: dict[str, float], selected: list[SelectedEnsemble]) -> SmobfResult:
    *by_weight, single = selected
    single = replace(single, weight=None, trace=(single.trace[0], _ended(single, "a single model is wanted")))
    lowest = min(each.loss for each in by_weight)
    # Not by id: searches that chose the same models in another order would fall to the models' order.
    picked = min((each for each in by_weight if each.loss <= lowest + TIED_WITHIN), key=lambda each: each.cost)
    if single.loss < picked.loss - TIED_WITHIN:
        stop = "picked: this single model has a lower loss than the ensemble of every weight"
        picked = replace(single, method="smobf", trace=(single.trace[0], _ended(single, stop)))
    return SmobfResult(
        **vars(picked),
        budget_seconds=limits.get(PRIMARY_COST, math.inf),
        limits=limits,
        by_weight=tuple(by_weight),
        best_single=single,
        dropped=candidates.dropped,
    )


def _ended(single: SelectedEnsemble, stop: str) -> Step:
    """The last row of a search of one step, with what that step knows of the models that it did not take."""
    first, last = single.trace
    others = first.tried != first.model
    return replace(
        last,
        tried=first.tried[others],
        scores=first.scores[others],
        tie_ranks=first.tie_ranks[others],
        over_budget=first.over_budget,
        stop_reason=stop,
    )


def forward_greedy_path(
    candidates: Candidates, budget: BudgetLike = None, max_members: int | None = None
) -> BestOnPath:
    """Forward greedy selection without replacement, the paper's baseline (sections 2.1 and 3.3.3).

    Each step adds the model that gives the lowest loss among those that fit the budget, also where the loss
    rises, so that there is an ensemble of every size; the one of lowest loss is the result (the smaller of
    two with equal losses).

    Args:
        candidates: what to choose from.
        budget: as one of `smobf_budgets`.
        max_members: where the path ends; None goes on to the last model.

    Returns:
        The pick; its path has the ensemble of each size, 1 … , and its trace goes to the path's end.

    Raises:
        SelectionError: the budget is not valid or is below the cheapest model, or `max_members` is below 1.
    """
    if max_members is not None and whole_number("max_members", max_members) < 1:
        raise SelectionError("max_members leaves no ensemble", found=max_members, expected="1 or more, or None")
    limits = checked_limits(candidates, budget)
    search = GreedySearch(candidates, limits, "forward_greedy", 0.0, max_members, only_gains=False)
    (whole,) = grow([search], candidates)
    return best_on_path(candidates, after_each_step(whole, weight=None), whole.trace)


def checked_weights(weights: Sequence[float]) -> list[float]:
    """Weights of the cost, each in 0 … 1.

    Raises:
        SelectionError: one is not.
    """
    listed = items("weights", weights, "a list of numbers in 0 … 1")
    for weight in listed:
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0 <= weight <= 1:
            raise SelectionError("a weight is out of range", found=weight, expected="0 … 1")
    return listed
