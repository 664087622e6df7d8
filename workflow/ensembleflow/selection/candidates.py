"""What a selection chooses from: stored validation probabilities, costs, and which models are usable."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow import arguments
from ensembleflow.config import PRIMARY_COST
from ensembleflow.errors import SelectionError
from ensembleflow.library import FileSource, Predictions
from ensembleflow.library.predictions import SPLITS, first_wrong_label
from ensembleflow.models.metrics import METRICS, Metric, sample_chunks
from ensembleflow.selection.cache_checks import model_places, models_diverged_in_cache
from ensembleflow.selection.sums.checks import (
    Ranges,
    joined_ranges,
    not_finite_reasons,
    ranges_of,
    refuse_bad_sums,
    refuse_outside,
)
from ensembleflow.selection.sums.evaluation import Evaluator, ThreadWorkers, Workers
from ensembleflow.selection.sums.partition import MemorySource, Source, partitions_of

__all__ = ["Candidates", "CostsLike", "ProbabilitiesLike", "read_candidates"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

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


ProbabilitiesLike = npt.ArrayLike | Predictions | Candidates


def _one_thread(source: Source, loss: str) -> Workers:
    return ThreadWorkers(partitions_of(source, loss, 1))


def read_candidates(
    probabilities: ProbabilitiesLike,
    labels: npt.ArrayLike | None,
    costs: CostsLike,
    loss: str,
    make_workers: Callable[[Source, str], Workers] = _one_thread,
) -> Candidates:
    """Check the inputs of a selection and drop the models that have diverged.

    Of a cache, losses that need only the true class read (model, sample), and a hundredth of the data, unless nobody
    has checked the others (see `models_diverged_in_cache`). A model is also dropped for what it predicts on the test
    split of a cache: its test metrics, and what a server would answer, would be no numbers.

    Args:
        probabilities: (models, samples, classes), or an opened cache, whose validation split is used. Candidates that
            were read before are given back as they are.
        labels: (samples,); may be None for a cache, which has them, and is None for candidates.
        costs: seconds (models,), or columns of costs by name, `cost_seconds` among them; None counts every model as 0.
            None for candidates.
        loss: a name of `METRICS`.
        make_workers: who sums over the samples, from the source and the loss.

    Raises:
        SelectionError: an array's shape or values are wrong, or no model is usable.
        ArtefactError: a cached label is not a class.
    """
    if not isinstance(loss, str) or loss not in METRICS:
        raise SelectionError("unknown loss", found=loss, expected=", ".join(METRICS))
    if isinstance(probabilities, Candidates):
        if probabilities.metric.name != loss:
            raise SelectionError(
                "these candidates were read for another loss",
                found=probabilities.metric.name,
                expected=loss,
                hint=f"name it here as well, or read them anew: read_candidates(..., loss={loss!r})",
            )
        if labels is not None or costs is not None:
            raise SelectionError(
                "candidates have labels and costs of their own",
                found="others, given beside them",
                hint="give them to read_candidates",
            )
        return probabilities
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
    # The true class alone does not tell them from a model that is always right.
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
