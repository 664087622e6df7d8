"""SMOBF beside the methods that others use, and the ways to combine members: `comparison.csv` and `fronts.csv`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ensembleflow.config import PRIMARY_COST, SelectionConfig, budget_parts
from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.io import read_json, snakemake_command, write_csv
from ensembleflow.library import Predictions, open_predictions
from ensembleflow.models.metrics import ALL_METRICS
from ensembleflow.selection.budget import budget_limits, named_budget
from ensembleflow.selection.candidates import Candidates, read_candidates
from ensembleflow.selection.combiners import COMBINERS
from ensembleflow.selection.costs import read_costs
from ensembleflow.selection.ensemble_metrics import Ensemble, ensemble_metrics
from ensembleflow.selection.greedy import Run
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
from ensembleflow.selection.smobf import forward_greedy
from ensembleflow.selection.stage import SPLITS
from ensembleflow.selection.sums.cluster import MakeWorkers

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
    make_workers: MakeWorkers | None = None,
    n_threads: int = 1,
) -> None:
    """Write `selection/comparison.csv` and `selection/fronts.csv`.

    The first has a row a budget, method and combiner. SMOBF's ensemble is the one that the stage chose; the others are
    those of `ensembleflow.selection.rivals.methods` for the same budget, candidates and loss. Each is combined by
    `average`, by `weighted_average` (the method's own weights where it has any, else those of `multiplicities`) and by
    `majority_vote`. `members` are in the order chosen, `id*3` where a member counts three times. A method that finds
    nothing within a budget has no row there.

    SMOBF's average also has what `certify` tells of it: `optimum_loss`, the lowest validation loss of any ensemble
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
        make_workers: who sums over the samples, see `selection_workers`; one thread if not given.
        n_threads: threads of this process for the ensembles' metrics.

    Raises:
        ArtefactError: a file is missing or broken, or they are not about the same models.
        SelectionError: no budget is given, or no model is usable.
    """
    if not budget_json_paths:
        raise SelectionError("no budget is given", expected="at least one budget-*.json")
    documents = [read_json(path, _JSON_KEYS) for path in budget_json_paths]
    needed = {column for document in documents for column, _ in budget_parts(named_budget(document["budget"]))}
    with open_predictions(predictions_path) as predictions:
        costs = read_costs(costs_path, predictions.models, predictions_path, needed)
        candidates = read_candidates(predictions, None, costs, config.loss, *([make_workers] if make_workers else []))
        for document, path in zip(documents, budget_json_paths, strict=True):
            _check_same_library(document, candidates, predictions, path, n_threads)
        found = [_MethodsOfBudget(candidates, predictions, each, config.branch_and_bound_nodes) for each in documents]
        found.sort(key=lambda these: (these.budget_seconds or math.inf, these.budget))
        sweep = weight_sweep(candidates)
        picks = [these.picks(sweep) for these in found]
        fronts = _fronts(found, sweep)
        table = _Table(candidates, predictions, [run for runs in picks for run in runs], fronts, n_threads)
    comparison = [row for these, runs in zip(found, picks, strict=True) for row in these.rows(table, runs)]
    write_csv(output_csv, pd.DataFrame(comparison, columns=_COMPARISON_COLUMNS))
    write_csv(fronts_csv, pd.DataFrame([table.own_row(run) for run in fronts], columns=_ENSEMBLE_COLUMNS))


class _Table:
    """Rows of ensembles that are all known beforehand.

    Args:
        candidates: what they were chosen from.
        predictions: the cache they come from.
        picks: the runs that get a row a combiner.
        fronts: those that get the row of their method's own combiner, whose loss the run has.
        n_threads: for the metrics.
    """

    def __init__(
        self,
        candidates: Candidates,
        predictions: Predictions,
        picks: Sequence[Run],
        fronts: Sequence[Run],
        n_threads: int,
    ) -> None:
        self._candidates, self._models = candidates, predictions.models
        self._combiners = [name for name in COMBINERS if predictions.has_every_class or name != "majority_vote"]
        self._fitted: dict[tuple[int, ...], Weights] = {}
        combined = [(run, name) for run in picks for name in self._combiners]
        combined += [(run, _own_combiner(run)) for run in fronts]
        ensembles = {_ensemble(name, self._weights(run, name)) for run, name in combined}
        self._metrics = {
            split: ensemble_metrics(predictions, split, ensembles, ALL_METRICS, n_threads) for split in SPLITS
        }

    def rows(self, run: Run) -> list[dict[str, Any]]:
        """One row a combiner."""
        return [self._row(run, name) for name in self._combiners]

    def own_row(self, run: Run) -> dict[str, Any]:
        """The row of the method's own combiner, whose loss the run has."""
        return self._row(run, _own_combiner(run))

    def _row(self, run: Run, combiner: str) -> dict[str, Any]:
        weights = self._weights(run, combiner)
        ensemble = _ensemble(combiner, weights)
        return {
            "method": run.method,
            "combiner": combiner,
            "weight": run.weight,
            "n_members": len(weights),
            "members": " ".join(
                self._models[member] + (f"*{weight}" if weight > 1 else "") for member, weight in weights.items()
            ),
            "cost_seconds": math.fsum(self._candidates.costs[list(weights)]),
            **{f"{split}_{name}": value for split in SPLITS for name, value in self._metrics[split][ensemble].items()},
        }

    def _weights(self, run: Run, combiner: str) -> Weights:
        members = tuple(dict.fromkeys(run.members))
        if combiner != "weighted_average":
            return dict.fromkeys(members, 1)
        if run.method in _WEIGHTING_METHODS:
            return _multiplicities_of(run)
        if members not in self._fitted:
            self._fitted[members] = multiplicities(self._candidates, members)
        return self._fitted[members]


def _own_combiner(run: Run) -> str:
    return "weighted_average" if run.method in _WEIGHTING_METHODS else "average"


def _ensemble(combiner: str, weights: Weights) -> Ensemble:
    return Ensemble(tuple(weights.items()), COMBINERS[combiner])


class _MethodsOfBudget:
    """What every method finds within one budget.

    Args:
        candidates: what the methods choose from.
        predictions: the cache they come from.
        document: the budget's JSON, which has SMOBF's ensemble and its steps.
        certificate_nodes: of the search for the optimum; 0 leaves it out.
    """

    def __init__(
        self, candidates: Candidates, predictions: Predictions, document: Mapping[str, Any], certificate_nodes: int
    ) -> None:
        self.budget = str(document["budget"])
        self.budget_seconds = budget_limits(self.budget, candidates.cost_columns).get(PRIMARY_COST)
        self._candidates = candidates
        steps = _smobf_runs(document, candidates, predictions)
        single, ranked = best_single(candidates, self.budget), top_k(candidates, self.budget)
        forward = forward_greedy(candidates, budget=self.budget, loss=candidates.metric.name)
        replaced = greedy_with_replacement(candidates, self.budget)
        self._picks: list[Run] = [single, ranked, forward, replaced]
        self._smobf = steps[-1]
        self._certificate = (
            certify(candidates, self.budget, self._smobf.members, certificate_nodes) if certificate_nodes else None
        )
        self._exact = [] if self._certificate is None else [_best_known(candidates, self._certificate)]
        self.paths: dict[str, Sequence[Run]] = {
            "best_single": [single],
            "top_k": ranked.path,
            "forward_greedy": forward.path,
            "greedy_with_replacement": replaced.path,
            "smobf": steps,
            "exact": self._exact,
        }

    def picks(self, sweep: Sequence[Run]) -> list[Run]:
        """The ensemble of each method."""
        swept = lowest_within(self._candidates, sweep, self.budget)
        return [*self._picks, *([] if swept is None else [swept]), self._smobf, *self._exact]

    def rows(self, table: _Table, picks: Sequence[Run]) -> list[dict[str, Any]]:
        """One row a method and combiner."""
        named = {"budget": self.budget, "budget_seconds": self.budget_seconds}
        rows = [{**named, **row} for run in picks for row in table.rows(run)]
        if self._certificate is not None:
            found = self._certificate
            (chosen,) = (row for row in rows if (row["method"], row["combiner"]) == ("smobf", "average"))
            chosen |= {"optimum_loss": found.optimal_loss, "loss_gap": found.gap, "certified": found.certified}
        return rows


def _best_known(candidates: Candidates, certificate: Certificate) -> Run:
    members = sorted(certificate.members, key=lambda member: int(candidates.tie_ranks[member]))
    cost = math.fsum(candidates.costs[members])
    return Run("exact", None, members, certificate.loss, cost, certificate.loss, ())


def _smobf_runs(document: Mapping[str, Any], candidates: Candidates, predictions: Predictions) -> list[Run]:
    """SMOBF's ensembles after every step of every weight, the chosen one last."""
    index = {model: place for place, model in enumerate(predictions.models)}
    runs = []
    for row in [*document["prefixes"], *document["ensembles"]]:
        if row["method"] == "smobf":
            members, loss = [index[model] for model in row["members"].split()], row[f"valid_{candidates.metric.name}"]
            runs.append(Run("smobf", row["weight"], members, loss, row["cost_seconds"], loss, ()))
    chosen = [index[model] for model in document["members"]]
    loss, cost = candidates.evaluator.loss(chosen), math.fsum(candidates.costs[chosen])
    return [*runs, Run("smobf", document["weight"], chosen, loss, cost, loss, ())]


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


def _fronts(found: Sequence[_MethodsOfBudget], sweep: Sequence[Run]) -> list[Run]:
    """The front of each method; of ensembles that are equal in members and weights the first stands."""
    paths = {method: [run for these in found for run in these.paths[method]] for method in found[0].paths}
    fronts = []
    for runs in [*paths.values(), sweep]:
        distinct: dict[tuple[tuple[int, int], ...], Run] = {}
        for run in runs:
            distinct.setdefault(tuple(sorted(_multiplicities_of(run).items())), run)
        ensembles = list(distinct.values())
        front = pareto_front([run.cost for run in ensembles], [run.loss for run in ensembles])
        fronts += [ensembles[place] for place in front]
    return fronts


def _multiplicities_of(run: Run) -> Weights:
    """How often a run's members count, in the lowest terms."""
    counts = Counter(run.members)
    divisor = math.gcd(*counts.values())
    return {member: count // divisor for member, count in counts.items()}
