"""Where the stored probabilities are, and who holds which part of them.

The samples are cut into blocks of fixed bounds; a partition is a run of blocks that one worker holds for the whole
selection, or reads a piece at a time for each call. A partition travels without its data: whoever evaluates it reads
its samples itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ensembleflow.models.metrics import METRICS
from ensembleflow.selection.sums.checks import Ranges, joined_ranges, ranges_of
from ensembleflow.selection.sums.losses import Block, Prefixes, block_type

__all__ = ["MemorySource", "Partition", "Source", "block_bounds", "partitions_of"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Part of a sum's last digits, hence never derived from memory or cores.
_BLOCK_VALUES = 2**20
# Smaller pieces would take more time to find than to read.
_LEAST_PIECE_BYTES = 2**24


class Source(Protocol):
    """Stored probabilities of the validation samples."""

    @property
    def n_samples(self) -> int:
        """Samples of the validation split."""

    @property
    def n_classes(self) -> int:
        """Classes."""

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
        piece_bytes: what samples that are not held may take at a time; up to 16 MiB are taken anyway.
    """

    def __init__(
        self,
        source: Source,
        loss: str,
        bounds: Sequence[tuple[int, int]],
        hold: bool = True,
        use_gpu: bool = False,
        piece_bytes: int = 0,
    ) -> None:
        self.source, self.loss, self.bounds, self.hold, self.use_gpu = source, loss, list(bounds), hold, use_gpu
        self.piece_bytes = piece_bytes
        self._held: list[Block] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "source": self.source.part(self.bounds[0][0], self.bounds[-1][1]), "_held": None}

    @property
    def n_bytes(self) -> int:
        """What its samples take in memory where they are held."""
        return sum(stop - start for start, stop in self.bounds) * self._bytes_per_sample

    def ranges(self) -> Ranges:
        """What the first look at all samples finds; they are held from then on."""
        held: list[Block] = []
        ranges = reduce(
            lambda before, here: joined_ranges([before, here]),
            (self._look(start, stop, held) for _, start, stop in self._pieces()),
        )
        if self.hold:
            self._held = held
        return ranges

    def block_sums(self, prefixes: Prefixes, candidates: IntArray) -> FloatArray:
        """The sums of each block, or of all blocks together where they are counts.

        Returns:
            float64 (blocks or 1, prefixes, candidates, terms).
        """
        kind, pieces = self._block_type, self._pieces()
        if self.hold and self._held is None:
            self._held = [self._read(start, stop) for _, start, stop in pieces]
        n_sums = 1 if kind.sums_are_counts else len(self.bounds)
        sums = np.zeros((n_sums, len(prefixes), len(candidates), kind.n_terms(self.source.n_classes)))
        for number, (place, start, stop) in enumerate(pieces):
            into = sums[0 if kind.sums_are_counts else place]
            if self._held is not None:
                self._held[number].add_sums(prefixes, candidates, into)
            else:
                # Without a name, under which a piece would stay in memory while the next one is read.
                self._read(start, stop).add_sums(prefixes, candidates, into)
        return sums

    @property
    def _block_type(self) -> type[Block]:
        return block_type(self.loss, self.use_gpu)

    @property
    def _bytes_per_sample(self) -> int:
        start = self.bounds[0][0]
        no_values, _ = self.source.read(start, start)
        return self._block_type.bytes_per_sample(no_values)

    def _pieces(self) -> list[tuple[int, int, int]]:
        """What is read at a time: the block's place among the bounds, its first and last-plus-one samples."""
        if self.hold:
            return [(place, start, stop) for place, (start, stop) in enumerate(self.bounds)]
        n_samples = max(self.piece_bytes, _LEAST_PIECE_BYTES) // self._bytes_per_sample
        chunk = self._block_type.chunk_samples(self.source.n_classes)
        length = max(1, n_samples // chunk) * chunk
        return [
            (place, first, min(first + length, stop))
            for place, (start, stop) in enumerate(self.bounds)
            for first in range(start, stop, length)
        ]

    def _read(self, start: int, stop: int) -> Block:
        return self._block_type(*self.source.read(start, stop))

    def _look(self, start: int, stop: int, held: list[Block]) -> Ranges:
        values, labels = self.source.read(start, stop)
        if self.hold:
            held.append(self._block_type(values, labels))
        return ranges_of(values, labels, self.source.n_classes, start)


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
        memory_bytes: what all partitions together may hold; one that takes more than its share reads its samples for
            each call, in pieces of that size.
        block_samples: another length of blocks, for tests.
        use_gpu: hold all samples on a GPU instead, and sum there; for a loss of `GPU_LOSSES`.
    """
    bounds = block_bounds(source.n_samples, source.n_classes, loss, block_samples)
    n = min(n_partitions, len(bounds))
    edges = [round(i * len(bounds) / n) for i in range(n + 1)]
    parts = [Partition(source, loss, bounds[a:b], use_gpu=use_gpu) for a, b in pairwise(edges)]
    if memory_bytes is not None and not use_gpu:
        for part in parts:
            part.piece_bytes = memory_bytes // n
            part.hold = part.n_bytes <= part.piece_bytes
    return parts
