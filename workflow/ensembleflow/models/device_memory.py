"""Telling that a device's memory is full from other errors."""

from __future__ import annotations

import re

__all__ = ["is_out_of_memory"]

# What CUDA's libraries say when a GPU is full: a context, a handle or a workspace that could not be made, a copy that
# had nowhere to go. TensorFlow passes it on as an InternalError, UnknownError or FailedPreconditionError.
_FULL = re.compile(
    r"out[ _]of[ _]memory|alloc_failed|failed to allocate|create cu(blas|dnn|solver)\w* (handle|instance)"
    r"|without blas support|dnn library initialization failed|dst tensor is not initialized",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a process that uses TensorFlow says that the machine's or the GPU's memory is full."""
    import tensorflow as tf

    if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)):
        return True
    return isinstance(error, (tf.errors.OpError, RuntimeError)) and _FULL.search(str(error)) is not None
