"""SMOBF beside the methods that others use, and the ways to combine members: `comparison.csv` and `fronts.csv`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ensembleflow.config import PRIMARY_COST, SelectionConfig
from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.io import read_json, snakemake_command, write_csv
from ensembleflow.library import Predictions
from ensembleflow.models.metrics import ALL_METRICS
from ensembleflow.selection.budget import budget_limits
from ensembleflow.selection.candidates import Candidates, open_candidates
from ensembleflow.selection.combiners import COMBINERS
from ensembleflow.selection.ensemble_metrics import Ensemble, ensemble_metrics
from ensembleflow.selection.greedy import SelectedEnsemble
from ensembleflow.selection.pareto import pareto_front
from ensembleflow.selection.rivals.certificate import Certificate, certify
from ensembleflow.selection.rivals.methods import (
    best_single,
    greedy_with_replacement,
    lowest_within,
    multiplicities,
    top_k,
    weight_sweep,
)
from ensembleflow.selection.smobf import forward_greedy_path
from ensembleflow.selection.stage import SPLITS
from ensembleflow.selection.sums.evaluation import MakeWorkers, one_thread

__all__ = ["compare_methods"]

Weights = dict[int, int]

_METRIC_COLUMNS = [f"{split}_{metric}" for split in SPLITS for metric in ALL_METRICS]
_ENSEMBLE_COLUMNS = ["method", "combiner", "weight", "n_members", "members", "cost_seconds", *_METRIC_COLUMNS]
_COMPARISON_COLUMNS = ["budget", "budget_seconds", *_ENSEMBLE_COLUMNS, "optimum_loss", "loss_gap", "certified"]
_JSON_KEYS = ["study", "budget", "loss", "weight", "members", "valid", "candidates", "ensembles", "prefixes"]
# Their members' multiplicities are the weights.
_WEIGHTING_METHODS = ("greedy_with_replacement", "weight_sweep")
_SAME_LOSS_WITHIN = 1e-6


def compare_methods(
    predictions_path: str | Path,
    costs_path: str | Path,
    budget_json_paths: Sequence[str | Path],
    config: SelectionConfig,
    output_csv: str | Path,
    fronts_csv: str | Path,
    make_workers: MakeWorkers = one_thread,
    n_threads: int = 1,
) -> None:
    """Write `selection/comparison.csv` and `selection/fronts.csv`.

    The first has one row per budget, method and combiner. SMOBF's ensemble is the one that the stage chose; the others
    are those of `ensembleflow.selection.rivals.methods` for the same budget, candidates and loss. Each is combined by
    `average`, by `weighted_average` (the method's own weights where it has any, else those of `multiplicities`) and by
    `majority_vote`. `members` are in the order chosen, `id*3` where a member counts three times. A method that finds
    nothing within a budget has no row there.

    SMOBF's average also has what `certify` finds: `optimum_loss`, the lowest validation loss of any ensemble
    within the budget, if it is known (`certified`), and `loss_gap`, by how much SMOBF's is above it at most. The method
    `exact` is the best ensemble that this search knows.

    The second has, for each method, the ensembles of all budgets and steps that no other of that method beats in both
    cost and validation loss.

    Of a cache without every class's probabilities only the cross-entropies are known, and there is no majority vote.

    Args:
        predictions_path: the library's `predictions.h5`.
        costs_path: the library's `costs.csv`.
        budget_json_paths: `budget-{budget}.json` of every budget.
        config: the loss, and the nodes of the certificate (0 leaves it out); its list of budgets is not used.
        output_csv: `comparison.csv`.
        fronts_csv: `fronts.csv`.
        make_workers: who sums over the samples, see `selection_workers`.
        n_threads: threads of this process for the ensembles' metrics.

    Raises:
        ArtefactError: a file is missing or broken, or they are not about the same models.
        SelectionError: no budget is given, or no model is usable.
    """
    if not budget_json_paths:
        raise SelectionError("no budget is given", expected="at least one budget-*.json")
    documents = [read_json(path, _JSON_KEYS) for path in budget_json_paths]
    budgets = [document["budget"] for document in documents]
    with open_candidates(predictions_path, costs_path, budgets, config.loss, make_workers) as (predictions, candidates):
        for document, path in zip(documents, budget_json_paths, strict=True):
            _check_same_library(document, candidates, predictions, path, n_threads)
        found = [_MethodsOfBudget(candidates, predictions, each, config.branch_and_bound_nodes) for each in documents]
        found.sort(key=lambda these: (these.budget_seconds or math.inf, these.budget))
        sweep = weight_sweep(candidates)
        picks = [these.picks(sweep) for these in found]
        fronts = _fronts(found, sweep)
        table = _Table(candidates, predictions, [each for these in picks for each in these], fronts, n_threads)
    comparison = [row for these, own in zip(found, picks, strict=True) for row in these.rows(table, own)]
    write_csv(output_csv, pd.DataFrame(comparison, columns=_COMPARISON_COLUMNS))
    write_csv(fronts_csv, pd.DataFrame([table.own_row(selected) for selected in fronts], columns=_ENSEMBLE_COLUMNS))


class _Table:
    """Rows of ensembles that are all known beforehand.

    Args:
        candidates: what they were chosen from.
        predictions: the cache they come from.
        picks: the ensembles that get one row per combiner.
        fronts: those that get the row of their method's own combiner, whose loss they have.
        n_threads: for the metrics.
    """

    def __init__(
        self,
        candidates: Candidates,
        predictions: Predictions,
        picks: Sequence[SelectedEnsemble],
        fronts: Sequence[SelectedEnsemble],
        n_threads: int,
    ) -> None:
        self._candidates, self._models = candidates, predictions.models
        self._combiners = [name for name in COMBINERS if predictions.has_every_class or name != "majority_vote"]
        self._fitted: dict[tuple[int, ...], Weights] = {}
        combined = [(selected, name) for selected in picks for name in self._combiners]
        combined += [(selected, _own_combiner(selected)) for selected in fronts]
        ensembles = {_ensemble(name, self._weights(selected, name)) for selected, name in combined}
        self._metrics = {
            split: ensemble_metrics(predictions, split, ensembles, ALL_METRICS, n_threads) for split in SPLITS
        }

    def rows(self, selected: SelectedEnsemble) -> list[dict[str, Any]]:
        """One row per combiner."""
        return [self._row(selected, name) for name in self._combiners]

    def own_row(self, selected: SelectedEnsemble) -> dict[str, Any]:
        """The row of the method's own combiner."""
        return self._row(selected, _own_combiner(selected))

    def _row(self, selected: SelectedEnsemble, combiner: str) -> dict[str, Any]:
        weights = self._weights(selected, combiner)
        ensemble = _ensemble(combiner, weights)
        return {
            "method": selected.method,
            "combiner": combiner,
            "weight": selected.weight,
            "n_members": len(weights),
            "members": " ".join(
                self._models[member] + (f"*{weight}" if weight > 1 else "") for member, weight in weights.items()
            ),
            "cost_seconds": math.fsum(self._candidates.costs[list(weights)]),
            **{f"{split}_{name}": value for split in SPLITS for name, value in self._metrics[split][ensemble].items()},
        }

    def _weights(self, selected: SelectedEnsemble, combiner: str) -> Weights:
        members = tuple(dict.fromkeys(selected.members))
        if combiner != "weighted_average":
            return dict.fromkeys(members, 1)
        if selected.method in _WEIGHTING_METHODS:
            return _multiplicities_of(selected)
        if members not in self._fitted:
            self._fitted[members] = multiplicities(self._candidates, members)
        return self._fitted[members]


def _own_combiner(selected: SelectedEnsemble) -> str:
    return "weighted_average" if selected.method in _WEIGHTING_METHODS else "average"


def _ensemble(combiner: str, weights: Weights) -> Ensemble:
    return Ensemble(tuple(weights.items()), COMBINERS[combiner])


class _MethodsOfBudget:
    """What every method finds within one budget.

    Args:
        candidates: what the methods choose from.
        predictions: the cache they come from.
        document: the budget's JSON, which has SMOBF's ensemble and its steps.
        branch_and_bound_nodes: of the search for the optimum; 0 leaves it out.
    """

    def __init__(
        self,
        candidates: Candidates,
        predictions: Predictions,
        document: Mapping[str, Any],
        branch_and_bound_nodes: int,
    ) -> None:
        self.budget = str(document["budget"])
        self.budget_seconds = budget_limits(self.budget, candidates.cost_columns).get(PRIMARY_COST)
        self._candidates = candidates
        steps = _smobf_steps(document, candidates, predictions)
        single, ranked = best_single(candidates, self.budget), top_k(candidates, self.budget)
        forward = forward_greedy_path(candidates, self.budget)
        replaced = greedy_with_replacement(candidates, self.budget)
        self._picks: list[SelectedEnsemble] = [single, ranked, forward, replaced]
        self._smobf = steps[-1]
        self._certificate = (
            certify(candidates, self.budget, self._smobf.members, branch_and_bound_nodes)
            if branch_and_bound_nodes
            else None
        )
        self._exact = [] if self._certificate is None else [_best_known(candidates, self._certificate)]
        self.paths: dict[str, Sequence[SelectedEnsemble]] = {
            "best_single": [single],
            "top_k": ranked.path,
            "forward_greedy": forward.path,
            "greedy_with_replacement": replaced.path,
            "smobf": steps,
            "exact": self._exact,
        }

    def picks(self, sweep: Sequence[SelectedEnsemble]) -> list[SelectedEnsemble]:
        """The ensemble of each method."""
        swept = lowest_within(self._candidates, sweep, self.budget)
        return [*self._picks, *([] if swept is None else [swept]), self._smobf, *self._exact]

    def rows(self, table: _Table, picks: Sequence[SelectedEnsemble]) -> list[dict[str, Any]]:
        """One row per method and combiner."""
        named = {"budget": self.budget, "budget_seconds": self.budget_seconds}
        rows = [{**named, **row} for selected in picks for row in table.rows(selected)]
        if self._certificate is not None:
            found = self._certificate
            (chosen,) = (row for row in rows if (row["method"], row["combiner"]) == ("smobf", "average"))
            chosen |= {"optimum_loss": found.optimal_loss, "loss_gap": found.gap, "certified": found.certified}
        return rows


def _best_known(candidates: Candidates, certificate: Certificate) -> SelectedEnsemble:
    members = sorted(certificate.members, key=lambda member: int(candidates.tie_ranks[member]))
    cost = math.fsum(candidates.costs[members])
    return SelectedEnsemble("exact", None, members, certificate.loss, cost, certificate.loss, ())


def _smobf_steps(
    document: Mapping[str, Any], candidates: Candidates, predictions: Predictions
) -> list[SelectedEnsemble]:
    """SMOBF's ensembles after every step of every weight, the chosen one last."""
    index = {model: place for place, model in enumerate(predictions.models)}
    steps = []
    for row in [*document["prefixes"], *document["ensembles"]]:
        if row["method"] == "smobf":
            members, loss = [index[model] for model in row["members"].split()], row[f"valid_{candidates.metric.name}"]
            steps.append(SelectedEnsemble("smobf", row["weight"], members, loss, row["cost_seconds"], loss, ()))
    chosen = [index[model] for model in document["members"]]
    loss, cost = candidates.evaluator.loss(chosen), math.fsum(candidates.costs[chosen])
    return [*steps, SelectedEnsemble("smobf", document["weight"], chosen, loss, cost, loss, ())]


def _check_same_library(
    document: Mapping[str, Any],
    candidates: Candidates,
    predictions: Predictions,
    json_path: str | Path,
    n_threads: int,
) -> None:
    known = dict(zip(predictions.models, candidates.costs.tolist(), strict=True))
    usable = {predictions.models[place] for place in candidates.usable}
    found = {row["model"]: row["cost_seconds"] for row in document["candidates"]}
    loss = candidates.metric.name
    if document["study"] != predictions.study:
        fault = f"study {document['study']}"
    elif document["loss"] != loss:
        fault = f"an ensemble selected by {document['loss']}"
    elif found != known or not set(document["members"]) <= usable:
        fault = "other models or costs"
    else:
        # As the document's was made: another order of the members may turn a sample whose classes rounding parts.
        ensemble = Ensemble.average(predictions.models.index(model) for model in document["members"])
        metrics = ensemble_metrics(predictions, "valid", [ensemble], {loss: candidates.metric}, n_threads)
        if abs(document["valid"][loss] - metrics[ensemble][loss]) <= _SAME_LOSS_WITHIN:
            return
        fault = "other predictions of the same models"
    raise ArtefactError(
        "a budget's ensemble was not selected from these predictions",
        where=json_path,
        found=fault,
        expected=f"study {predictions.study}, selected by {loss}, from {predictions.path}",
        hint=f"make both again: {snakemake_command('--forcerun', 'select_ensemble', near=json_path)}",
    )


def _fronts(found: Sequence[_MethodsOfBudget], sweep: Sequence[SelectedEnsemble]) -> list[SelectedEnsemble]:
    """The front of each method; of ensembles that are equal in members and weights the first stands."""
    paths = {method: [selected for these in found for selected in these.paths[method]] for method in found[0].paths}
    fronts = []
    for path in [*paths.values(), sweep]:
        distinct: dict[tuple[tuple[int, int], ...], SelectedEnsemble] = {}
        for selected in path:
            distinct.setdefault(tuple(sorted(_multiplicities_of(selected).items())), selected)
        ensembles = list(distinct.values())
        front = pareto_front([selected.cost for selected in ensembles], [selected.loss for selected in ensembles])
        fronts += [ensembles[place] for place in front]
    return fronts


def _multiplicities_of(selected: SelectedEnsemble) -> Weights:
    """How often an ensemble's members count, in the lowest terms."""
    counts = Counter(selected.members)
    divisor = math.gcd(*counts.values())
    return {member: count // divisor for member, count in counts.items()}
