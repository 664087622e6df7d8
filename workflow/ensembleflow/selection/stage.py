"""The selection of one budget: `budget-{budget}.json`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ensembleflow.config import PRIMARY_COST, SelectionConfig
from ensembleflow.io import provenance, write_json
from ensembleflow.library import Predictions
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection.budget import named_budget
from ensembleflow.selection.candidates import Candidates, open_candidates
from ensembleflow.selection.ensemble_metrics import Ensemble, ensemble_metrics
from ensembleflow.selection.greedy import SelectedEnsemble, after_each_step
from ensembleflow.selection.local_search import LocalSearchResult, local_search
from ensembleflow.selection.smobf import WEIGHTS, SmobfResult, forward_greedy_path, smobf_budgets
from ensembleflow.selection.sums.evaluation import MakeWorkers, one_thread

__all__ = ["SPLITS", "select_ensemble", "select_for_budget"]

SPLITS = ("valid", "test")

logger = logging.getLogger("ensembleflow.selection")


def select_ensemble(
    predictions_path: str | Path,
    costs_path: str | Path,
    config: SelectionConfig,
    budget: str,
    output_path: str | Path,
    make_workers: MakeWorkers = one_thread,
    n_threads: int = 1,
) -> None:
    """Write `selection/budget-{budget}.json`: the ensemble chosen for one budget, its rivals and every step.

    Args:
        predictions_path: the library's `predictions.h5`.
        costs_path: the library's `costs.csv`.
        config: weights, loss and whether to search locally; its list of budgets is not used.
        budget: `4x`, `320`, or of other columns of `costs.csv` (`4x,parameter_bytes=2x`).
        output_path: the JSON to write.
        make_workers: who sums over the samples, see `selection_workers`.
        n_threads: threads of this process for the ensembles' metrics.

    Raises:
        ArtefactError: a file is missing or broken, or the two are not about the same models.
        SelectionError: no model fits the budget or none is usable.
    """
    name = named_budget(budget)
    with open_candidates(predictions_path, costs_path, [name], config.loss, make_workers) as (predictions, candidates):
        chosen = select_for_budget(predictions, candidates, name, config.cost_weights, config.local_search, n_threads)
    if chosen["dropped"]:
        reasons = "; ".join(f"{model['model']}: {model['reason']}" for model in chosen["dropped"])
        n_models = len(candidates.names)
        logger.warning("budget %s: %d of %d models left out: %s", name, len(chosen["dropped"]), n_models, reasons)
    write_json(output_path, {**chosen, "provenance": provenance()})


def select_for_budget(
    predictions: Predictions,
    candidates: Candidates,
    budget: str,
    weights: Sequence[float] = WEIGHTS,
    search_locally: bool = False,
    n_threads: int = 1,
) -> dict[str, Any]:
    """Everything in `budget-{budget}.json` but its provenance.

    Besides SMOBF's ensemble of each weight it holds the best single model and forward greedy's ensemble of each size,
    all within the budget, and every ensemble on SMOBF's way, with the metrics of both splits.

    Args:
        predictions: the opened `predictions.h5` that the candidates were read from.
        candidates: its models, see `open_candidates`.
        budget: as for `select_ensemble`.
        weights: as for `smobf`.
        search_locally: go on from SMOBF's ensemble by local search.
        n_threads: as for `select_ensemble`.

    Raises:
        SelectionError: no model fits the budget, or an argument is wrong.
    """
    name = named_budget(budget)
    (picked,) = smobf_budgets(candidates, [name], weights)
    forward = forward_greedy_path(candidates, name)
    anywhere = replace(forward_greedy_path(candidates, max_members=1).path[0], method="best_single")
    chosen: SelectedEnsemble = local_search(candidates, picked, name) if search_locally else picked

    # Without a weight the pick is the best single model: SMOBF's row of its own, beside those of the weights.
    by_smobf = [*picked.by_weight, *([picked] if picked.weight is None else [])]
    place = [each.weight for each in by_smobf].index(picked.weight)
    prefixes = list(_prefixes(picked))
    everything = [picked.best_single, anywhere, *by_smobf, chosen, *forward.path, *prefixes]
    rows = _Rows(predictions, name, picked.limits.get(PRIMARY_COST), everything, n_threads)
    ensembles = [rows.row(picked.best_single), *(rows.row(each) for each in by_smobf)]
    ensembles += [rows.row(chosen)] if search_locally else []
    ensembles[-1 if search_locally else 1 + place]["chosen"] = True
    ensembles += [rows.row(each) for each in forward.path]
    traced = [*by_smobf, *([chosen] if search_locally else []), forward]
    models = predictions.models
    return {
        "study": predictions.study,
        "budget": name,
        "budget_seconds": picked.limits.get(PRIMARY_COST),
        "limits": picked.limits,
        "loss": candidates.metric.name,
        "method": chosen.method,
        "weight": chosen.weight,
        "members": [models[member] for member in chosen.members],
        "cost_seconds": chosen.cost,
        "costs": {column: math.fsum(candidates.cost_columns[column][chosen.members]) for column in picked.limits},
        **{split: rows.metrics(split, chosen.members) for split in SPLITS},
        "candidates": [
            {"model": model, "cost_seconds": cost}
            for model, cost in sorted(zip(models, candidates.costs.tolist(), strict=True))
        ],
        "dropped": [{"model": models[index], "reason": reason} for index, reason in picked.dropped.items()],
        "best_single": {**rows.row(anywhere), "budget": None, "budget_seconds": None},
        "ensembles": ensembles,
        "prefixes": [rows.row(each) for each in prefixes],
        "trace": [row for each in traced for row in _trace_rows(each, name, candidates)],
    }


def _prefixes(picked: SmobfResult) -> Iterator[SelectedEnsemble]:
    """The ensembles on the way to those of each weight, the same set only once."""
    seen = {frozenset(each.members) for each in picked.by_weight}
    for whole in picked.by_weight:
        for prefix in after_each_step(whole, whole.weight)[:-1]:
            if frozenset(prefix.members) not in seen:
                seen.add(frozenset(prefix.members))
                yield prefix


class _Rows:
    """Rows of `ensembles.csv`, of ensembles that are all known beforehand."""

    def __init__(
        self,
        predictions: Predictions,
        budget: str,
        budget_seconds: float | None,
        selected: Iterable[SelectedEnsemble],
        n_threads: int,
    ) -> None:
        self._models, self._budget, self._budget_seconds = predictions.models, budget, budget_seconds
        ensembles = {Ensemble.average(each.members) for each in selected}
        self._metrics = {split: ensemble_metrics(predictions, split, ensembles, METRICS, n_threads) for split in SPLITS}

    def row(self, selected: SelectedEnsemble) -> dict[str, Any]:
        """A row that is not marked as chosen."""
        metrics = {split: self.metrics(split, selected.members) for split in SPLITS}
        return {
            "method": selected.method,
            "budget": self._budget,
            "budget_seconds": self._budget_seconds,
            "weight": selected.weight,
            "n_members": len(selected.members),
            "members": " ".join(self._models[member] for member in selected.members),
            "cost_seconds": selected.cost,
            **{f"{split}_{name}": value for split in SPLITS for name, value in metrics[split].items()},
            "chosen": False,
        }

    def metrics(self, split: str, members: Sequence[int]) -> dict[str, float | None]:
        """The metrics of an ensemble; None where one is no number or needs classes that are not cached."""
        values = self._metrics[split][Ensemble.average(members)]
        # JSON has no NaN.
        return {name: None if math.isnan(value) else value for name, value in values.items()}


def _trace_rows(selected: SelectedEnsemble, budget: str, candidates: Candidates) -> list[dict[str, Any]]:
    """Every step to an ensemble, and why each model is not a member."""
    names = candidates.names
    if isinstance(selected, LocalSearchResult):
        return [
            {
                "budget": budget,
                "method": selected.method,
                "weight": selected.weight,
                "step": place,
                "model": None if move.added is None else names[move.added],
                "removed": None if move.removed is None else names[move.removed],
                "loss": move.loss,
                "cost_seconds": move.cost,
                "score": move.loss,
                "runners_up": _runners_up(names, move.runners_up),
                "n_over_budget": move.n_over_budget,
                "over_budget": _ids(names, move.over_budget),
                "no_gain": _ids(names, move.no_gain),
                "dropped": _ids(names, candidates.dropped) if move.stop_reason else "",
                "stop_reason": move.stop_reason,
            }
            for place, move in enumerate(selected.moves, start=1)
        ]
    return [
        {
            "budget": budget,
            "method": selected.method,
            "weight": selected.weight,
            "step": step.step,
            "model": None if step.model is None else names[step.model],
            "loss": step.loss,
            "cost_seconds": step.cost,
            "score": step.score,
            "runners_up": _runners_up(names, step.runners_up),
            "n_over_budget": step.n_over_budget,
            "over_budget": _ids(names, step.over_budget),
            "no_gain": _ids(names, step.no_gain) if step.stop_reason else "",
            "dropped": _ids(names, candidates.dropped) if step.stop_reason else "",
            "stop_reason": step.stop_reason,
        }
        for step in selected.trace
    ]


def _runners_up(names: Sequence[str], models: Iterable[tuple[int, float]]) -> str:
    return " ".join(f"{names[model]}:{score:.9g}" for model, score in models)


def _ids(names: Sequence[str], models: Iterable[int]) -> str:
    return " ".join(sorted(names[model] for model in models))
