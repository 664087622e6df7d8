"""Budgets in the units of any cost column, and the exact sums of the members' costs held against them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensembleflow.config import PRIMARY_COST, budget_name, budget_parts
from ensembleflow.errors import SelectionError

__all__ = ["BudgetLike", "Spending", "budget_limits", "named_budget"]

FloatArray = npt.NDArray[np.float64]

BudgetLike = float | str | Mapping[str, float | str] | None

# Sums of costs this close to the budget are added exactly: a budget of 3x holds three models of cost x.
_NEAR = 1e-9


def budget_limits(budget: BudgetLike, costs: Mapping[str, FloatArray]) -> dict[str, float]:
    """The most that each cost column's sum may be.

    Args:
        budget: seconds (a number, or text such as `320`); a multiple of the median of the costs (`4x`); the same of
            other columns, several at once (`4x,parameter_bytes=2x`, or a mapping from column to number or text); or
            None for no budget.
        costs: by column, (models,) each; `cost_seconds` is the one that a bare amount means.

    Returns:
        By column, in the column's unit; empty without a budget.

    Raises:
        SelectionError: an amount is not above 0, or a column is not there.
    """
    if budget is None:
        return {}
    if isinstance(budget, Mapping):
        amounts = {str(column): amount for column, amount in budget.items()}
    elif isinstance(budget, str):
        amounts = dict(_parts(budget))
    else:
        amounts = {PRIMARY_COST: budget}
    limits = {}
    for column, amount in amounts.items():
        if column not in costs:
            raise SelectionError(
                "the budget names a cost that is not there",
                found=column,
                expected=f"one of {', '.join(costs)}",
                hint="a budget may name any column of numbers of costs.csv",
            )
        if not costs[column].any():
            raise SelectionError("a budget needs costs", found="costs=None", expected="seconds (models,)")
        limit = _limit(amount, costs[column])
        if not 0 < limit < math.inf:
            raise _not_a_budget(budget)
        limits[column] = limit
    return limits


def _limit(amount: float | str, costs: FloatArray) -> float:
    if isinstance(amount, str):
        (column, text), *others = _parts(amount)
        if column != PRIMARY_COST or others:
            raise _not_a_budget(amount)
        return float(text.removesuffix("x")) * (float(np.median(costs)) if text.endswith("x") else 1.0)
    # What is no number becomes NaN, which is refused as no budget.
    return float(amount) if isinstance(amount, int | float | np.number) and not isinstance(amount, bool) else math.nan


def named_budget(budget: str) -> str:
    """A budget's name in files and tables, such as `4x`, `320` or `4x,parameter_bytes=2x`.

    Raises:
        SelectionError: it is no budget.
    """
    try:
        return budget_name(budget)
    except ValueError as error:
        raise _not_a_budget(budget, error) from None


def _parts(budget: str) -> list[tuple[str, str]]:
    try:
        return budget_parts(budget)
    except ValueError as error:
        raise _not_a_budget(budget, error) from None


def _not_a_budget(budget: object, why: ValueError | None = None) -> SelectionError:
    twice = f", which {why}" if why is not None and "twice" in str(why) else ""
    return SelectionError(
        "the budget is not a cost",
        found=f"{budget!r}{twice}",
        expected="seconds (320), a multiple of the median cost (4x), or either of a named column "
        "(parameter_bytes=2x), above 0",
    )


class Spending:
    """The members' summed costs, correctly rounded whatever their order, and what of the budget they are.

    A member that is added again costs nothing more.

    Args:
        costs: by column, (models,) each.
        limits: by column; columns without a limit are not held against anything.
    """

    def __init__(self, costs: Mapping[str, FloatArray], limits: Mapping[str, float]) -> None:
        self._costs = np.stack([costs[column] for column in limits]) if limits else np.empty((0, 0))
        self._limits = np.array(list(limits.values()))
        self._seconds = costs[PRIMARY_COST]
        self._members: list[int] = []
        self._is_member = np.zeros(len(self._seconds), dtype=np.bool_)
        self._spent = np.zeros(len(self._limits))
        self.seconds = 0.0

    def add(self, model: int) -> None:
        """Spend a model's costs."""
        if self._is_member[model]:
            return
        self._is_member[model] = True
        self._members.append(model)
        self.seconds = math.fsum(self._seconds[self._members])
        self._spent = np.array([math.fsum(row[self._members]) for row in self._costs])

    def fits(self, candidates: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Whether each candidate can be added within every limit: (candidates,)."""
        fits = np.ones(len(candidates), dtype=np.bool_)
        added_again = self._is_member[candidates]
        for row, spent, limit in zip(self._costs, self._spent, self._limits, strict=True):
            totals = spent + row[candidates]
            within = totals <= limit
            for place in (np.abs(totals - limit) <= _NEAR * limit).nonzero()[0]:
                within[place] = math.fsum([*row[self._members], row[candidates[place]]]) <= limit
            fits &= within | added_again
        return fits

    def shares(self, candidates: npt.NDArray[np.intp]) -> FloatArray:
        """C_a of equation 2 after adding each candidate: the sum of costs as a share of the budget (candidates,).

        Of several budgets the share of the fullest; 0 without a budget.
        """
        if not len(self._limits):
            return np.zeros(len(candidates))
        new = ~self._is_member[candidates]
        shares = [
            (spent + row[candidates] * new) / limit
            for row, spent, limit in zip(self._costs, self._spent, self._limits, strict=True)
        ]
        return shares[0] if len(shares) == 1 else np.max(shares, axis=0)
