"""The sums behind a loss, over one block of samples, for many ensembles and candidates at once.

A block is a contiguous run of samples with whatever its kernel needs beside them. Blocks have fixed bounds, so
that a loss does not depend on who summed which of them: the blocks' sums are added in order, in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.models.metrics import SMALLEST_PROBABILITY
from ensembleflow.selection.kernels import (
    N_HIGHEST,
    count_predictions,
    cross_entropy_sums,
    highest_classes,
    squared_distance_sums,
    stored_for_kernels,
)

__all__ = ["GPU_LOSSES", "OUTSIDE_BY", "Block", "Prefixes", "make_block"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

OUTSIDE_BY = 1e-3
"""A probability this far outside 0 … 1 is still rounding."""


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
    """The sums of one metric over one block of samples."""

    @abstractmethod
    def sums(self, prefixes: Prefixes, candidates: IntArray) -> FloatArray:
        """The metric's sums after adding each candidate alone: float64 (prefixes, candidates, terms)."""


class _CrossEntropyBlock(Block):
    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None:
        self._stored = stored_for_kernels(values)

    def sums(self, prefixes: Prefixes, candidates: IntArray) -> FloatArray:
        sums = np.zeros((len(prefixes), len(candidates)))
        cross_entropy_sums(self._stored, prefixes.offsets, prefixes.members, candidates, SMALLEST_PROBABILITY, sums)
        return sums[..., None]


class _GpuCrossEntropyBlock(Block):
    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None:
        from ensembleflow.models import gpu_sums  # seconds, and TensorFlow is not everywhere

        self._gpu_sums, self._stored = gpu_sums, gpu_sums.resident(values)

    def sums(self, prefixes: Prefixes, candidates: IntArray) -> FloatArray:
        sums = np.zeros((len(prefixes), len(candidates)))
        self._gpu_sums.cross_entropy_sums(
            self._stored, prefixes.offsets, prefixes.members, candidates, SMALLEST_PROBABILITY, sums
        )
        return sums[..., None]


class _BrierBlock(Block):
    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None:
        self._stored, self._labels = stored_for_kernels(values), labels

    def sums(self, prefixes: Prefixes, candidates: IntArray) -> FloatArray:
        sums = np.zeros((len(prefixes), len(candidates)))
        squared_distance_sums(self._stored, self._labels, prefixes.offsets, prefixes.members, candidates, sums)
        return sums[..., None]


class _PredictionBlock(Block):
    """Predicted classes: what the error and the macro-F1 error are made of."""

    def __init__(self, values: npt.NDArray[Any], labels: IntArray) -> None:
        self._stored, self._labels = stored_for_kernels(values), labels
        kind = np.float64 if self._stored.dtype == np.float64 else np.float32
        self._values = np.empty((*values.shape[:2], N_HIGHEST), dtype=kind)
        self._classes = np.empty((*values.shape[:2], N_HIGHEST), dtype=np.int32)
        highest_classes(self._stored, self._values, self._classes)

    def _counts(self, prefixes: Prefixes, candidates: IntArray) -> tuple[IntArray, IntArray]:
        hits = np.zeros((len(prefixes), len(candidates), self._stored.shape[2]), dtype=np.int64)
        predicted = np.zeros_like(hits)
        count_predictions(
            self._stored,
            self._labels,
            self._values,
            self._classes,
            OUTSIDE_BY,
            prefixes.offsets,
            prefixes.members,
            candidates,
            hits,
            predicted,
        )
        return hits, predicted


class _ErrorBlock(_PredictionBlock):
    def sums(self, prefixes: Prefixes, candidates: IntArray) -> FloatArray:
        hits, _ = self._counts(prefixes, candidates)
        return (len(self._labels) - hits.sum(axis=-1, keepdims=True)).astype(np.float64)


class _MacroF1Block(_PredictionBlock):
    def sums(self, prefixes: Prefixes, candidates: IntArray) -> FloatArray:
        hits, predicted = self._counts(prefixes, candidates)
        labelled = np.bincount(self._labels, minlength=hits.shape[-1])
        return np.concatenate([hits, predicted, np.broadcast_to(labelled, hits.shape)], axis=-1).astype(np.float64)


_BLOCKS: dict[str, Callable[[npt.NDArray[Any], IntArray], Block]] = {
    "cross_entropy": _CrossEntropyBlock,
    "brier": _BrierBlock,
    "error": _ErrorBlock,
    "macro_f1_error": _MacroF1Block,
}
_GPU_BLOCKS: dict[str, Callable[[npt.NDArray[Any], IntArray], Block]] = {"cross_entropy": _GpuCrossEntropyBlock}

GPU_LOSSES = tuple(_GPU_BLOCKS)
"""The losses that a GPU can sum."""


def make_block(loss: str, values: npt.NDArray[Any], labels: IntArray, use_gpu: bool = False) -> Block:
    """The block of a loss.

    Args:
        loss: a name of `METRICS`.
        values: probabilities (models, samples, classes), or the true class's (models, samples) where the loss needs
            no more: float16, float32 or float64, C-contiguous along the last axes.
        labels: int64 (samples,).
        use_gpu: keep the values on TensorFlow's device and sum there; for a loss of `GPU_LOSSES`.
    """
    return (_GPU_BLOCKS if use_gpu else _BLOCKS)[loss](values, labels)
