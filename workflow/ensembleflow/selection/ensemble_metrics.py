"""The metrics of many ensembles, all in one pass over the cached probabilities of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.library import Predictions
from ensembleflow.models.metrics import CHUNK_SAMPLES, Metric, metrics_of_sums, sample_chunks, sums_of_chunk
from ensembleflow.selection.combiners import WeightedAverage

__all__ = ["Ensemble", "ensemble_metrics"]

FloatArray = npt.NDArray[np.float64]

# A chunk's arrays stay within a core's cache, where the classes are few. Part of the metrics' last digits, hence never
# derived from memory or cores.
_CHUNK_VALUES = 2**14


@dataclass(frozen=True)
class Ensemble:
    """Members, and how they make one prediction.

    Attributes:
        members: indices of models and how often each counts, added in this order.
        combiner: what they are added to.
    """

    members: tuple[tuple[int, int], ...]
    combiner: type[WeightedAverage] = WeightedAverage

    @classmethod
    def average(cls, members: Iterable[int]) -> Ensemble:
        """The average of members that all count once."""
        return cls(tuple((member, 1) for member in members))


def ensemble_metrics(
    predictions: Predictions,
    split: str,
    ensembles: Iterable[Ensemble],
    metrics: Mapping[str, Metric],
    n_threads: int = 1,
) -> dict[Ensemble, dict[str, float]]:
    """The metrics of every ensemble on one split, by name.

    A metric is NaN where it needs classes that are not cached, and all are where a probability is not finite or there
    is no sample.

    Args:
        predictions: an opened `predictions.h5`, whose labels `read_candidates` has checked.
        split: `valid` or `test`.
        ensembles: of at least one member each; an ensemble that is the start of another costs little more than none.
        metrics: by name.
        n_threads: threads that share the samples; no digit depends on them.
    """
    stored = predictions.probabilities if predictions.has_every_class else predictions.true_class_probability
    values, labels = stored(split), predictions.mapped_labels(split)
    # Beside each other are those that begin alike.
    ordered = sorted(set(ensembles), key=lambda ensemble: (ensemble.combiner.__name__, ensemble.members))
    n_values = values[:1, :1].size
    chunks = sample_chunks(len(labels), max(CHUNK_SAMPLES, _CHUNK_VALUES // max(1, n_values)))
    totals: list[dict[str, FloatArray]] | None = None
    with ThreadPoolExecutor(n_threads) as pool:
        for sums in pool.map(lambda chunk: _sums(values, labels, chunk, ordered, metrics), chunks):
            totals = sums if totals is None else [_added(*both) for both in zip(totals, sums, strict=True)]
    return {
        ensemble: metrics_of_sums(total, len(labels), metrics)
        for ensemble, total in zip(ordered, totals or [{}] * len(ordered), strict=True)
    }


def _sums(
    values: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    chunk: slice,
    ordered: Sequence[Ensemble],
    metrics: Mapping[str, Metric],
) -> list[dict[str, FloatArray]]:
    """Each ensemble's sums over one chunk of samples."""
    truth = labels[chunk].astype(np.int64)
    # Parts of a map cost nothing; what has to be read and unpacked is so once.
    members = {member for ensemble in ordered for member, _ in ensemble.members}
    rows = {member: values[member, chunk] for member in members}
    return [sums_of_chunk(probabilities, truth, metrics) for probabilities in _combined(rows, ordered)]


def _combined(rows: Mapping[int, npt.NDArray[Any]], ordered: Sequence[Ensemble]) -> Iterator[FloatArray]:
    """Each ensemble's prediction; what it has in common with the one before, if that is its start, is added once.

    Args:
        rows: the members' probabilities by index, (samples, classes) or (samples,).
        ordered: the ensembles.
    """
    before: Ensemble | None = None
    for ensemble in ordered:
        n_known = 0 if before is None else len(before.members)
        if before is None or (ensemble.combiner, ensemble.members[:n_known]) != (before.combiner, before.members):
            combined, n_known = ensemble.combiner(rows[ensemble.members[0][0]].shape), 0
        for member, times in ensemble.members[n_known:]:
            combined.add(rows[member].astype(np.float64), times)
        yield combined.probabilities()
        before = ensemble


def _added(total: dict[str, FloatArray], sums: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Both sums by name; of an ensemble that has none in some chunk, none."""
    return {name: total[name] + sums[name] for name in total.keys() & sums.keys()}
