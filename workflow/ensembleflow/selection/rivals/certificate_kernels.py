"""The compiled inner loop of branch and bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensembleflow.selection.sums.compiled import compiled

__all__ = ["superset_bounds"]


@compiled()
def superset_bounds(
    prefix: Any,
    later: Any,
    constants: Any,
    scores: Any,
    by_score: Any,
    costs: Any,
    by_cost: Any,
    allowed: Any,
) -> Any:  # pragma: no cover - compiled
    """Bounds on ensembles of the prefix, one later model and at least one still later: float64 (later,).

    Args:
        prefix: places, int64.
        later: places that fit with the prefix, ascending.
        constants: of the sizes from 2 on: (sizes,).
        scores: (sizes, models).
        by_score: each size's places by ascending score.
        costs: (columns, models).
        by_cost: each column's places by ascending cost.
        allowed: (columns,).
    """
    n_columns, n_models = costs.shape
    n_sizes = len(constants)
    bounds = np.full(len(later), np.inf)
    available = np.zeros(n_models, np.bool_)
    spent = np.zeros(n_columns)
    for column in range(n_columns):
        for place in prefix:
            spent[column] += costs[column, place]
    included = np.zeros(n_sizes)
    for row in range(n_sizes):
        for place in prefix:
            included[row] += scores[row, place]
    for index in range(len(later) - 2, -1, -1):
        child = later[index]
        available[:] = False
        n_available = 0
        for place in later[index + 1 :]:
            fits = True
            for column in range(n_columns):
                fits = fits and spent[column] + costs[column, child] + costs[column, place] <= allowed[column]
            available[place] = fits
            n_available += fits
        most = n_available
        for column in range(n_columns):
            total, count = spent[column] + costs[column, child], 0
            for place in by_cost[column]:
                if available[place]:
                    total += costs[column, place]
                    if total > allowed[column]:
                        break
                    count += 1
            most = min(most, count)
        size = len(prefix) + 1
        for added in range(1, most + 1):
            row = size + added - 2
            if row >= n_sizes:
                break
            total, count = constants[row] + included[row] + scores[row, child], 0
            for place in by_score[row]:
                if available[place]:
                    total += scores[row, place]
                    count += 1
                    if count == added:
                        break
            bounds[index] = min(bounds[index], total)
    return bounds
