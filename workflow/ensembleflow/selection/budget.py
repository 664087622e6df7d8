"""The budget in seconds, and the exact sum of the members' costs held against it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ensembleflow.config import budget_name
from ensembleflow.errors import SelectionError

__all__ = ["Spending", "budget_in_seconds", "named_budget"]

FloatArray = npt.NDArray[np.float64]

# Sums of costs this close to the budget are added exactly: a budget of 3x holds three models of cost x.
_NEAR = 1e-9


def budget_in_seconds(budget: float | str | None, costs: FloatArray) -> float:
    """A budget in seconds; infinity for None.

    Args:
        budget: seconds (a number, or text such as `320`), or a multiple of the median of `costs` (`4x`).
        costs: seconds (models,).

    Raises:
        SelectionError: it is neither, or not above 0.
    """
    if budget is None:
        return math.inf
    if isinstance(budget, str):
        name = named_budget(budget)
        seconds = float(name.removesuffix("x")) * (float(np.median(costs)) if name.endswith("x") else 1.0)
    else:
        seconds = math.nan if isinstance(budget, bool) else float(budget)
    if not seconds > 0:
        raise _not_a_budget(budget)
    return seconds


def named_budget(budget: str) -> str:
    """A budget's name in files and tables, such as `4x` or `320`.

    Raises:
        SelectionError: it is neither seconds nor a multiple, or not above 0.
    """
    try:
        return budget_name(budget)
    except ValueError:
        raise _not_a_budget(budget) from None


def _not_a_budget(budget: object) -> SelectionError:
    return SelectionError(
        "the budget is not a cost",
        found=repr(budget),
        expected="seconds (320) or a multiple of the median cost (4x), above 0",
    )


class Spending:
    """The summed cost of the members, correctly rounded whatever their order.

    Args:
        costs: seconds (models,).
        budget_seconds: the most that the sum may be.
    """

    def __init__(self, costs: FloatArray, budget_seconds: float) -> None:
        self._costs = costs
        self._budget_seconds = budget_seconds
        self._members: list[float] = []
        self.seconds = 0.0

    def add(self, model: int) -> None:
        """Spend a model's cost."""
        self._members.append(float(self._costs[model]))
        self.seconds = math.fsum(self._members)

    def seconds_with(self, candidates: npt.NDArray[np.intp]) -> FloatArray:
        """The sum after adding each candidate alone: float64 (candidates,)."""
        totals = self.seconds + self._costs[candidates]
        if math.isfinite(self._budget_seconds):
            near = np.abs(totals - self._budget_seconds) <= _NEAR * self._budget_seconds
            for position in np.flatnonzero(near):
                totals[position] = math.fsum([*self._members, self._costs[candidates[position]]])
        return totals

    def shares_with(self, totals: FloatArray) -> FloatArray:
        """C_a of equation 2: sums of costs as shares of the budget; 0 without a budget."""
        return totals / self._budget_seconds
