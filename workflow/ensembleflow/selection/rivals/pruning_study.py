"""How much of a library to keep: selection's loss, error and time for several fractions (the paper's section 3.3.1)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.config import n_kept
from ensembleflow.errors import SelectionError
from ensembleflow.io import write_csv
from ensembleflow.library import Predictions, open_predictions
from ensembleflow.models.metrics import METRICS, classification_metrics
from ensembleflow.selection.arrays import smobf
from ensembleflow.selection.budget import BudgetLike, Spending, budget_limits
from ensembleflow.selection.candidates import CostsLike, read_candidates
from ensembleflow.selection.costs import read_costs
from ensembleflow.selection.smobf import WEIGHTS, SmobfResult

__all__ = ["KEEP_FRACTIONS", "pruning_study", "write_pruning_study"]

KEEP_FRACTIONS = (0.05, 0.10, 0.15, 0.20, 0.30, 0.50, 1.0)
_COLUMNS = [
    *("keep_fraction", "n_models", "n_members", "members", "cost_seconds"),
    *("loss", "valid_loss", "valid_error", "test_error", "selection_seconds"),
]
_N_TIMED = 3


def pruning_study(
    probabilities: npt.ArrayLike | Predictions,
    costs: CostsLike,
    budget: BudgetLike,
    *,
    labels: npt.ArrayLike | None = None,
    test_probabilities: npt.ArrayLike | None = None,
    test_labels: npt.ArrayLike | None = None,
    keep_fractions: Sequence[float] = KEEP_FRACTIONS,
    weights: Sequence[float] = WEIGHTS,
    loss: str = "cross_entropy",
    rank_by: str = "error",
) -> pd.DataFrame:
    """SMOBF on the best fraction of a library by a validation metric, for several fractions.

    Models are ranked and fractions rounded as the library does it: by the metric, then cross-entropy, then the order
    given; a model without a metric is never kept, and one that has diverged is not chosen. The budget is
    the same number of seconds for every fraction, that of the whole library: `4x` of another median would be another
    budget, and the fractions could not be compared.

    Args:
        probabilities: of all models, not of the kept ones only: validation's (models, samples, classes), or an opened
            `predictions.h5` with every class, in rank order, which holds the test split and the labels as well.
        costs: as for `smobf`, of all models.
        budget: as for `smobf`; multiples are of the whole library's median.
        labels: (samples,); None for a cache.
        test_probabilities: (models, test samples, classes); None for a cache.
        test_labels: (test samples,); None for a cache.
        keep_fractions: shares of all models, above 0 and at most 1.
        weights: as for `smobf`.
        loss: likewise.
        rank_by: the metric that ranks, a name of `METRICS`.

    Returns:
        One row per fraction, in the order given: `keep_fraction`, `n_models` kept, `n_members`, `members` (ids, or
        numbers of models, in the order chosen), `cost_seconds`, `loss` (its name), `valid_loss`, `valid_error`,
        `test_error`, and `selection_seconds`: the median of three selections from predictions in memory, their
        checks included. Where no kept model fits the budget, `n_members` is 0 and what is not there is NaN.

    Raises:
        SelectionError: a fraction is out of range or keeps no model, or an input is wrong.
    """
    if rank_by not in METRICS:
        raise SelectionError("unknown metric to rank by", found=rank_by, expected=", ".join(METRICS))
    whole = read_candidates(probabilities, labels, costs, loss)
    splits = _splits(probabilities, labels, test_probabilities, test_labels)
    valid, truth = splits["valid"]
    names = whole.names if isinstance(probabilities, Predictions) else [str(index) for index in range(len(valid))]
    limits = budget_limits(budget, whole.cost_columns)
    counts = _counts(keep_fractions, len(valid))
    ranked = _ranked(valid, truth, rank_by)
    test, _ = splits["test"]
    choosable = {model for model in whole.usable.tolist() if np.isfinite(test[model]).all()}
    rows: list[dict[str, Any]] = []
    for fraction, count in zip(keep_fractions, counts, strict=True):
        # By id, as ties fall in a selection from all models.
        kept = sorted(ranked[:count], key=lambda model: int(whole.tie_ranks[model]))
        usable = [model for model in kept if model in choosable]
        columns = {column: values[usable] for column, values in whole.cost_columns.items()}
        row: dict[str, Any] = {"keep_fraction": fraction, "n_models": len(kept), "loss": loss}
        if len(usable) and Spending(columns, limits).fits(np.arange(len(usable))).any():
            kept_probabilities = np.stack([valid[model] for model in usable])
            result, seconds = _timed_selection(kept_probabilities, truth, columns, limits, weights, loss)
            members = [usable[member] for member in result.members]
            row |= {
                "n_members": len(members),
                "members": " ".join(names[member] for member in members),
                "cost_seconds": result.cost,
                "valid_loss": result.loss,
                **{f"{split}_error": _error(*arrays, members) for split, arrays in splits.items()},
                "selection_seconds": seconds,
            }
        else:
            row |= {"n_members": 0, "members": ""}
        rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


def write_pruning_study(
    predictions_path: str | Path,
    costs_path: str | Path,
    output_csv: str | Path,
    *,
    budget: str,
    keep_fractions: Sequence[float],
    weights: Sequence[float],
    loss: str,
    rank_by: str,
) -> None:
    """Write the `pruning_study` of a whole library; fractions of it that keep no model are left out.

    Args:
        predictions_path: `predictions.h5` of all models, in rank order.
        costs_path: their `costs.csv`.
        output_csv: where the table is written.
        budget: as for `pruning_study`.
        keep_fractions: likewise.
        weights: likewise.
        loss: likewise.
        rank_by: likewise.

    Raises:
        ArtefactError: a file is missing or broken, or they are not about the same models.
        SelectionError: no fraction keeps a model, or no model is usable.
    """
    with open_predictions(predictions_path) as predictions:
        costs = read_costs(costs_path, predictions.models, predictions_path)
        fractions = [fraction for fraction in keep_fractions if n_kept(len(predictions.models), fraction)]
        options: dict[str, Any] = {"weights": weights, "loss": loss, "rank_by": rank_by}
        write_csv(output_csv, pruning_study(predictions, costs, budget, keep_fractions=fractions, **options))


def _splits(
    probabilities: npt.ArrayLike | Predictions,
    labels: npt.ArrayLike | None,
    test_probabilities: npt.ArrayLike | None,
    test_labels: npt.ArrayLike | None,
) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Probabilities and labels of both splits; of arrays, those of validation were checked."""
    if isinstance(probabilities, Predictions):
        if not probabilities.has_every_class:
            raise SelectionError(
                "the error needs the probabilities of every class, and the cache holds the true class's only",
                where=probabilities.path,
                hint="cache every class of all models: library.predictions.every_class",
            )
        return {split: (probabilities.probabilities(split), probabilities.labels(split)) for split in ("valid", "test")}
    valid, test = np.asarray(probabilities), np.asarray(test_probabilities)
    if test.ndim != 3 or (test.shape[0], test.shape[2]) != (valid.shape[0], valid.shape[2]):
        raise SelectionError(
            "the test probabilities do not match those of validation",
            found=test.shape,
            expected=f"({valid.shape[0]}, test samples, {valid.shape[2]})",
        )
    read_candidates(test, test_labels, None, "error")
    return {"valid": (valid, np.asarray(labels)), "test": (test, np.asarray(test_labels))}


def _counts(keep_fractions: Sequence[float], n_models: int) -> list[int]:
    if len(keep_fractions) == 0:
        raise SelectionError("no fraction to keep is given", expected="at least one, above 0 and at most 1")
    for fraction in keep_fractions:
        if isinstance(fraction, bool) or not 0 < fraction <= 1:
            raise SelectionError("a fraction to keep is out of range", found=fraction, expected="above 0, at most 1")
    counts = [n_kept(n_models, fraction) for fraction in keep_fractions]
    if 0 in counts:
        fraction = keep_fractions[counts.index(0)]
        raise SelectionError(
            "a fraction keeps no model",
            found=f"{fraction:g} of {n_models} models",
            expected="at least one model",
            hint=f"{1 / n_models:.3g} keeps one",
        )
    return counts


def _ranked(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], rank_by: str) -> list[int]:
    """The models that have a metric, best first."""
    metrics = [classification_metrics(each, labels) for each in probabilities]
    measured = [index for index, values in enumerate(metrics) if not math.isnan(values[rank_by])]
    return sorted(measured, key=lambda index: (metrics[index][rank_by], metrics[index]["cross_entropy"], index))


def _timed_selection(
    probabilities: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    costs: dict[str, npt.NDArray[np.float64]],
    limits: dict[str, float],
    weights: Sequence[float],
    loss: str,
) -> tuple[SmobfResult, float]:
    seconds = []
    # The first call may compile.
    for _ in range(1 + _N_TIMED):
        started = time.perf_counter()
        result = smobf(probabilities, labels, costs, limits or None, weights, loss)
        seconds.append(time.perf_counter() - started)
    return result, float(np.median(seconds[1:]))


def _error(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], members: Sequence[int]) -> float:
    total = np.zeros(probabilities.shape[1:])
    for member in members:
        total += probabilities[member]
    return classification_metrics(total / len(members), labels)["error"]
