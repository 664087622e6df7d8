"""Where the stored probabilities are, and who holds which part of them.

The samples are cut into blocks of fixed bounds; a partition is a run of blocks that one worker holds for the whole
selection. A partition travels without its data: whoever evaluates it reads its samples itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ensembleflow.models.metrics import METRICS
from ensembleflow.selection.checks import Ranges, joined_ranges, ranges_of
from ensembleflow.selection.losses import Block, Prefixes, make_block

__all__ = ["MemorySource", "Partition", "Source", "block_bounds", "partitions_of"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Part of a sum's last digits, hence never derived from memory or cores.
_BLOCK_VALUES = 2**20


class Source(Protocol):
    """Stored probabilities of the validation samples."""

    @property
    def n_samples(self) -> int:
        """Samples of the validation split."""

    @property
    def n_classes(self) -> int:
        """Classes."""

    @property
    def bytes_per_sample(self) -> int:
        """What one sample of all models takes."""

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[Any], IntArray]:
        """Stored probabilities (models, samples[, classes]) and labels (samples,) of some samples."""

    def part(self, start: int, stop: int) -> Source:
        """What has to travel to whoever reads only these samples; they keep their numbers."""


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Probabilities in this process's memory.

    Args:
        values: (models, samples, classes), or the true class's (models, samples).
        labels: int64 (samples,).
        n_classes: classes.
        first_sample: the number of the first sample that is here.
    """

    values: npt.NDArray[Any]
    labels: IntArray
    n_classes: int
    first_sample: int = 0

    @property
    def n_samples(self) -> int:
        """Samples."""
        return len(self.labels)

    @property
    def bytes_per_sample(self) -> int:
        """What one sample of all models takes."""
        return self.values.nbytes // max(1, len(self.labels))

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[Any], IntArray]:
        """Some samples, contiguous: the whole array as it is, a part of it as a copy."""
        here = slice(start - self.first_sample, stop - self.first_sample)
        return np.ascontiguousarray(self.values[:, here]), self.labels[here]

    def part(self, start: int, stop: int) -> MemorySource:
        """A source of these samples alone."""
        return MemorySource(*self.read(start, stop), self.n_classes, start)


def block_bounds(n_samples: int, n_classes: int, loss: str, block_samples: int | None = None) -> list[tuple[int, int]]:
    """First and last-plus-one sample of each block.

    Args:
        n_samples: of the validation split.
        n_classes: of the labels.
        loss: a name of `METRICS`; losses that need every class have shorter blocks.
        block_samples: another length than the usual one, for tests.
    """
    length = block_samples or max(1024, _BLOCK_VALUES // (n_classes if METRICS[loss].needs_all_classes else 1))
    return [(start, min(start + length, n_samples)) for start in range(0, n_samples, length)]


class Partition:
    """A run of blocks, and the sums of a loss over them.

    Args:
        source: where the probabilities are; pickled with the partition.
        loss: a name of `METRICS`.
        bounds: the blocks' first and last-plus-one samples, in order.
        hold: keep the samples in memory once read, instead of reading them for each call.
        use_gpu: keep them on a GPU, and sum there; for a loss of `GPU_LOSSES`.
    """

    def __init__(
        self,
        source: Source,
        loss: str,
        bounds: Sequence[tuple[int, int]],
        hold: bool = True,
        use_gpu: bool = False,
    ) -> None:
        self.source, self.loss, self.bounds, self.hold, self.use_gpu = source, loss, list(bounds), hold, use_gpu
        self._held: list[Block] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "source": self.source.part(self.bounds[0][0], self.bounds[-1][1]), "_held": None}

    @property
    def n_bytes(self) -> int:
        """What its samples take in memory."""
        return sum(stop - start for start, stop in self.bounds) * self.source.bytes_per_sample

    def ranges(self) -> Ranges:
        """What the first look at all samples finds; they are held from then on."""
        found: list[Ranges] = []
        blocks = self._read(found)
        if self.hold:
            self._held = list(blocks)
        else:
            deque(blocks, maxlen=0)
        return joined_ranges(found)

    def block_sums(self, prefixes: Prefixes, candidates: IntArray) -> FloatArray:
        """The sums of each block: float64 (blocks, prefixes, candidates, terms)."""
        return np.stack([block.sums(prefixes, candidates) for block in self._blocks()])

    def _blocks(self) -> Iterator[Block] | list[Block]:
        if not self.hold:
            return self._read()
        if self._held is None:
            self._held = list(self._read())
        return self._held

    def _read(self, found: list[Ranges] | None = None) -> Iterator[Block]:
        for start, stop in self.bounds:
            values, labels = self.source.read(start, stop)
            if found is not None:
                found.append(ranges_of(values, labels, self.source.n_classes, start))
            yield make_block(self.loss, values, labels, self.use_gpu)


def partitions_of(
    source: Source,
    loss: str,
    n_partitions: int,
    memory_bytes: int | None = None,
    block_samples: int | None = None,
    use_gpu: bool = False,
) -> list[Partition]:
    """Cut the samples into partitions of nearly equal numbers of blocks; fewer where there are not enough blocks.

    Args:
        source: where the probabilities are.
        loss: a name of `METRICS`.
        n_partitions: how many workers there are.
        memory_bytes: what all partitions together may hold; each beyond its share reads its samples for each call.
        block_samples: another length of blocks, for tests.
        use_gpu: hold all samples on a GPU instead, and sum there; for a loss of `GPU_LOSSES`.
    """
    bounds = block_bounds(source.n_samples, source.n_classes, loss, block_samples)
    n = min(n_partitions, len(bounds))
    edges = [round(i * len(bounds) / n) for i in range(n + 1)]
    parts = [Partition(source, loss, bounds[a:b], use_gpu=use_gpu) for a, b in pairwise(edges)]
    if memory_bytes is not None and not use_gpu:
        for part in parts:
            part.hold = part.n_bytes <= memory_bytes / n
    return parts
