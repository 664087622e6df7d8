"""Sums of cross-entropies over samples by TensorFlow, on the device that it computes on.

What `ensembleflow.selection.sums.kernels` compiles for the CPU, for true-class probabilities that stay on a GPU. To be
imported once `configure_tensorflow` has been called, for it imports TensorFlow.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ensembleflow.errors import SelectionError

__all__ = ["cross_entropy_sums", "resident"]

# A temporary array of float64 takes 64 MiB; there are about four at a time.
_CHUNK_VALUES = 2**23


def resident(true_class_probability: npt.NDArray[np.floating[Any]]) -> tf.Tensor:
    """Put stored probabilities on the device, where they stay as long as the tensor lives.

    Args:
        true_class_probability: (models, samples), float16, float32 or float64.

    Raises:
        SelectionError: the device has no room for them.
    """
    try:
        return tf.identity(true_class_probability)
    except tf.errors.ResourceExhaustedError:
        raise _no_memory() from None


def cross_entropy_sums(
    stored: tf.Tensor,
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int64],
    smallest: float,
    sums: npt.NDArray[np.float64],
) -> None:
    """Add to `sums` the summed -log of the averages' true-class probabilities (natural logarithm), in float64.

    Args:
        stored: the true class's probabilities (models, samples), from `resident`.
        offsets: prefix p has the members `members[offsets[p]:offsets[p + 1]]`: int64 (prefixes + 1,).
        members: indices of models, int64.
        candidates: indices of models, int64 (candidates,).
        smallest: averages below it count as this.
        sums: float64 (prefixes, candidates).

    Raises:
        SelectionError: the device has no room for the sums.
    """
    n_rows = max(1, len(candidates), int(np.diff(offsets).max(initial=0)))
    length = max(1, _CHUNK_VALUES // n_rows)
    try:
        for start in range(0, stored.shape[1], length):
            sums += _chunk_sums(stored[:, start : start + length], offsets, members, candidates, smallest).numpy()
    except tf.errors.ResourceExhaustedError:
        raise _no_memory() from None


def _chunk_sums(
    stored: tf.Tensor,
    offsets: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int64],
    smallest: float,
) -> tf.Tensor:
    n_samples = int(stored.shape[1])
    rows = tf.cast(tf.gather(stored, candidates), tf.float64)
    found = []
    for start, stop in pairwise(offsets.tolist()):
        total = tf.reduce_sum(tf.cast(tf.gather(stored, members[start:stop]), tf.float64), axis=0)
        size = stop - start + 1
        logarithms = tf.math.log(tf.maximum(rows + total, smallest * size))
        found.append(n_samples * math.log(size) - tf.reduce_sum(logarithms, axis=1))
    return tf.stack(found)


def _no_memory() -> SelectionError:
    return SelectionError(
        "the GPU has too little memory for the selection's samples",
        where="resources.selection.gpus",
        found="out of memory",
        hint="set resources.selection.gpus: 0, or give the job a GPU with more memory",
    )
