"""SMOBF and forward greedy: ensembles that grow by the best next model (the paper, section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import SelectionError
from ensembleflow.selection.budget import Spending, budget_in_seconds
from ensembleflow.selection.candidates import CachedPredictions, Candidates, read_candidates
from ensembleflow.selection.losses import GrowingEnsemble

__all__ = ["ForwardResult", "Run", "SmobfResult", "Step", "forward_greedy", "smobf"]

# A score must fall by more than this: less is rounding, such as that of averaging equal models.
_SMALLEST_GAIN = 1e-12

_N_RUNNERS_UP = 3


@dataclass(frozen=True)
class Step:
    """One step of a run, or the row that says why it stopped.

    Attributes:
        step: 1-based.
        model: the model added; None on the last row, which repeats the ensemble's loss, cost and score.
        loss: validation loss of the ensemble after this step.
        cost: its summed cost in seconds.
        score: equation 2.
        runners_up: the next three models and their scores; on the last row the three best that were refused.
        n_over_budget: models left out of this step because the ensemble would exceed the budget.
        stop_reason: empty but for the last row.
    """

    step: int
    model: int | None
    loss: float
    cost: float
    score: float
    runners_up: tuple[tuple[int, float], ...]
    n_over_budget: int
    stop_reason: str = ""


@dataclass(frozen=True)
class Run:
    """One greedy run.

    Attributes:
        method: `smobf`, `forward_greedy` or `best_single`.
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
    trace: tuple[Step, ...]


@dataclass(frozen=True)
class SmobfResult(Run):
    """The run that was picked: a weight's, or the best single model where that has the lower loss.

    Attributes:
        budget_seconds: the budget; infinity without one.
        runs: one run a weight, in the order given.
        best_single: the single model of lowest loss that fits the budget.
        dropped: index to reason of the models that could not be averaged.
    """

    budget_seconds: float
    runs: tuple[Run, ...]
    best_single: Run
    dropped: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ForwardResult(Run):
    """The ensemble of lowest loss along the path, and the path.

    Attributes:
        budget_seconds: the budget; infinity without one.
        path: the ensemble of each size, 1 … ; `path[-1].members` is the whole path.
        dropped: index to reason of the models that could not be averaged.
    """

    budget_seconds: float
    path: tuple[Run, ...]
    dropped: dict[int, str] = field(default_factory=dict)


def smobf(
    probabilities: npt.ArrayLike | CachedPredictions,
    labels: npt.ArrayLike | None,
    costs: npt.ArrayLike,
    budget: float | str | None = None,
    weights: Sequence[float] = (0.1, 0.01, 0.001),
    loss: str = "cross_entropy",
) -> SmobfResult:
    """Scalarised multi-objective forward greedy with a budget (the paper's equation 2).

    For each weight w, starting from the empty ensemble, the model is added that gives the ensemble a the
    lowest score (1 - w) · E_a + w · C_a + P_a, where E_a is the loss of the averaged probabilities, C_a the
    summed cost as a share of the budget, and P_a excludes ensembles over the budget. A run stops when no
    model lowers the score or none fits. Of the runs, the one of lowest loss is returned; where the best
    single model that fits has a lower loss still, that model is (`weight` is then None, `score` the loss, and
    the trace says so). Ties fall to the lower loss, cost, then id, and between weights to the first given:
    nothing depends on the models' order.

    Args:
        probabilities: validation probabilities (models, samples, classes), or an opened `predictions.h5`.
        labels: (samples,), integers in 0 … classes - 1; may be None for an opened `predictions.h5`.
        costs: seconds (models,).
        budget: seconds, a multiple of the median of `costs` (`4x`), or None for no budget (C_a is then 0).
        weights: values of w, in 0 … 1.
        loss: E: `cross_entropy`, `error`, `macro_f1_error` or `brier`.

    Raises:
        SelectionError: the budget is below the cheapest model, no model is usable, or an input is wrong.
    """
    for weight in weights:
        if isinstance(weight, bool) or not 0 <= weight <= 1:
            raise SelectionError("a weight is out of range", found=weight, expected="0 … 1")
    if len(weights) == 0:
        raise SelectionError("no weight is given", expected="at least one weight in 0 … 1")
    candidates = read_candidates(probabilities, labels, costs, loss)
    budget_seconds = budget_in_seconds(budget, candidates.costs)
    _check_budget(candidates, budget, budget_seconds)
    runs = tuple(_greedy(candidates, budget_seconds, "smobf", float(weight)) for weight in weights)
    single = _best_single(candidates, budget_seconds)
    # Not by id: runs that chose the same models in another order would fall to the models' order.
    picked = min(runs, key=lambda run: (run.loss, run.cost))
    if single.loss < picked.loss:
        stop = "picked: this single model has a lower loss than the ensemble of every weight"
        picked = replace(single, method="smobf", trace=(single.trace[0], replace(single.trace[1], stop_reason=stop)))
    return SmobfResult(
        **vars(picked), budget_seconds=budget_seconds, runs=runs, best_single=single, dropped=candidates.dropped
    )


def forward_greedy(
    probabilities: npt.ArrayLike | CachedPredictions,
    labels: npt.ArrayLike | None,
    costs: npt.ArrayLike | None = None,
    budget: float | str | None = None,
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
        costs: seconds (models,); None counts every model as 0 seconds.
        budget: seconds, a multiple of the median of `costs` (`4x`), or None for no budget.
        max_members: where the path ends; None goes on to the last model.
        loss: `cross_entropy`, `error`, `macro_f1_error` or `brier`.

    Raises:
        SelectionError: the budget is below the cheapest model, no model is usable, or an input is wrong.
    """
    if max_members is not None and max_members < 1:
        raise SelectionError("max_members leaves no ensemble", found=max_members, expected="1 or more, or None")
    if costs is None and budget is not None:
        raise SelectionError("a budget needs costs", found="costs=None", expected="seconds (models,)")
    candidates = read_candidates(probabilities, labels, costs, loss)
    budget_seconds = budget_in_seconds(budget, candidates.costs)
    _check_budget(candidates, budget, budget_seconds)
    whole = _greedy(candidates, budget_seconds, "forward_greedy", 0.0, max_members, only_gains=False)
    path = tuple(
        Run(whole.method, None, whole.members[:size], step.loss, step.cost, step.loss, whole.trace[:size])
        for size, step in enumerate(whole.trace[:-1], start=1)
    )
    best = min(path, key=lambda run: run.loss)
    return ForwardResult(
        **{**vars(best), "trace": whole.trace}, budget_seconds=budget_seconds, path=path, dropped=candidates.dropped
    )


def _check_budget(candidates: Candidates, budget: float | str | None, budget_seconds: float) -> None:
    cheapest = min(candidates.usable, key=lambda index: (candidates.costs[index], candidates.tie_ranks[index]))
    cost = candidates.costs[cheapest]
    if cost > budget_seconds:
        left_out = "".join(
            f"; {candidates.names[index]} is left out: {why}" for index, why in candidates.dropped.items()
        )
        raise SelectionError(
            f"the budget {budget} ({budget_seconds:.6g} s) is below the cost of every usable model",
            found=f"the cheapest, {candidates.names[cheapest]}, costs {cost:.6g} s{left_out}",
            expected=f"a budget of at least {cost:.6g} s",
            hint=f"raise the budget, or search smaller models; 1x is {np.median(candidates.costs):.6g} s here",
        )


def _best_single(candidates: Candidates, budget_seconds: float) -> Run:
    run = _greedy(candidates, budget_seconds, "best_single", 0.0, max_members=1)
    stop = "a single model is wanted"
    return replace(run, weight=None, trace=(run.trace[0], replace(run.trace[1], stop_reason=stop)))


def _greedy(
    candidates: Candidates,
    budget_seconds: float,
    method: str,
    weight: float,
    max_members: int | None = None,
    only_gains: bool = True,
) -> Run:
    """Grow an ensemble until the score stops falling (`only_gains`), nothing fits or it has `max_members`."""
    ensemble = GrowingEnsemble(candidates.metric, candidates.probabilities, candidates.labels)
    spending = Spending(candidates.costs, budget_seconds)
    members: list[int] = []
    trace: list[Step] = []
    left = candidates.usable
    loss, score = math.inf, math.inf
    while True:
        seconds = spending.seconds_with(left)
        fits = seconds <= budget_seconds
        fitting, n_over_budget = left[fits], int(np.count_nonzero(~fits))
        stop, best_four, scores, losses = "", [], np.empty(0), np.empty(0)
        if len(left) == 0:
            stop = "no model is left"
        elif max_members is not None and len(members) == max_members:
            stop = f"max_members ({max_members}) is reached"
        elif len(fitting) == 0:
            stop = "no model left fits the budget"
        else:
            losses = ensemble.losses_with(fitting)
            scores = (1 - weight) * losses + weight * spending.shares_with(seconds[fits])
            # The last key sorts first: score, loss, cost, id.
            order = np.lexsort((candidates.tie_ranks[fitting], candidates.costs[fitting], losses, scores))
            best_four = [int(position) for position in order[: _N_RUNNERS_UP + 1]]
            if only_gains and not scores[best_four[0]] < score - _SMALLEST_GAIN:
                stop = "no model that fits lowers the score"
        ranked = [(int(fitting[position]), float(scores[position])) for position in best_four]
        if stop:
            last = Step(
                len(trace) + 1, None, loss, spending.seconds, score, tuple(ranked[:_N_RUNNERS_UP]), n_over_budget, stop
            )
            return Run(method, weight, members, loss, spending.seconds, score, (*trace, last))
        model, score = ranked[0]
        loss = float(losses[best_four[0]])
        ensemble.add(model)
        spending.add(model)
        members.append(model)
        left = left[left != model]
        trace.append(Step(len(trace) + 1, model, loss, spending.seconds, score, tuple(ranked[1:]), n_over_budget))
