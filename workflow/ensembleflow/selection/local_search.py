"""Local search: from a chosen ensemble on, by swaps, drops and additions, as long as that pays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ensembleflow.arguments import instance, items, whole_number
from ensembleflow.errors import SelectionError
from ensembleflow.selection.budget import BudgetLike, Spending, budget_limits
from ensembleflow.selection.candidates import Candidates
from ensembleflow.selection.greedy import N_RUNNERS_UP, TIED_WITHIN, SelectedEnsemble

__all__ = ["LocalSearchResult", "Move", "check_members", "local_search", "spending_of"]


@dataclass(frozen=True)
class Move:
    """One move of a local search, or the row that says why it stopped.

    Attributes:
        kind: `add`, `drop` or `swap`; `stop` on the last row, which repeats the ensemble's loss and cost.
        removed: the member that left; None unless dropped or swapped.
        added: the model that came; None unless added or swapped.
        loss: validation loss of the ensemble after this move.
        cost: its summed cost in seconds.
        n_tried: moves within the budget that it was chosen from.
        n_over_budget: moves left out because the ensemble would exceed the budget.
        stop_reason: empty but for the last row.
        runners_up: on the last row, the three models of lowest loss among those that are no members, each with the
            lowest loss of the moves within the budget that bring it in.
        no_gain: on the last row, the models that some move within the budget brings in.
        over_budget: on the last row, those that every move brings in beyond the budget.
    """

    kind: Literal["add", "drop", "swap", "stop"]
    removed: int | None
    added: int | None
    loss: float
    cost: float
    n_tried: int
    n_over_budget: int
    stop_reason: str = ""
    runners_up: tuple[tuple[int, float], ...] = ()
    no_gain: tuple[int, ...] = ()
    over_budget: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class LocalSearchResult(SelectedEnsemble):
    """The ensemble that no move improves; `weight` is None, `score` the loss, and `trace` is empty for `moves`.

    Attributes:
        moves: every move, then the row that says why it stopped.
    """

    moves: tuple[Move, ...] = field(repr=False)


@dataclass(frozen=True)
class _Around:
    """What one move leads to.

    Attributes:
        neighbours: the ensembles of no higher loss.
        n_tried: moves within the budget.
        n_over_budget: moves beyond it.
        others: the usable models that are no members.
        losses: for each, the lowest loss of the moves within the budget that bring it in; infinity without any.
    """

    neighbours: list[_Neighbour]
    n_tried: int
    n_over_budget: int
    others: npt.NDArray[np.intp]
    losses: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Neighbour:
    """An ensemble that one move leads to."""

    removed: int | None
    added: int | None
    members: list[int]
    loss: float
    cost: float


def local_search(candidates: Candidates, start: SelectedEnsemble, budget: BudgetLike) -> LocalSearchResult:
    """Improve an ensemble by the best move of all, again and again, until none improves it.

    A move swaps a member for another model, drops a member, or adds a model, within the budget. It improves the
    ensemble if it lowers the loss by more than `TIED_WITHIN`, or costs less at an equal loss, where what is compared
    is the lowest loss so far: so the search ends, and never at a higher loss than `start`'s. The move of lowest loss is
    taken; of equal ones the one of lowest cost, then that of the first ids.

    Args:
        candidates: what it chooses from.
        start: such as SMOBF's result; distinct members.
        budget: as for `smobf`; `start` is within it.

    Returns:
        An ensemble of method `local_search`: the members that stayed in their order, then those that came in theirs.

    Raises:
        SelectionError: the start's members are no ensemble of usable models within the budget.
    """
    instance("candidates", candidates, Candidates, "read_candidates")
    instance("start", start, SelectedEnsemble, "a method of selection")
    limits = budget_limits(budget, candidates.cost_columns)
    check_members(candidates, limits, start.members)
    members = list(start.members)
    loss = lowest = candidates.evaluator.loss(members)
    cost = math.fsum(candidates.costs[members])
    moves: list[Move] = []
    while True:
        around = _look_around(candidates, limits, members, lowest + TIED_WITHIN)
        better = [each for each in around.neighbours if each.loss < lowest - TIED_WITHIN or each.cost < cost]
        if not better:
            moves.append(_stop(candidates, around, loss, cost))
            return LocalSearchResult("local_search", None, members, loss, cost, loss, (), tuple(moves))
        least = min(each.loss for each in better)
        best = min(
            (each for each in better if each.loss <= least + TIED_WITHIN),
            key=lambda each: (each.cost, _rank(candidates, each.removed), _rank(candidates, each.added)),
        )
        members, loss, cost = best.members, best.loss, best.cost
        lowest = min(lowest, loss)
        kind: Literal["add", "drop", "swap"] = (
            "add" if best.removed is None else "drop" if best.added is None else "swap"
        )
        moves.append(Move(kind, best.removed, best.added, loss, cost, around.n_tried, around.n_over_budget))


def _stop(candidates: Candidates, around: _Around, loss: float, cost: float) -> Move:
    fits = np.isfinite(around.losses)
    order = np.lexsort((candidates.tie_ranks[around.others], around.losses))[: min(N_RUNNERS_UP, int(fits.sum()))]
    return Move(
        "stop",
        None,
        None,
        loss,
        cost,
        around.n_tried,
        around.n_over_budget,
        "no move within the budget lowers the loss, or the cost at the same loss",
        tuple((int(around.others[place]), float(around.losses[place])) for place in order),
        tuple(around.others[fits].tolist()),
        tuple(around.others[~fits].tolist()),
    )


def _look_around(
    candidates: Candidates, limits: Mapping[str, float], members: Sequence[int], highest_loss: float
) -> _Around:
    evaluator = candidates.evaluator
    without = {member: [other for other in members if other != member] for member in members}
    # A drop's loss is that of the rest and one more of its members: as `Evaluator.loss` asks for it.
    last = {
        member: max(rest, key=lambda other: candidates.tie_ranks[other]) for member, rest in without.items() if rest
    }
    shorter = [[other for other in without[member] if other != last[member]] for member in last]
    evaluator.evaluate([members, *without.values(), *shorter])
    others = candidates.usable[~np.isin(candidates.usable, members)]
    losses_of_others = np.full(len(others), np.inf)
    found: list[_Neighbour] = []
    n_tried = n_over_budget = 0

    def look_at(removed: int | None, added: int | None, reached: list[int], loss: float) -> None:
        if loss <= highest_loss:
            found.append(_Neighbour(removed, added, reached, loss, math.fsum(candidates.costs[reached])))

    starts: list[tuple[int | None, list[int]]] = [(None, list(members)), *without.items()]
    for removed, prefix in starts:
        fits = spending_of(candidates, limits, prefix).fits(others)
        n_tried += int(fits.sum())
        n_over_budget += int((~fits).sum())
        if removed is not None and prefix:
            n_tried += 1
            look_at(removed, None, prefix, evaluator.loss(prefix))
        losses = evaluator.losses_with(prefix)
        losses_of_others[fits] = np.minimum(losses_of_others[fits], losses[others[fits]])
        for added in others[fits & (losses[others] <= highest_loss)].tolist():
            look_at(removed, added, [*prefix, added], float(losses[added]))
    return _Around(found, n_tried, n_over_budget, others, losses_of_others)


def _rank(candidates: Candidates, model: int | None) -> int:
    return -1 if model is None else int(candidates.tie_ranks[model])


def spending_of(candidates: Candidates, limits: Mapping[str, float], members: Sequence[int]) -> Spending:
    """What an ensemble spends of a budget."""
    spending = Spending(candidates.cost_columns, limits)
    for member in members:
        spending.add(member)
    return spending


def check_members(candidates: Candidates, limits: Mapping[str, float], members: Sequence[int]) -> None:
    """Check that an ensemble may be improved or certified.

    Raises:
        SelectionError: it is empty, has a member twice or one that is no usable model, or exceeds the budget.
    """
    n_models = len(candidates.names)
    for place, member in enumerate(items("members", members, "a list of indices")):
        whole_number(f"members[{place}]", member)
    if unknown := [member for member in members if not 0 <= member < n_models]:
        raise SelectionError(
            "a member is no model", found=", ".join(map(str, unknown)), expected=f"indices in 0 … {n_models - 1}"
        )
    names = [candidates.names[member] for member in members]
    if len(members) == 0 or len(set(members)) < len(members):
        raise SelectionError(
            "the ensemble is not a set of models", found=", ".join(names) or "no member", expected="distinct members"
        )
    unusable = [candidates.names[member] for member in members if member in candidates.dropped]
    if unusable:
        raise SelectionError("the ensemble has a model that is left out", found=", ".join(unusable))
    for column, limit in limits.items():
        spent = math.fsum(candidates.cost_columns[column][list(members)])
        if spent > limit:
            raise SelectionError(
                "the ensemble exceeds the budget",
                where=column,
                found=f"{spent:.6g}, of {', '.join(names)}",
                expected=f"at most {limit:.6g}",
            )
