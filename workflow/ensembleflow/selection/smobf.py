"""SMOBF, the paper's cost-aware greedy selection, and the forward greedy that it is held against (section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from ensembleflow.arguments import items, whole_number
from ensembleflow.config import PRIMARY_COST
from ensembleflow.errors import SelectionError
from ensembleflow.selection.budget import BudgetLike, Spending, budget_limits
from ensembleflow.selection.candidates import Candidates, CostsLike, ProbabilitiesLike, read_candidates
from ensembleflow.selection.greedy import TIED_WITHIN, GreedyRun, Run, Step, grow

__all__ = [
    "ForwardResult",
    "SmobfResult",
    "check_budget",
    "checked_weights",
    "forward_greedy",
    "smobf",
    "smobf_budgets",
]

_WEIGHTS = (0.1, 0.01, 0.001)


@dataclass(frozen=True, eq=False)
class SmobfResult(Run):
    """The run that was picked: a weight's, or the best single model where that has the lower loss.

    Attributes:
        budget_seconds: the limit of `cost_seconds`; infinity without one.
        limits: every limit by cost column; empty without a budget.
        runs: one run a weight, in the order given.
        best_single: the single model of lowest loss that fits the budget.
        dropped: index to reason of the models that have diverged.
    """

    budget_seconds: float
    limits: dict[str, float]
    runs: tuple[Run, ...]
    best_single: Run
    dropped: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ForwardResult(Run):
    """The ensemble of lowest loss along the path, and the path.

    Attributes:
        budget_seconds: the limit of `cost_seconds`; infinity without one.
        limits: every limit by cost column; empty without a budget.
        path: the ensemble of each size, 1 … ; `path[-1].members` is the whole path.
        dropped: index to reason of the models that have diverged.
    """

    budget_seconds: float
    limits: dict[str, float]
    path: tuple[Run, ...]
    dropped: dict[int, str] = field(default_factory=dict)


def smobf(
    probabilities: ProbabilitiesLike,
    labels: npt.ArrayLike | None = None,
    costs: CostsLike = None,
    budget: BudgetLike = None,
    weights: Sequence[float] = _WEIGHTS,
    loss: str = "cross_entropy",
) -> SmobfResult:
    """Scalarised multi-objective forward greedy with a budget (the paper's equation 2).

    For each weight w, starting from the empty ensemble, the model is added that gives the ensemble a the
    lowest score (1 - w) · E_a + w · C_a + P_a, where E_a is the loss of the averaged probabilities, C_a the
    summed cost as a share of the budget (of several budgets, the largest share), and P_a excludes ensembles over any
    budget. A run stops when no model lowers the score or none fits. Of the runs, the one of lowest loss is returned;
    where the best single model that fits has a lower loss still, that model is (`weight` is then None, `score` the
    loss, and the trace says so). Ties fall to the lower loss, cost, then id, and between weights to the first given:
    nothing depends on the models' order.

    Args:
        probabilities: validation probabilities (models, samples, classes), or an opened `predictions.h5`.
        labels: (samples,), integers in 0 … classes - 1; may be None for an opened `predictions.h5`.
        costs: seconds (models,), or columns of costs by name, `cost_seconds` among them.
        budget: seconds, a multiple of the median of `costs` (`4x`), the same of other columns
            (`4x,parameter_bytes=2x`), or None for no budget (C_a is then 0).
        weights: values of w, in 0 … 1.
        loss: E: `cross_entropy`, `error`, `macro_f1_error` or `brier`.

    Raises:
        SelectionError: the budget is below the cheapest model, no model is usable, or an input is wrong.
    """
    candidates = read_candidates(probabilities, labels, costs, loss)
    return smobf_budgets(candidates, budgets=[budget], weights=weights, loss=loss)[0]


def smobf_budgets(
    probabilities: ProbabilitiesLike,
    labels: npt.ArrayLike | None = None,
    costs: CostsLike = None,
    budgets: Sequence[BudgetLike] = (None,),
    weights: Sequence[float] = _WEIGHTS,
    loss: str = "cross_entropy",
) -> list[SmobfResult]:
    """SMOBF for several budgets at once: every ensemble that runs have in common is evaluated once for all of them.

    Args:
        probabilities: as for `smobf`.
        labels: likewise.
        costs: likewise.
        budgets: as `budget` there.
        weights: likewise.
        loss: likewise.

    Returns:
        A result a budget, in the order given.

    Raises:
        SelectionError: as for `smobf`.
    """
    weights, budgets = checked_weights(weights), items("budgets", budgets, "a list of budgets")
    if len(weights) == 0:
        raise SelectionError("no weight is given", expected="at least one weight in 0 … 1")
    candidates = read_candidates(probabilities, labels, costs, loss)
    all_limits = [budget_limits(budget, candidates.cost_columns) for budget in budgets]
    for budget, limits in zip(budgets, all_limits, strict=True):
        check_budget(candidates, budget, limits)
    runs = iter(
        grow(
            [
                run
                for limits in all_limits
                for run in (
                    *(GreedyRun(candidates, limits, "smobf", float(weight)) for weight in weights),
                    GreedyRun(candidates, limits, "best_single", 0.0, max_members=1),
                )
            ],
            candidates,
        )
    )
    return [_pick(candidates, limits, list(islice(runs, len(weights) + 1))) for limits in all_limits]


def _pick(candidates: Candidates, limits: dict[str, float], runs: list[Run]) -> SmobfResult:
    *weighted, single = runs
    single = replace(single, weight=None, trace=(single.trace[0], _ended(single, "a single model is wanted")))
    lowest = min(run.loss for run in weighted)
    # Not by id: runs that chose the same models in another order would fall to the models' order.
    picked = min((run for run in weighted if run.loss <= lowest + TIED_WITHIN), key=lambda run: run.cost)
    if single.loss < picked.loss - TIED_WITHIN:
        stop = "picked: this single model has a lower loss than the ensemble of every weight"
        picked = replace(single, method="smobf", trace=(single.trace[0], _ended(single, stop)))
    return SmobfResult(
        **vars(picked),
        budget_seconds=limits.get(PRIMARY_COST, math.inf),
        limits=limits,
        runs=tuple(weighted),
        best_single=single,
        dropped=candidates.dropped,
    )


def _ended(run: Run, stop: str) -> Step:
    """The last row of a run of one step, with what that step tells of the models that it did not take."""
    first, last = run.trace
    others = first.tried != first.model
    return replace(
        last,
        tried=first.tried[others],
        scores=first.scores[others],
        tie_ranks=first.tie_ranks[others],
        over_budget=first.over_budget,
        stop_reason=stop,
    )


def forward_greedy(
    probabilities: ProbabilitiesLike,
    labels: npt.ArrayLike | None = None,
    costs: CostsLike = None,
    budget: BudgetLike = None,
    max_members: int | None = None,
    loss: str = "cross_entropy",
) -> ForwardResult:
    """Forward greedy selection without replacement, the paper's baseline (sections 2.1 and 3.3.3).

    Each step adds the model that gives the lowest loss among those that fit the budget, also where the loss
    rises, so that there is an ensemble of every size; the one of lowest loss is the result (the smaller of
    two with equal losses).

    Args:
        probabilities: validation probabilities (models, samples, classes), or an opened `predictions.h5`.
        labels: (samples,), integers in 0 … classes - 1; may be None for an opened `predictions.h5`.
        costs: as for `smobf`; None counts every model as 0 seconds.
        budget: as for `smobf`.
        max_members: where the path ends; None goes on to the last model.
        loss: `cross_entropy`, `error`, `macro_f1_error` or `brier`.

    Raises:
        SelectionError: the budget is below the cheapest model, no model is usable, or an input is wrong.
    """
    if max_members is not None and whole_number("max_members", max_members) < 1:
        raise SelectionError("max_members leaves no ensemble", found=max_members, expected="1 or more, or None")
    candidates = read_candidates(probabilities, labels, costs, loss)
    limits = budget_limits(budget, candidates.cost_columns)
    check_budget(candidates, budget, limits)
    (whole,) = grow([GreedyRun(candidates, limits, "forward_greedy", 0.0, max_members, only_gains=False)], candidates)
    path = tuple(
        Run(whole.method, None, whole.members[:size], step.loss, step.cost, step.loss, whole.trace[:size])
        for size, step in enumerate(whole.trace[:-1], start=1)
    )
    lowest = min(run.loss for run in path)
    best = next(run for run in path if run.loss <= lowest + TIED_WITHIN)
    return ForwardResult(
        **{**vars(best), "trace": whole.trace},
        budget_seconds=limits.get(PRIMARY_COST, math.inf),
        limits=limits,
        path=path,
        dropped=candidates.dropped,
    )


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


def check_budget(candidates: Candidates, budget: BudgetLike, limits: Mapping[str, float]) -> None:
    """Check that at least one model fits.

    Raises:
        SelectionError: none does; the cheapest is named.
    """
    if Spending(candidates.cost_columns, limits).fits(candidates.usable).any():
        return
    left_out = "".join(f"; {candidates.names[index]} is left out: {why}" for index, why in candidates.dropped.items())
    cheapest, median = [], []
    for column, limit in limits.items():
        costs = candidates.cost_columns[column]
        best = min(candidates.usable, key=lambda index: (costs[index], candidates.tie_ranks[index]))
        unit = "s" if column == PRIMARY_COST else column
        cheapest.append(f"the cheapest, {candidates.names[best]}, costs {costs[best]:.6g} {unit} of {limit:.6g}")
        median.append(f"1x is {np.median(costs):.6g} {unit}")
    raise SelectionError(
        f"no usable model fits the budget {budget}",
        found="; ".join(cheapest) + left_out,
        expected="a budget that at least one model fits",
        hint=f"raise the budget, or search smaller models; {', '.join(median)} here",
    )
