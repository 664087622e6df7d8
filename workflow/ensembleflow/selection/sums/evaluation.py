"""The loss of every ensemble that a selection asks for, each computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ensembleflow.models.metrics import Metric, add_in_order
from ensembleflow.selection.sums.checks import Ranges
from ensembleflow.selection.sums.losses import Prefixes
from ensembleflow.selection.sums.partition import Partition, Source, partitions_of

__all__ = ["Evaluator", "MakeWorkers", "ThreadWorkers", "Workers", "one_thread"]

FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")
IntArray = npt.NDArray[np.int64]

# 800 MB of losses for a thousand candidates; beyond, what was computed first is forgotten.
_REMEMBERED = 100_000


class Workers(Protocol):
    """Whoever sums over the samples."""

    def ranges(self) -> Iterable[Ranges]:
        """Each partition's ranges of values, in the samples' order: the first look at the data."""

    def block_sums(self, prefixes: Prefixes, candidates: IntArray) -> Iterable[FloatArray]:
        """Each partition's sums, in the samples' order: float64 (blocks, prefixes, candidates, terms)."""

    def close(self) -> None:
        """Let go of what is held."""


MakeWorkers = Callable[[Source, str], Workers]
"""Makes the workers that sum a source's samples, for a loss, a name of `METRICS`."""


class ThreadWorkers:
    """Threads of this process: the compiled sums run beside each other.

    Args:
        partitions: one a thread.
    """

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._partitions = list(partitions)
        self._pool = ThreadPoolExecutor(len(self._partitions)) if len(self._partitions) > 1 else None

    def ranges(self) -> Iterable[Ranges]:
        """Each partition's ranges of values, in the samples' order."""
        return self._map(Partition.ranges)

    def block_sums(self, prefixes: Prefixes, candidates: IntArray) -> Iterable[FloatArray]:
        """Each partition's sums, in the samples' order."""
        return self._map(lambda partition: partition.block_sums(prefixes, candidates))

    def _map(self, work: Callable[[Partition], T]) -> Iterable[T]:
        return map(work, self._partitions) if self._pool is None else self._pool.map(work, self._partitions)

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def one_thread(source: Source, loss: str) -> ThreadWorkers:
    """All samples, summed by the thread that asks."""
    return ThreadWorkers(partitions_of(source, loss, 1))


class Evaluator:
    """Losses of ensembles with one more member, remembered by their members.

    The loss of an ensemble does not depend on the order of its members or of the library's models, on the other
    candidates, or on which worker summed what.

    Args:
        workers: who sums over the samples.
        metric: the loss.
        models: the models that may be added, ascending: int64 (candidates,).
        ranks: of the library's models by id, the order in which members are summed: int (models,).
        n_samples: of the validation split.
    """

    def __init__(
        self, workers: Workers, metric: Metric, models: IntArray, ranks: npt.NDArray[np.intp], n_samples: int
    ) -> None:
        self._workers, self._metric, self._models = workers, metric, models
        self._ranks, self._n_samples = ranks.tolist(), n_samples
        self._known: dict[tuple[int, ...], FloatArray] = {}
        self.n_evaluated = 0

    def evaluate(self, prefixes: Iterable[Sequence[int]]) -> None:
        """Compute the losses of every prefix with each candidate, those that are not known yet, in one pass."""
        new = list(dict.fromkeys(key for prefix in prefixes if (key := self._key(prefix)) not in self._known))
        if not new:
            return
        sums = [part for block in self._workers.block_sums(Prefixes(new), self._models) for part in block]
        losses = self._metric.value(add_in_order(sums), self._n_samples)
        self.n_evaluated += losses.size
        while len(self._known) + len(new) > _REMEMBERED and self._known:
            del self._known[next(iter(self._known))]
        for key, row in zip(new, losses, strict=True):
            by_model = np.full(len(self._ranks), np.nan)
            by_model[self._models] = row
            self._known[key] = by_model

    def losses_with(self, prefix: Sequence[int]) -> FloatArray:
        """The loss of `prefix` and each candidate: float64 (models,), NaN for a model that may not be added."""
        key = self._key(prefix)
        if key not in self._known:
            self.evaluate([key])
        return self._known[key]

    def loss(self, members: Sequence[int]) -> float:
        """The loss of an ensemble."""
        *rest, last = self._key(members)
        return float(self.losses_with(rest)[last])

    def _key(self, members: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(members, key=self._ranks.__getitem__))
