"""What a selection chooses from: stored validation probabilities, costs, and which models are usable."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow import arguments
from ensembleflow.config import PRIMARY_COST, budget_parts
from ensembleflow.errors import SelectionError
from ensembleflow.library import FileSource, Predictions, open_predictions
from ensembleflow.library.predictions import SPLITS, first_wrong_label
from ensembleflow.models.metrics import METRICS, Metric, sample_chunks
from ensembleflow.selection.budget import BudgetLike, Spending, budget_limits, named_budget
from ensembleflow.selection.cache_checks import model_places, models_diverged_in_cache
from ensembleflow.selection.costs import read_costs
from ensembleflow.selection.sums.checks import (
    Ranges,
    joined_ranges,
    not_finite_reasons,
    ranges_of,
    refuse_bad_sums,
    refuse_outside,
)
from ensembleflow.selection.sums.evaluation import Evaluator, MakeWorkers, one_thread
from ensembleflow.selection.sums.partition import MemorySource, Source

__all__ = [
    "Candidates",
    "CostsLike",
    "ProbabilitiesLike",
    "checked_limits",
    "open_candidates",
    "read_candidates",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ProbabilitiesLike = npt.ArrayLike | Predictions

CostsLike = npt.ArrayLike | Mapping[str, npt.ArrayLike] | None

# A segmentation's samples, a pixel each, are too many to be looked at all at once.
_SAMPLES_AT_ONCE = 2**20


@dataclass(frozen=True, eq=False)
class Candidates:
    """Checked predictions and costs: what all methods choose from, and whose losses they share.

    Attributes:
        metric: the loss.
        source: where the probabilities are.
        cost_columns: by column, float64 (models,) each; `cost_seconds` is among them.
        names: what a message calls each model.
        tie_ranks: order of the models' ids, the last tie-break: int (models,).
        usable: indices of the models that may be chosen, ascending.
        dropped: index to reason of the others.
        evaluator: the losses of ensembles, computed once each.
    """

    metric: Metric
    source: Source
    cost_columns: dict[str, FloatArray]
    names: list[str]
    tie_ranks: npt.NDArray[np.intp]
    usable: npt.NDArray[np.intp]
    dropped: dict[int, str]
    evaluator: Evaluator

    @property
    def costs(self) -> FloatArray:
        """Seconds (models,)."""
        return self.cost_columns[PRIMARY_COST]


def read_candidates(
    probabilities: ProbabilitiesLike,
    labels: npt.ArrayLike | None,
    costs: CostsLike,
    loss: str,
    make_workers: MakeWorkers = one_thread,
) -> Candidates:
    """Check the inputs of a selection and drop the models that have diverged.

    Of a cache, losses that need only the true class read (model, sample), and a hundredth of the data, unless nobody
    has checked the others (see `models_diverged_in_cache`). A model is also dropped for what it predicts on the test
    split of a cache: its test metrics, and what a server would answer, would be no numbers.

    Args:
        probabilities: (models, samples, classes), or an opened cache, whose validation split is used.
        labels: (samples,); may be None for a cache, which has them.
        costs: seconds (models,), or columns of costs by name, `cost_seconds` among them; None counts every model as 0.
        loss: a name of `METRICS`.
        make_workers: who sums over the samples, see `selection_workers`.

    Raises:
        SelectionError: an array's shape or values are wrong, or no model is usable.
        ArtefactError: a cached label is not a class.
    """
    if not isinstance(loss, str) or loss not in METRICS:
        raise SelectionError("unknown loss", found=loss, expected=", ".join(METRICS))
    metric = METRICS[loss]
    cache = None
    if isinstance(probabilities, Predictions):
        cache = probabilities
        names, truth = list(cache.models), cache.mapped_labels("valid")
        tie_ranks = np.argsort(np.argsort(names, kind="stable"))
        source: Source = _cached_source(cache, truth, labels, metric)
    else:
        full = _float_array(probabilities)
        truth = _check_labels(labels, full.shape[1], full.shape[2])
        names, tie_ranks = [f"model {index}" for index in range(len(full))], np.arange(len(full))
        values = full if metric.needs_all_classes else full[:, np.arange(len(truth)), truth]
        source = MemorySource(np.ascontiguousarray(values), truth, full.shape[2])
    if len(names) == 0:
        raise _no_model({}, names)
    columns = _check_costs(costs, names)
    dropped = {} if cache is None else models_diverged_in_cache(cache)
    workers = make_workers(source, loss)
    ranges = joined_ranges(workers.ranges())
    if cache is None:
        # The workers may have looked at the true class alone.
        ranges = ranges_of(full, truth, full.shape[2], 0)
    dropped = {**not_finite_reasons(ranges.first_not_finite), **dropped}
    refuse_outside(ranges, names if cache is None else model_places(cache, "valid"), dropped)
    if cache is None:
        refuse_bad_sums(ranges, names, dropped)
    dropped |= _constant_models(ranges, dropped, cache, truth)
    usable = np.array([index for index in range(len(names)) if index not in dropped], dtype=np.intp)
    if len(usable) == 0:
        raise _no_model(dropped, names)
    evaluator = Evaluator(workers, metric, usable, tie_ranks, source.n_samples)
    return Candidates(metric, source, columns, names, tie_ranks, usable, dict(sorted(dropped.items())), evaluator)


@contextmanager
def open_candidates(
    predictions_path: str | Path,
    costs_path: str | Path,
    budgets: Iterable[str],
    loss: str,
    make_workers: MakeWorkers = one_thread,
) -> Iterator[tuple[Predictions, Candidates]]:
    """Open a library's cache, and read its models as candidates.

    Args:
        predictions_path: `predictions.h5`.
        costs_path: `costs.csv`.
        budgets: those that ensembles are chosen for: the columns that they name must be costs of every model.
        loss: a name of `METRICS`.
        make_workers: as for `read_candidates`.

    Yields:
        The cache, which is closed afterwards, and the candidates, which can still be used then.

    Raises:
        ArtefactError: a file is missing or broken, or the two are not about the same models.
        SelectionError: a budget is not valid, or no model is usable.
    """
    needed = {column for budget in budgets for column, _ in budget_parts(named_budget(budget))}
    with open_predictions(predictions_path) as predictions:
        costs = read_costs(costs_path, predictions.models, predictions_path, needed)
        yield predictions, read_candidates(predictions, None, costs, loss, make_workers)


def checked_limits(candidates: Candidates, budget: BudgetLike) -> dict[str, float]:
    """The most that each cost column's sum may be: of a budget that at least one model fits.

    Raises:
        SelectionError: the budget is not valid, or no usable model fits it; the cheapest is named.
    """
    arguments.instance("candidates", candidates, Candidates, "read_candidates")
    limits = budget_limits(budget, candidates.cost_columns)
    if Spending(candidates.cost_columns, limits).fits(candidates.usable).any():
        return limits
    left_out = "".join(f"; {candidates.names[index]} is left out: {why}" for index, why in candidates.dropped.items())
    cheapest, median = [], []
    for column, limit in limits.items():
        costs = candidates.cost_columns[column]
        best = min(candidates.usable, key=lambda index: (costs[index], candidates.tie_ranks[index]))
        unit = "s" if column == PRIMARY_COST else column
        cheapest.append(f"the cheapest, {candidates.names[best]}, costs {costs[best]:.6g} {unit} of {limit:.6g}")
        median.append(f"1x is {np.median(costs):.6g} {unit}")
    raise SelectionError(
        f"no usable model fits the budget {budget}",
        found="; ".join(cheapest) + left_out,
        expected="a budget that at least one model fits",
        hint=f"raise the budget, or search smaller models; {', '.join(median)} here",
    )


def _no_model(dropped: Mapping[int, str], names: Sequence[str]) -> SelectionError:
    return SelectionError(
        "no model has usable predictions",
        found="; ".join(f"{names[index]}: {reason}" for index, reason in dropped.items()) or "an empty library",
        hint="train longer or with a lower learning rate: these models have diverged",
    )


def _cached_source(
    predictions: Predictions, truth: npt.NDArray[Any], labels: npt.ArrayLike | None, metric: Metric
) -> FileSource:
    if labels is not None and not np.array_equal(np.asarray(labels), truth):
        raise SelectionError(
            "the labels are not those of the cached validation split",
            hint="pass labels=None with a cache: it has its own",
        )
    if metric.needs_all_classes and not predictions.has_every_class:
        raise SelectionError(
            "the loss needs the probabilities of every class, and the cache holds the true class's only",
            where=predictions.path,
            found=metric.name,
            expected="cross_entropy",
            hint="cache every class, or select by cross-entropy",
        )
    if len(truth) == 0:
        raise SelectionError("the cached validation split has no samples", where=predictions.path)
    for split in SPLITS:
        predictions.check_labels(split)
    return FileSource(predictions.path, "valid", metric.needs_all_classes)


def _float_array(probabilities: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    array = arguments.array("probabilities", probabilities, "iufbO", "floats (models, samples, classes)")
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise SelectionError(
            "the probabilities have the wrong shape", found=array.shape, expected="(models, samples, classes)"
        )
    return np.ascontiguousarray(array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64))


def _check_labels(labels: npt.ArrayLike | None, n_samples: int, n_classes: int) -> IntArray:
    given = arguments.array("labels", [] if labels is None else labels, "iufbOUS", "integers (samples,)")
    if given.shape != (n_samples,):
        raise SelectionError("the labels do not match the probabilities", found=given.shape, expected=(n_samples,))
    if given.dtype == object:
        # A table's column: integers all the same, perhaps.
        given = np.array(given.tolist())
    if (wrong := first_wrong_label(given, n_classes)) is not None:
        raise SelectionError(
            "a label is not a class",
            where=f"sample {wrong}",
            found=given[wrong],
            expected=f"integers in 0 … {n_classes - 1}",
        )
    return given.astype(np.int64)


def _check_costs(costs: CostsLike, names: Sequence[str]) -> dict[str, FloatArray]:
    if costs is None:
        return {PRIMARY_COST: np.zeros(len(names))}
    columns = costs if isinstance(costs, Mapping) else {PRIMARY_COST: costs}
    if PRIMARY_COST not in columns:
        raise SelectionError("the costs have no column for the time", found=", ".join(columns), expected=PRIMARY_COST)
    checked = {}
    for column, given in columns.items():
        values = _numbers(given, column, names)
        if values.shape != (len(names),):
            raise SelectionError(
                "the costs do not match the models", where=column, found=values.shape, expected=(len(names),)
            )
        for name, cost in zip(names, values, strict=True):
            if not (np.isfinite(cost) and cost > 0):
                raise SelectionError(
                    "a cost is not above 0",
                    where=f"{name}, {column}",
                    found=cost,
                    expected="a number above 0" if column != PRIMARY_COST else "seconds, above 0",
                )
        checked[column] = values
    return checked


def _numbers(given: npt.ArrayLike, column: str, names: Sequence[str]) -> FloatArray:
    try:
        return np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        for name, cost in zip(names, np.asarray(given, dtype=object).tolist(), strict=False):
            try:
                float(cost)
            except (TypeError, ValueError):
                where, found = f"{name}, {column}", repr(cost)
                break
        else:
            where, found = column, str(error)
        raise SelectionError("a cost is not a number", where=where, found=found, expected="a number above 0") from None


def _constant_models(
    ranges: Ranges, diverged: Container[int], cache: Predictions | None, labels: npt.NDArray[Any]
) -> dict[int, str]:
    """Index to reason of models that give every sample the same, unless nothing else is left or all have one label."""
    # By the true class alone they look like a model that is always right.
    if cache is not None and not cache.has_every_class:
        return {}
    left = [index for index in range(len(ranges.first_not_finite)) if index not in diverged]
    suspects = [index for index in left if ranges.constant(index)]
    if suspects and cache is not None:
        suspects = [index for index in suspects if _every_class_ranges(cache, index).constant(0)]
    if len(suspects) == len(left) or _one_label(labels):
        return {}
    return dict.fromkeys(suspects, "the same probabilities for every sample")


def _every_class_ranges(cache: Predictions, model: int) -> Ranges:
    """One model's ranges of all classes' probabilities of validation."""
    stored, no_labels = cache.probabilities("valid"), np.empty(0, dtype=np.int64)
    return joined_ranges(
        ranges_of(stored[model : model + 1, chunk], no_labels, cache.n_classes, chunk.start)
        for chunk in sample_chunks(stored.shape[1], _SAMPLES_AT_ONCE)
    )


def _one_label(labels: npt.NDArray[Any]) -> bool:
    chunks = (labels[chunk] for chunk in sample_chunks(len(labels), _SAMPLES_AT_ONCE))
    return all(bool((chunk == labels[0]).all()) for chunk in chunks)
