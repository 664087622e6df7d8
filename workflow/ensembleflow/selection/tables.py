"""The selection stage's artefacts: one JSON a budget, then the merged tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.config import SelectionConfig
from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.io import provenance, read_csv, read_json, write_csv, write_json
from ensembleflow.library import Predictions, open_predictions
from ensembleflow.models.metrics import METRICS, classification_metrics
from ensembleflow.selection.budget import named_budget
from ensembleflow.selection.candidates import read_candidates
from ensembleflow.selection.greedy import Run
from ensembleflow.selection.pareto import pareto_front
from ensembleflow.selection.smobf import forward_greedy, smobf

__all__ = ["collect_ensembles", "read_costs", "select_ensemble", "select_for_budget"]

_SPLITS = ("valid", "test")
_ENSEMBLE_COLUMNS = [
    *("method", "budget", "budget_seconds", "weight", "n_members", "members", "cost_seconds"),
    *(f"{split}_{metric}" for split in _SPLITS for metric in METRICS),
    "chosen",
]
_TRACE_COLUMNS = [
    *("budget", "method", "weight", "step", "model", "loss", "cost_seconds", "score"),
    *("runners_up", "n_over_budget", "stop_reason"),
]
_JSON_KEYS = ["study", "budget", "budget_seconds", "loss", "candidates", "best_single", "ensembles", "trace"]


def select_ensemble(
    predictions_path: str | Path,
    costs_path: str | Path,
    config: SelectionConfig,
    budget: str,
    output_path: str | Path,
) -> None:
    """Write `selection/budget-{budget}.json`: the ensemble chosen for one budget, its rivals and every step.

    Args:
        predictions_path: the library's `predictions.h5`.
        costs_path: the library's `costs.csv`.
        config: weights and loss; its list of budgets is not used.
        budget: `4x` or `320`.
        output_path: the JSON to write.

    Raises:
        ArtefactError: a file is missing or broken, or the two are not about the same models.
        SelectionError: no model fits the budget or none is usable.
    """
    with open_predictions(predictions_path) as predictions:
        costs_seconds = read_costs(costs_path, predictions.models, predictions_path)
        chosen = select_for_budget(predictions, costs_seconds, budget, config.weights, config.loss)
    write_json(output_path, {**chosen, "provenance": provenance()})


def select_for_budget(
    predictions: Predictions, costs_seconds: npt.ArrayLike, budget: str, weights: Sequence[float], loss: str
) -> dict[str, Any]:
    """Everything in `budget-{budget}.json` but its provenance.

    Besides SMOBF's ensemble of each weight it holds the best single model and forward greedy's ensemble of
    each size, all within the budget, with the metrics of both splits.

    Args:
        predictions: an opened `predictions.h5`.
        costs_seconds: (models,), in the file's order.
        budget: `4x` or `320`.
        weights: values of w in equation 2.
        loss: the validation loss E of equation 2.

    Raises:
        SelectionError: no model fits the budget, none is usable, or an argument is wrong.
    """
    name = named_budget(budget)
    models, costs = predictions.models, np.asarray(costs_seconds, dtype=np.float64)
    candidates = read_candidates(predictions, None, costs, loss)
    picked = smobf(candidates, budget=name, weights=weights, loss=loss)
    path = forward_greedy(candidates, budget=name, loss=loss)
    anywhere = replace(forward_greedy(candidates, max_members=1, loss=loss).path[0], method="best_single")
    metrics = _EnsembleMetrics(predictions)

    def row(run: Run, budget_seconds: float | None, chosen: bool) -> dict[str, Any]:
        return {
            "method": run.method,
            "budget": None if budget_seconds is None else name,
            "budget_seconds": budget_seconds,
            "weight": run.weight,
            "n_members": len(run.members),
            "members": " ".join(models[member] for member in run.members),
            "cost_seconds": run.cost,
            **{f"{split}_{key}": value for split in _SPLITS for key, value in metrics(split, run.members).items()},
            "chosen": chosen,
        }

    # Without a weight the pick is the best single model: SMOBF's row of its own, beside those of the weights.
    smobf_runs = [*picked.runs, *([picked] if picked.weight is None else [])]
    chosen = [run.weight for run in smobf_runs].index(picked.weight)
    rows = [row(picked.best_single, picked.budget_seconds, False)]
    rows += [row(run, picked.budget_seconds, place == chosen) for place, run in enumerate(smobf_runs)]
    rows += [row(run, picked.budget_seconds, False) for run in path.path]
    return {
        "study": predictions.study,
        "budget": name,
        "budget_seconds": picked.budget_seconds,
        "loss": loss,
        "method": picked.method,
        "weight": picked.weight,
        "members": [models[member] for member in picked.members],
        "cost_seconds": picked.cost,
        **{split: metrics(split, picked.members) for split in _SPLITS},
        "candidates": [
            {"model": model, "cost_seconds": cost} for model, cost in sorted(zip(models, costs.tolist(), strict=True))
        ],
        "dropped": [{"model": models[index], "reason": reason} for index, reason in picked.dropped.items()],
        "best_single": row(anywhere, None, False),
        "ensembles": rows,
        "trace": [row for run in (*smobf_runs, path) for row in _trace_rows(run, name, models)],
    }


def collect_ensembles(
    budget_json_paths: Sequence[str | Path],
    ensembles_csv: str | Path,
    pareto_csv: str | Path,
    trace_csv: str | Path,
) -> None:
    """Merge the budgets' JSON files into `ensembles.csv`, `pareto.csv` and `trace.csv`, by ascending budget.

    Raises:
        ArtefactError: a JSON is missing or broken, or they come from different studies, losses or predictions.
    """
    if not budget_json_paths:
        raise SelectionError("no budget is given", expected="at least one budget-*.json")
    documents: list[dict[str, Any]] = []
    for path in budget_json_paths:
        document = read_json(path, _JSON_KEYS)
        if documents:
            _check_same(documents[0], document, budget_json_paths[0], path)
        documents.append(document)
    documents.sort(key=lambda document: (document["budget_seconds"], document["budget"]))
    rows = [documents[0]["best_single"], *(row for document in documents for row in document["ensembles"])]
    ensembles = pd.DataFrame(rows, columns=_ENSEMBLE_COLUMNS)
    trace = pd.DataFrame([row for document in documents for row in document["trace"]], columns=_TRACE_COLUMNS)
    write_csv(ensembles_csv, ensembles)
    write_csv(pareto_csv, _pareto_rows(ensembles, documents[0]["loss"]))
    write_csv(trace_csv, trace)


def read_costs(costs_path: str | Path, models: Sequence[str], predictions_path: str | Path) -> npt.NDArray[np.float64]:
    """The models' costs in seconds, in the order of `models`: float64 (models,).

    Raises:
        ArtefactError: `costs.csv` lacks a model, has one more or one twice, or a cost is no time.
    """
    table = read_csv(costs_path, ["model", "cost_seconds"], dtype={"model": str})
    twice = sorted(set(table.model[table.model.duplicated()]))
    missing = [model for model in models if model not in set(table.model)]
    unknown = sorted(set(table.model) - set(models))
    faults = [
        f"{what} {', '.join(map(str, ids))}"
        for what, ids in (("twice:", twice), ("without a cost:", missing), ("not predicted:", unknown))
        if ids
    ]
    if faults:
        raise ArtefactError(
            "the costs and the predictions are not about the same models",
            where=costs_path,
            found="; ".join(faults),
            expected=f"one row for each of the {len(models)} models of {predictions_path}",
            hint="make both again from one library: snakemake --cores all library",
        )
    costs = pd.to_numeric(table.set_index("model").cost_seconds, errors="coerce").reindex(list(models))
    for model, seconds in costs.items():
        if not (math.isfinite(seconds) and seconds > 0):
            raise ArtefactError(
                "a cost is not a time", where=f"{costs_path}, model {model}", found=seconds, expected="seconds, above 0"
            )
    return costs.to_numpy(dtype=np.float64)


class _EnsembleMetrics:
    """The metrics of ensembles; a path's prefixes share one running sum, added in the order chosen."""

    def __init__(self, predictions: Predictions) -> None:
        self._labels = {split: predictions.labels(split) for split in _SPLITS}
        self._probabilities = {split: predictions.probabilities(split) for split in _SPLITS}
        self._sums: dict[str, tuple[list[int], npt.NDArray[np.float64]]] = {}
        self._known: dict[tuple[str, tuple[int, ...]], dict[str, float | None]] = {}

    def __call__(self, split: str, members: Sequence[int]) -> dict[str, float | None]:
        key = (split, tuple(members))
        if key not in self._known:
            values = classification_metrics(self._sum(split, list(members)) / len(members), self._labels[split])
            # JSON has no NaN.
            self._known[key] = {name: None if math.isnan(value) else value for name, value in values.items()}
        return self._known[key]

    def _sum(self, split: str, members: list[int]) -> npt.NDArray[np.float64]:
        summed, total = self._sums.get(split, ([], np.empty(0)))
        if not summed or summed != members[: len(summed)]:
            summed, total = [], np.zeros(self._probabilities[split].shape[1:])
        for member in members[len(summed) :]:
            total = total + self._probabilities[split][member]
        self._sums[split] = (members, total)
        return total


def _trace_rows(run: Run, budget: str, models: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "budget": budget,
            "method": run.method,
            "weight": run.weight,
            "step": step.step,
            "model": None if step.model is None else models[step.model],
            "loss": step.loss,
            "cost_seconds": step.cost,
            "score": step.score,
            "runners_up": " ".join(f"{models[model]}:{score:.9g}" for model, score in step.runners_up),
            "n_over_budget": step.n_over_budget,
            "stop_reason": step.stop_reason,
        }
        for step in run.trace
    ]


def _pareto_rows(ensembles: pd.DataFrame, loss: str) -> pd.DataFrame:
    """The front over distinct sets of members; of the same set the chosen row, else the first, stands."""
    chosen_first = ensembles.sort_values("chosen", ascending=False, kind="stable")
    sets = chosen_first.members.map(lambda ids: " ".join(sorted(ids.split())))
    distinct = chosen_first[~sets.duplicated()].sort_index(ignore_index=True)
    return distinct.iloc[pareto_front(distinct.cost_seconds, distinct[f"valid_{loss}"])]


def _check_same(
    first: Mapping[str, Any], other: Mapping[str, Any], first_path: str | Path, other_path: str | Path
) -> None:
    for key in ("study", "loss", "candidates", "best_single"):
        if first[key] != other[key]:
            raise ArtefactError(
                "two budgets' ensembles were not selected from the same library",
                where=other_path,
                found=f"another value of `{key}` than in {first_path}",
                expected="the same study, loss, models and costs",
                hint="make both again: snakemake --cores all --forcerun select_ensemble",
            )
