"""What a selection chooses from: stored validation probabilities, costs, and which models are usable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.config import PRIMARY_COST
from ensembleflow.errors import SelectionError
from ensembleflow.library import FileSource, Predictions
from ensembleflow.models.metrics import METRICS, Metric
from ensembleflow.selection.checks import Ranges, diverged_models, joined_ranges, ranges_of
from ensembleflow.selection.evaluation import Evaluator, ThreadWorkers, Workers
from ensembleflow.selection.partition import MemorySource, Source, partitions_of

__all__ = ["Candidates", "CostsLike", "ProbabilitiesLike", "read_candidates"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CostsLike = npt.ArrayLike | Mapping[str, npt.ArrayLike] | None

# A segmentation's labels, a pixel each, are too many to be looked at all at once.
_LABELS_AT_ONCE = 2**20


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

    Of a cache, losses that need only the true class read (model, sample), and a hundredth of the data.

    Args:
        probabilities: (models, samples, classes), or an opened cache, whose validation split is used. Candidates that
            were read before are given back as they are.
        labels: (samples,); may be None for a cache, which has them.
        costs: seconds (models,), or columns of costs by name, `cost_seconds` among them; None counts every model as 0.
        loss: a name of `METRICS`.
        make_workers: who sums over the samples, from the source and the loss.

    Raises:
        SelectionError: an array's shape or values are wrong, or no model is usable.
    """
    if loss not in METRICS:
        raise SelectionError("unknown loss", found=loss, expected=", ".join(METRICS))
    if isinstance(probabilities, Candidates):
        if probabilities.metric.name != loss:
            raise SelectionError("these candidates were read for another loss", found=probabilities.metric.name)
        return probabilities
    metric = METRICS[loss]
    if isinstance(probabilities, Predictions):
        names = list(probabilities.models)
        tie_ranks = np.argsort(np.argsort(names, kind="stable"))
        source: Source = _cached_source(probabilities, labels, metric)
    else:
        full = _float_array(probabilities)
        truth = _check_labels(labels, full.shape[1], full.shape[2])
        names, tie_ranks = [f"model {index}" for index in range(len(full))], np.arange(len(full))
        values = full if metric.needs_all_classes else full[:, np.arange(len(truth)), truth]
        source = MemorySource(np.ascontiguousarray(values), truth, full.shape[2])
    if len(names) == 0:
        raise _no_model({}, names)
    columns = _check_costs(costs, names)
    workers = make_workers(source, loss)
    ranges = joined_ranges(workers.ranges())
    # Of an array, unlike of a cache, nobody has checked the other classes yet.
    every_class = ranges if isinstance(probabilities, Predictions) else ranges_of(full, truth, full.shape[2], 0)
    dropped = diverged_models(every_class, names)
    dropped |= _constant_models(every_class, dropped, source, probabilities)
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


def _cached_source(predictions: Predictions, labels: npt.ArrayLike | None, metric: Metric) -> FileSource:
    truth = predictions.mapped_labels("valid")
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
    for start in range(0, len(truth), _LABELS_AT_ONCE):
        part = truth[start : start + _LABELS_AT_ONCE]
        _check_labels(part, len(part), predictions.n_classes, start, f"{predictions.path}: valid, ")
    return FileSource(predictions.path, "valid", metric.needs_all_classes)


def _float_array(probabilities: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    array = np.asarray(probabilities)
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise SelectionError(
            "the probabilities have the wrong shape", found=array.shape, expected="(models, samples, classes)"
        )
    return np.ascontiguousarray(array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64))


def _check_labels(
    labels: npt.ArrayLike | None, n_samples: int, n_classes: int, first_sample: int = 0, where: str = ""
) -> IntArray:
    given = np.asarray([] if labels is None else labels)
    if given.shape != (n_samples,):
        raise SelectionError("the labels do not match the probabilities", found=given.shape, expected=(n_samples,))
    with np.errstate(invalid="ignore"):
        truth = given.astype(np.int64)
    wrong = np.flatnonzero((truth != given) | (truth < 0) | (truth >= n_classes))
    if len(wrong):
        raise SelectionError(
            "a label is not a class",
            where=f"{where}sample {first_sample + wrong[0]}",
            found=given[wrong[0]],
            expected=f"integers in 0 … {n_classes - 1}",
        )
    return truth


def _check_costs(costs: CostsLike, names: Sequence[str]) -> dict[str, FloatArray]:
    if costs is None:
        return {PRIMARY_COST: np.zeros(len(names))}
    columns = costs if isinstance(costs, Mapping) else {PRIMARY_COST: costs}
    if PRIMARY_COST not in columns:
        raise SelectionError("the costs have no column for the time", found=", ".join(columns), expected=PRIMARY_COST)
    checked = {}
    for column, given in columns.items():
        values = np.array(given, dtype=np.float64)
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


def _constant_models(
    ranges: Ranges, dropped: Mapping[int, str], source: Source, probabilities: ProbabilitiesLike
) -> dict[int, str]:
    """Index to reason of models that give every sample the same, unless nothing else is left or has one label."""
    n_models = len(ranges.first_not_finite)
    suspects = [index for index in range(n_models) if index not in dropped and ranges.constant(index)]
    # True classes' probabilities are constant for each label too; only where they are is every class read.
    if suspects and isinstance(probabilities, Predictions) and probabilities.has_every_class:
        every_class, no_labels = probabilities.probabilities("valid"), np.empty(0, dtype=np.int64)
        suspects = [
            index
            for index in suspects
            if ranges_of(every_class[index : index + 1], no_labels, source.n_classes, 0).constant(0)
        ]
    if len(suspects) == n_models - len(dropped) or _one_label(source):
        return {}
    return dict.fromkeys(suspects, "the same probabilities for every sample")


def _one_label(source: Source) -> bool:
    _, labels = source.read(0, min(source.n_samples, 2**16))
    return bool(len(labels) == source.n_samples and labels.min() == labels.max())
