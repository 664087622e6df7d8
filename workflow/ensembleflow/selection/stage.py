"""The selection of one budget: `budget-{budget}.json`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ensembleflow.config import PRIMARY_COST, SelectionConfig, budget_parts
from ensembleflow.io import provenance, write_json
from ensembleflow.library import Predictions, open_predictions
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection.budget import named_budget
from ensembleflow.selection.candidates import Candidates, read_candidates
from ensembleflow.selection.costs import read_costs
from ensembleflow.selection.ensemble_metrics import Ensemble, ensemble_metrics
from ensembleflow.selection.greedy import Run
from ensembleflow.selection.local_search import LocalSearchResult, local_search
from ensembleflow.selection.smobf import SmobfResult, forward_greedy, smobf
from ensembleflow.selection.sums.cluster import MakeWorkers

__all__ = ["SPLITS", "select_ensemble", "select_for_budget"]

SPLITS = ("valid", "test")

logger = logging.getLogger("ensembleflow.selection")


def select_ensemble(
    predictions_path: str | Path,
    costs_path: str | Path,
    config: SelectionConfig,
    budget: str,
    output_path: str | Path,
    make_workers: MakeWorkers | None = None,
    n_threads: int = 1,
) -> None:
    """Write `selection/budget-{budget}.json`: the ensemble chosen for one budget, its rivals and every step.

    Args:
        predictions_path: the library's `predictions.h5`.
        costs_path: the library's `costs.csv`.
        config: weights, loss and whether to search locally; its list of budgets is not used.
        budget: `4x`, `320`, or of other columns of `costs.csv` (`4x,parameter_bytes=2x`).
        output_path: the JSON to write.
        make_workers: who sums over the samples, see `selection_workers`; one thread if not given.
        n_threads: threads of this process for the ensembles' metrics.

    Raises:
        ArtefactError: a file is missing or broken, or the two are not about the same models.
        SelectionError: no model fits the budget or none is usable.
    """
    name = named_budget(budget)
    with open_predictions(predictions_path) as predictions:
        needed = [column for column, _ in budget_parts(name)]
        costs = read_costs(costs_path, predictions.models, predictions_path, needed)
        chosen = select_for_budget(predictions, costs, name, config, make_workers, n_threads)
    if chosen["dropped"]:
        told = "; ".join(f"{model['model']}: {model['reason']}" for model in chosen["dropped"])
        logger.warning(
            "budget %s: %d of %d models left out: %s", name, len(chosen["dropped"]), len(costs[PRIMARY_COST]), told
        )
    write_json(output_path, {**chosen, "provenance": provenance()})


def select_for_budget(
    predictions: Predictions,
    costs: Mapping[str, npt.ArrayLike],
    budget: str,
    config: SelectionConfig,
    make_workers: MakeWorkers | None = None,
    n_threads: int = 1,
) -> dict[str, Any]:
    """Everything in `budget-{budget}.json` but its provenance.

    Besides SMOBF's ensemble of each weight it holds the best single model and forward greedy's ensemble of each size,
    all within the budget, and every ensemble on SMOBF's way, with the metrics of both splits.

    Args:
        predictions: an opened `predictions.h5`.
        costs: by column, (models,) in the file's order; `cost_seconds` is among them.
        budget: as for `select_ensemble`.
        config: likewise.
        make_workers: likewise.
        n_threads: likewise.

    Raises:
        SelectionError: no model fits the budget, none is usable, or an argument is wrong.
    """
    name, loss = named_budget(budget), config.loss
    candidates = read_candidates(predictions, None, costs, loss, *([make_workers] if make_workers else []))
    picked = smobf(candidates, budget=name, weights=config.cost_weights, loss=loss)
    forward = forward_greedy(candidates, budget=name, loss=loss)
    anywhere = replace(forward_greedy(candidates, max_members=1, loss=loss).path[0], method="best_single")
    chosen: Run = local_search(candidates, picked, name) if config.local_search else picked

    # Without a weight the pick is the best single model: SMOBF's row of its own, beside those of the weights.
    smobf_runs = [*picked.runs, *([picked] if picked.weight is None else [])]
    place = [run.weight for run in smobf_runs].index(picked.weight)
    prefixes = list(_prefixes(picked))
    every_run = [picked.best_single, anywhere, *smobf_runs, chosen, *forward.path, *prefixes]
    rows = _Rows(predictions, name, picked.limits.get(PRIMARY_COST), every_run, n_threads)
    ensembles = [rows.row(picked.best_single), *(rows.row(run) for run in smobf_runs)]
    ensembles += [rows.row(chosen)] if config.local_search else []
    ensembles[-1 if config.local_search else 1 + place]["chosen"] = True
    ensembles += [rows.row(run) for run in forward.path]
    traced = [*smobf_runs, *([chosen] if config.local_search else []), forward]
    models = predictions.models
    return {
        "study": predictions.study,
        "budget": name,
        "budget_seconds": picked.limits.get(PRIMARY_COST),
        "limits": picked.limits,
        "loss": loss,
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
        "prefixes": [rows.row(run) for run in prefixes],
        "trace": [row for run in traced for row in _trace_rows(run, name, candidates)],
    }


def _prefixes(picked: SmobfResult) -> Iterator[Run]:
    """The ensembles on the way to those of each weight, the same set only once."""
    seen = {frozenset(run.members) for run in picked.runs}
    for run in picked.runs:
        for size, step in enumerate(run.trace[: len(run.members) - 1], start=1):
            members = run.members[:size]
            if frozenset(members) not in seen:
                seen.add(frozenset(members))
                yield Run(run.method, run.weight, members, step.loss, step.cost, step.score, ())


class _Rows:
    """Rows of `ensembles.csv`, of runs that are all known beforehand."""

    def __init__(
        self,
        predictions: Predictions,
        budget: str,
        budget_seconds: float | None,
        runs: Iterable[Run],
        n_threads: int,
    ) -> None:
        self._models, self._budget, self._budget_seconds = predictions.models, budget, budget_seconds
        ensembles = {Ensemble.average(run.members) for run in runs}
        self._metrics = {split: ensemble_metrics(predictions, split, ensembles, METRICS, n_threads) for split in SPLITS}

    def row(self, run: Run) -> dict[str, Any]:
        """A row that is not marked as chosen."""
        return {
            "method": run.method,
            "budget": self._budget,
            "budget_seconds": self._budget_seconds,
            "weight": run.weight,
            "n_members": len(run.members),
            "members": " ".join(self._models[member] for member in run.members),
            "cost_seconds": run.cost,
            **{f"{split}_{key}": value for split in SPLITS for key, value in self.metrics(split, run.members).items()},
            "chosen": False,
        }

    def metrics(self, split: str, members: Sequence[int]) -> dict[str, float | None]:
        """The metrics of an ensemble; None where one is no number or needs classes that are not cached."""
        values = self._metrics[split][Ensemble.average(members)]
        # JSON has no NaN.
        return {name: None if math.isnan(value) else value for name, value in values.items()}


def _trace_rows(run: Run, budget: str, candidates: Candidates) -> list[dict[str, Any]]:
    """Every step of a run, and why each model is not a member."""
    names = candidates.names
    if isinstance(run, LocalSearchResult):
        return [
            {
                "budget": budget,
                "method": run.method,
                "weight": run.weight,
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
            for place, move in enumerate(run.moves, start=1)
        ]
    return [
        {
            "budget": budget,
            "method": run.method,
            "weight": run.weight,
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
        for step in run.trace
    ]


def _runners_up(names: Sequence[str], models: Iterable[tuple[int, float]]) -> str:
    return " ".join(f"{names[model]}:{score:.9g}" for model, score in models)


def _ids(names: Sequence[str], models: Iterable[int]) -> str:
    return " ".join(sorted(names[model] for model in models))
