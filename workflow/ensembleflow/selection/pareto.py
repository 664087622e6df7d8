"""The ensembles that no other beats in both cost and loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensembleflow.arguments import array
from ensembleflow.errors import ArgumentError

__all__ = ["pareto_front"]


def pareto_front(costs: npt.ArrayLike, losses: npt.ArrayLike) -> list[int]:
    """Indices of the non-dominated points, by ascending cost (points that are equal in both all stay).

    A point is dominated when another is no worse in cost and loss, and better in one. Points with a NaN are left out.

    Args:
        costs: (points,).
        losses: (points,).

    Raises:
        ArgumentError: they are no numbers, or not as many of each.
    """
    cost = array("costs", costs, "iuf", "numbers (points,)").astype(np.float64)
    loss = array("losses", losses, "iuf", "numbers (points,), as many as costs").astype(np.float64)
    if cost.ndim != 1 or loss.shape != cost.shape:
        raise ArgumentError(
            "a function cannot take an argument",
            where="costs and losses",
            found=f"{cost.shape} and {loss.shape}",
            expected="(points,) each",
        )
    front: list[int] = []
    for index in np.lexsort((loss, cost)):
        if np.isnan(cost[index]) or np.isnan(loss[index]):
            continue
        last = front[-1] if front else None
        if last is None or loss[index] < loss[last] or (loss[index], cost[index]) == (loss[last], cost[last]):
            front.append(int(index))
    return front
