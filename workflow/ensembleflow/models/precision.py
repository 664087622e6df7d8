"""In which precision the layers of a network compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["dtype_policy"]


@contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Within it, Keras's layers are made with one dtype policy: `float32`, `mixed_float16`, `mixed_bfloat16`."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
