"""The exact optimum of a budget, or how far from it an ensemble can be at most: branch and bound."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensembleflow.arguments import instance, whole_number
from ensembleflow.errors import SelectionError
from ensembleflow.models.metrics import sample_chunks
from ensembleflow.selection.budget import BudgetLike, budget_limits
from ensembleflow.selection.candidates import Candidates
from ensembleflow.selection.greedy import TIED_WITHIN, SelectedEnsemble
from ensembleflow.selection.local_search import check_members, local_search, spending_of
from ensembleflow.selection.rivals.relaxation import (
    Bounds,
    BrierRelaxation,
    CrossEntropyRelaxation,
    Relaxation,
    bounds_by_size,
)
from ensembleflow.selection.sums.partition import Source

__all__ = ["Certificate", "certify"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Probabilities that all nodes together may read: tens of minutes on one core.
_READ_VALUES = 2**42
# Prefixes evaluated in one call; part of the order of the search, hence never derived from memory or cores.
_BATCH = 32
# Models are ruled out and the others' bounds made anew at most so often.
_ROUNDS = 5
_N_STARTS = 4
# Costs this close to a limit are left to the exact sums.
_NEAR = 1e-9


@dataclass(frozen=True)
class Certificate:
    """How good an ensemble is among all within its budget.

    Attributes:
        members: the best ensemble known, ascending; the given one unless another has a lower loss.
        loss: its loss.
        lower_bound: no ensemble within the budget has a lower loss (by more than `TIED_WITHIN`).
        gap: how far the given ensemble's loss is above that, at least 0.
        optimal_loss: the lowest loss of all, where it is known.
        certified: whether it is known: the search came to its end.
        n_nodes: ensembles from which the search went on, each tried with all other models.
        stop_reason: why the search ended.
    """

    members: tuple[int, ...]
    loss: float
    lower_bound: float
    gap: float
    optimal_loss: float | None
    certified: bool
    n_nodes: int
    stop_reason: str


def certify(candidates: Candidates, budget: BudgetLike, members: Sequence[int], max_nodes: int) -> Certificate:
    """Search for the ensemble of lowest loss within a budget, and bound what there may be.

    Every set of usable models within all limits takes part, without replacement, averaged evenly. The search goes on
    from the ensemble whose supersets have the lowest bound; it starts with the given ensemble, improved by local
    search. Cross-entropy and Brier score are bounded by convex relaxations (`selection.relaxation`). For the error the
    bound is the share of samples that every model takes for the same wrong class, for the macro-F1 error 0: a small
    library's sets are then all tried. The search is deterministic and does not depend on the models' order
    beyond the ids; nodes, never time, limit it: `max_nodes`, and fewer where the library is so large that they would
    read more than 2**42 probabilities.

    Args:
        candidates: what was chosen from.
        budget: as for `smobf`.
        members: the ensemble chosen; within the budget.
        max_nodes: at least 1.

    Raises:
        SelectionError: `max_nodes` is below 1, or the members are no ensemble of usable models within the budget.
    """
    instance("candidates", candidates, Candidates, "read_candidates")
    if whole_number("max_nodes", max_nodes) < 1:
        raise SelectionError("max_nodes leaves no node to visit", found=max_nodes, expected="1 or more")
    limits = budget_limits(budget, candidates.cost_columns)
    check_members(candidates, limits, members)
    given = candidates.evaluator.loss(members)
    search = _Search(candidates, limits)
    search.offer(list(members), given)
    search.improve(list(members))
    search.prepare()
    affordable = max(1, _READ_VALUES // search.values_a_node)
    search.run(min(max_nodes, affordable))
    certified = search.lowest_open >= search.loss - TIED_WITHIN
    lower_bound = search.loss if certified else search.lowest_open
    if certified:
        stop = "every other ensemble within the budget is tried or ruled out"
    elif search.n_nodes >= max_nodes:
        stop = f"max_nodes ({max_nodes}) is reached"
    else:
        stop = f"the library is large: {affordable} nodes read 2**42 probabilities"
    return Certificate(
        tuple(sorted(search.members)),
        search.loss,
        lower_bound,
        max(0.0, given - lower_bound),
        search.loss if certified else None,
        certified,
        search.n_nodes,
        stop,
    )


@dataclass(frozen=True, eq=False)
class _Node:
    """A prefix that was tried with all models, and those of its children whose supersets may still be better.

    Attributes:
        places: the members, as places in the search's order, ascending.
        children: places to go on with, by ascending bound.
        bounds: of the ensembles that have the prefix, the child and at least one later model: float64 (children,).
    """

    places: tuple[int, ...]
    children: IntArray
    bounds: FloatArray


class _Search:
    """Best-first branch and bound: a node's ensembles only grow by models that come later in a fixed order."""

    def __init__(self, candidates: Candidates, limits: dict[str, float]) -> None:
        self._candidates, self._limits = candidates, limits
        by_id = candidates.usable[np.argsort(candidates.tie_ranks[candidates.usable])]
        fits = spending_of(candidates, limits, []).fits(by_id)
        self._models = by_id[fits].astype(np.int64)
        self._allowed = np.array([limit * (1 + _NEAR) for limit in limits.values()])
        source, needs_all = candidates.source, candidates.metric.needs_all_classes
        self.values_a_node = len(self._models) * source.n_samples * (source.n_classes if needs_all else 1)
        self._open: list[tuple[float, int, int, _Node]] = []
        self._n_made = 0
        self.members: list[int] = []
        self.loss = math.inf
        self.n_nodes = 0

    def improve(self, members: list[int]) -> None:
        """Keep what local search makes of an ensemble if it is the best one known."""
        start = SelectedEnsemble("start", None, members, math.nan, math.nan, math.nan, ())
        found = local_search(self._candidates, start, self._limits)
        self.offer(found.members, self._candidates.evaluator.loss(found.members))

    def prepare(self) -> None:
        """Try all single models, rule models out, and bound the ensembles of two and more of those that are left."""
        singles = self._candidates.evaluator.losses_with([])
        best = int(self._models[singles[self._models].argmin()])
        self.offer([best], float(singles[best]))
        # Without some models the bounds of the others are higher.
        for _ in range(_ROUNDS):
            bounds, preference = self._bounds()
            self._try_likely(bounds)
            worth = np.maximum(_bounds_with(bounds), bounds.floor) < self.loss - TIED_WITHIN
            if worth.all():
                break
            self._models = self._models[worth]
        else:
            bounds, preference = self._bounds()
        # Likely members first: the ensembles of the later ones are ruled out early.
        order = np.lexsort((np.arange(len(self._models)), preference))
        self._models, self._costs = self._models[order], np.ascontiguousarray(self._cost_rows()[:, order])
        self._floor = bounds.floor
        self._constants, self._scores = bounds.constants, np.ascontiguousarray(bounds.scores[:, order])
        self._by_score = np.argsort(self._scores, axis=1, kind="stable")
        self._by_cost = np.argsort(self._costs, axis=1, kind="stable")

    @property
    def lowest_open(self) -> float:
        """The lowest bound of what is not tried yet; infinity if nothing is left."""
        return self._open[0][0] if self._open else math.inf

    def offer(self, members: list[int], loss: float) -> None:
        """Keep an ensemble that is better than the best one known."""
        if loss < self.loss - TIED_WITHIN:
            self.members, self.loss = members, loss

    def run(self, max_nodes: int) -> None:
        """Go on until nothing is left that could be better, or the nodes are used up."""
        batch: list[tuple[int, ...]] = [()]
        while batch:
            self._expand(batch)
            batch = []
            while len(batch) < min(_BATCH, max_nodes - self.n_nodes) and self.lowest_open < self.loss - TIED_WITHIN:
                _, _, place, node = heapq.heappop(self._open)
                batch.append((*node.places, int(node.children[place])))
                self._push(node, place + 1)

    def _expand(self, batch: list[tuple[int, ...]]) -> None:
        """Try prefixes with every model, and keep those of the longer ones that may have better supersets."""
        from ensembleflow.selection.rivals.certificate_kernels import superset_bounds

        self.n_nodes += len(batch)
        evaluator = self._candidates.evaluator
        prefixes = [self._models[list(places)].tolist() for places in batch]
        evaluator.evaluate(prefixes)
        for places, prefix in zip(batch, prefixes, strict=True):
            later = np.arange(places[-1] + 1 if places else 0, len(self._models))
            spending = spending_of(self._candidates, self._limits, prefix)
            later = later[spending.fits(self._models[later])]
            if not len(later):
                continue
            losses = evaluator.losses_with(prefix)[self._models[later]]
            best = int(losses.argmin())
            if losses[best] < self.loss - TIED_WITHIN:
                found = [*prefix, int(self._models[later[best]])]
                self.offer(found, evaluator.loss(found))
            bounds = superset_bounds(
                np.array(places, dtype=np.int64),
                later,
                self._constants,
                self._scores,
                self._by_score,
                self._costs,
                self._by_cost,
                self._allowed,
            )
            bounds = np.maximum(bounds, self._floor)
            worth = np.flatnonzero(bounds < self.loss - TIED_WITHIN)
            worth = worth[np.argsort(bounds[worth], kind="stable")]
            self._push(_Node(places, later[worth], bounds[worth]), 0)

    def _push(self, node: _Node, place: int) -> None:
        if place < len(node.children):
            self._n_made += 1
            heapq.heappush(self._open, (float(node.bounds[place]), self._n_made, place, node))

    def _try_likely(self, bounds: Bounds) -> None:
        """Go on by local search from the best few of the ensembles that the bounds suggest, one a size."""
        found: list[list[int]] = []
        for scores in bounds.scores:
            spending, members = spending_of(self._candidates, self._limits, []), []
            for model in self._models[np.argsort(scores, kind="stable")]:
                if spending.fits(model[None])[0]:
                    spending.add(model)
                    members.append(int(model))
                if len(members) == len(found) + 2:
                    break
            found.append(members)
        for members in sorted(found, key=self._candidates.evaluator.loss)[:_N_STARTS]:
            self.improve(members)

    def _cost_rows(self) -> FloatArray:
        columns = [self._candidates.cost_columns[column][self._models] for column in self._limits]
        return np.array(columns).reshape(len(columns), len(self._models))

    def _bounds(self) -> tuple[Bounds, FloatArray]:
        """Bounds for each size from two models on, and by what number the likely members come first."""
        models, costs, source = self._models, self._cost_rows(), self._candidates.source
        sizes = range(2, _most_members(costs, self._allowed) + 1)
        loss = self._candidates.metric.name
        if loss in ("brier", "cross_entropy") and len(sizes):
            relaxation: Relaxation = (
                BrierRelaxation(source, models) if loss == "brier" else CrossEntropyRelaxation(source, models)
            )
            bounds = bounds_by_size(relaxation, sizes, costs, np.array(list(self._limits.values())))
            return bounds, bounds.scores[0]
        floor = _always_wrong(source, models) if loss == "error" else 0.0
        bounds = Bounds(floor, np.full(len(sizes), floor), np.zeros((len(sizes), len(models))))
        return bounds, self._candidates.evaluator.losses_with([])[models]


def _bounds_with(bounds: Bounds) -> FloatArray:
    """Of each model a bound on all ensembles that it is in: float64 (models,); infinity if it is in none."""
    lowest = np.full(bounds.scores.shape[1], np.inf)
    for size, (constant, scores) in enumerate(zip(bounds.constants, bounds.scores, strict=True), start=2):
        ascending = np.sort(scores)
        others = constant + ascending[: size - 1].sum()
        lowest = np.minimum(lowest, others + np.maximum(scores, ascending[size - 1]))
    return lowest


def _most_members(costs: FloatArray, allowed: FloatArray) -> int:
    """The most models that fit together."""
    most = costs.shape[1]
    for row, limit in zip(costs, allowed, strict=True):
        most = min(most, int((np.cumsum(np.sort(row)) <= limit).sum()))
    return most


def _always_wrong(source: Source, models: IntArray) -> float:
    """The share of samples that every model takes for the same wrong class: then so does every average."""
    n_wrong = 0
    for chunk in sample_chunks(source.n_samples):
        values, labels = source.read(chunk.start, min(chunk.stop, source.n_samples))
        values = values[models].astype(np.float64)
        truth = values[:, np.arange(len(labels)), labels]
        # More than rounding apart, so that no order of summation turns it.
        n_wrong += int(((values - truth[..., None]).min(axis=0, initial=np.inf) > 1e-6).any(axis=1).sum())
    return n_wrong / source.n_samples
