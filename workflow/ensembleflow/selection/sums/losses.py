"""The sums behind a loss, over one block of samples, for many ensembles and candidates at once.

A block is a contiguous run of samples with whatever its kernel needs beside them. Blocks have fixed bounds, so
that a loss does not depend on who summed which of them: the blocks' sums are added in order, in float64. A block may
be summed in pieces, one after the other into the same sums, if each but the last is whole chunks of its kernel's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ensembleflow.models.metrics import SMALLEST_PROBABILITY
from ensembleflow.models.tolerances import OUTSIDE_BY
from ensembleflow.selection.sums.stored import CHUNK_SAMPLES, N_HIGHEST, chunk_of_classes, stored_for_kernels

__all__ = ["GPU_LOSSES", "Block", "Prefixes", "block_type"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# What passes a check in float16 may lie below the bound by half a step of that precision.
_LOWEST_BELOW_ZERO = OUTSIDE_BY * (1 + float(np.finfo(np.float16).eps))


class Prefixes:
    """Ensembles that candidates are tried with, as the kernels take them.

    Args:
        members: the members of each ensemble; a model that is there twice counts twice. May be empty.
    """

    def __init__(self, members: Sequence[Sequence[int]]) -> None:
        self.offsets = np.zeros(len(members) + 1, dtype=np.int64)
        np.cumsum([len(each) for each in members], out=self.offsets[1:])
        self.members = np.array([model for each in members for model in each], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.offsets) - 1


class Block(ABC):
    """The sums of one metric over one block of samples, or a piece of one.

    Args:
        values: probabilities (models, samples, classes), or the true class's (models, samples) where the loss needs
            no more: float16, float32 or float64, C-contiguous along the last axes.
        labels: int64 (samples,).
    """

    sums_are_counts: ClassVar[bool] = False
    """Whether the sums are whole numbers, so that blocks may be added in any order."""

    @abstractmethod
    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None: ...

    @abstractmethod
    def add_sums(self, prefixes: Prefixes, candidates: IntArray, sums: FloatArray) -> None:
        """Add the metric's sums after adding each candidate alone to float64 (prefixes, candidates, terms)."""

    @staticmethod
    def n_terms(n_classes: int) -> int:
        """The sums that the metric is made of."""
        return 1

    @staticmethod
    def chunk_samples(n_classes: int) -> int:
        """How many samples the kernel sums at a time; more of them change the sums' last digits."""
        return chunk_of_classes(n_classes)

    @staticmethod
    def bytes_per_sample(values: npt.NDArray[Any]) -> int:
        """What a block takes in memory for each of its samples.

        Args:
            values: as above; may be without samples.
        """
        return stored_for_kernels(values[:, :0]).itemsize * math.prod((len(values), *values.shape[2:]))


class _CrossEntropyBlock(Block):
    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None:
        self._stored = stored_for_kernels(values)

    def add_sums(self, prefixes: Prefixes, candidates: IntArray, sums: FloatArray) -> None:
        from ensembleflow.selection.sums.kernels import cross_entropy_sums

        cross_entropy_sums(
            self._stored, prefixes.offsets, prefixes.members, candidates, SMALLEST_PROBABILITY, sums[..., 0]
        )

    @staticmethod
    def chunk_samples(n_classes: int) -> int:
        return CHUNK_SAMPLES


class _GpuCrossEntropyBlock(Block):
    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None:
        from ensembleflow.selection.sums import gpu_sums  # seconds, and TensorFlow is not everywhere

        self._gpu_sums, self._stored = gpu_sums, gpu_sums.resident(values)

    def add_sums(self, prefixes: Prefixes, candidates: IntArray, sums: FloatArray) -> None:
        self._gpu_sums.cross_entropy_sums(
            self._stored, prefixes.offsets, prefixes.members, candidates, SMALLEST_PROBABILITY, sums[..., 0]
        )


class _EveryClassBlock(Block):
    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None:
        self._stored, self._labels = stored_for_kernels(values), labels

    @staticmethod
    def bytes_per_sample(values: npt.NDArray[Any]) -> int:
        return Block.bytes_per_sample(values) + np.dtype(np.int64).itemsize


class _BrierBlock(_EveryClassBlock):
    def add_sums(self, prefixes: Prefixes, candidates: IntArray, sums: FloatArray) -> None:
        from ensembleflow.selection.sums.kernels import squared_distance_sums

        squared_distance_sums(self._stored, self._labels, prefixes.offsets, prefixes.members, candidates, sums[..., 0])


class _PredictionBlock(_EveryClassBlock):
    """Predicted classes: what the error and the macro-F1 error are made of."""

    sums_are_counts = True

    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None:
        super().__init__(values, labels)
        shape = (*values.shape[:2], _n_highest(values))
        self._values = np.empty(shape, dtype=self._stored.dtype)
        self._classes = np.empty(shape, dtype=_class_kind(values))
        if shape[-1]:
            from ensembleflow.selection.sums.prediction_kernels import highest_classes

            highest_classes(self._stored, self._values, self._classes)

    def add_sums(self, prefixes: Prefixes, candidates: IntArray, sums: FloatArray) -> None:
        from ensembleflow.selection.sums.prediction_kernels import count_predictions

        count_predictions(
            self._stored,
            self._labels,
            self._values,
            self._classes,
            _LOWEST_BELOW_ZERO,
            prefixes.offsets,
            prefixes.members,
            candidates,
            sums,
        )

    @staticmethod
    def bytes_per_sample(values: npt.NDArray[Any]) -> int:
        each = stored_for_kernels(values[:, :0]).itemsize + _class_kind(values).itemsize
        return _EveryClassBlock.bytes_per_sample(values) + len(values) * _n_highest(values) * each


def _n_highest(values: npt.NDArray[Any]) -> int:
    return N_HIGHEST if values.shape[2] > N_HIGHEST else 0


def _class_kind(values: npt.NDArray[Any]) -> np.dtype[Any]:
    return np.min_scalar_type(values.shape[2] - 1)


class _MacroF1Block(_PredictionBlock):
    def add_sums(self, prefixes: Prefixes, candidates: IntArray, sums: FloatArray) -> None:
        super().add_sums(prefixes, candidates, sums)
        n_classes = self._stored.shape[2]
        sums[..., 2 * n_classes :] += np.bincount(self._labels, minlength=n_classes)

    @staticmethod
    def n_terms(n_classes: int) -> int:
        return 3 * n_classes


_BLOCKS: dict[str, type[Block]] = {
    "cross_entropy": _CrossEntropyBlock,
    "brier": _BrierBlock,
    "error": _PredictionBlock,
    "macro_f1_error": _MacroF1Block,
}
_GPU_BLOCKS: dict[str, type[Block]] = {"cross_entropy": _GpuCrossEntropyBlock}

GPU_LOSSES = tuple(_GPU_BLOCKS)
"""The losses that a GPU can sum."""


def block_type(loss: str, use_gpu: bool = False) -> type[Block]:
    """The kind of block that sums a loss.

    Args:
        loss: a name of `METRICS`.
        use_gpu: keep the values on TensorFlow's device and sum there; for a loss of `GPU_LOSSES`.
    """
    return (_GPU_BLOCKS if use_gpu else _BLOCKS)[loss]
