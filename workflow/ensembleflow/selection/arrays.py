"""Selecting from plain arrays or an opened cache, in one call: the candidates are read, and selected from once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from ensembleflow.selection.budget import BudgetLike
from ensembleflow.selection.candidates import CostsLike, ProbabilitiesLike, read_candidates
from ensembleflow.selection.greedy import BestOnPath
from ensembleflow.selection.smobf import WEIGHTS, SmobfResult, forward_greedy_path, smobf_budgets

__all__ = ["forward_greedy", "smobf"]


def smobf(
    probabilities: ProbabilitiesLike,
    labels: npt.ArrayLike | None = None,
    costs: CostsLike = None,
    budget: BudgetLike = None,
    weights: Sequence[float] = WEIGHTS,
    loss: str = "cross_entropy",
) -> SmobfResult:
    """Scalarised multi-objective forward greedy with a budget (the paper's equation 2).

    For each weight w, starting from the empty ensemble, the model is added that gives the ensemble a the
    lowest score (1 - w) · E_a + w · C_a + P_a, where E_a is the loss of the averaged probabilities, C_a the
    summed cost as a share of the budget, and P_a excludes ensembles over the budget. `smobf_budgets`, which takes
    candidates that were read before, says when it stops and how ties fall.

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
    return smobf_budgets(read_candidates(probabilities, labels, costs, loss), [budget], weights)[0]


def forward_greedy(
    probabilities: ProbabilitiesLike,
    labels: npt.ArrayLike | None = None,
    costs: CostsLike = None,
    budget: BudgetLike = None,
    max_members: int | None = None,
    loss: str = "cross_entropy",
) -> BestOnPath:
    """Forward greedy selection without replacement, the paper's baseline: `forward_greedy_path` of arrays.

    Args:
        probabilities: as for `smobf`.
        labels: likewise.
        costs: likewise; None counts every model as 0 seconds.
        budget: likewise.
        max_members: where the path ends; None goes on to the last model.
        loss: as for `smobf`.

    Raises:
        SelectionError: as for `smobf`, or `max_members` is below 1.
    """
    return forward_greedy_path(read_candidates(probabilities, labels, costs, loss), budget, max_members)
