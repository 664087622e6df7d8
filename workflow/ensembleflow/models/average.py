"""An average of the weights that needs no horizon: it settles whenever a trial stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import keras

__all__ = ["AVERAGE_POWER", "WeightAverage"]

AVERAGE_POWER = 5
"""The exponent γ: the average of t updates weighs the weights after update s by s^γ, about the last sixth of them."""


class WeightAverage:
    """The power-function average of a network's weights, beside the weights that are trained.

    After update t, `average += (1 - (1 - 1/t)^(γ + 1)) * (weights - average)` (Karras et al. 2024, "Analyzing and
    Improving the Training Dynamics of Diffusion Models", section 3.1, with γ = `AVERAGE_POWER`). Batch normalisation's
    moving statistics are averaged too. It is kept in float32, whatever the precision of the computation, and a value
    that is not finite is left out of it.

    Args:
        model: the network; its floating-point variables are averaged.
    """

    def __init__(self, model: keras.Model) -> None:
        import tensorflow as tf

        self._variables = [each for each in model.variables if "float" in str(each.dtype)]
        self._sizes = [int(np.prod(each.shape)) for each in self._variables]
        # One flat variable: an update is three operations instead of three for each of a hundred variables.
        self._average = tf.Variable(self._weights(), trainable=False, name="average")

    def update(self, n_updates: Any, *, done: Any) -> None:
        """Take in the weights after one update; part of the compiled step.

        Args:
            n_updates: updates so far, this one included: an integer scalar.
            done: whether the weights were updated; a loss scale skips updates that are not finite.
        """
        import tensorflow as tf

        kept = tf.pow(1.0 - 1.0 / tf.cast(tf.maximum(n_updates, 1), tf.float32), AVERAGE_POWER + 1.0)
        change = self._weights() - self._average
        share = tf.where(done, 1.0 - kept, 0.0)
        self._average.assign_add(share * tf.where(tf.math.is_finite(change), change, tf.zeros_like(change)))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the average instead of its weights, and these back afterwards, to the last bit."""
        trained = self._weights()
        self._assign(self._average)
        try:
            yield
        finally:
            self._assign(trained)

    def values(self) -> npt.NDArray[np.float32]:
        """The average: float32 (values of all averaged variables,), in the network's order."""
        return np.asarray(self._average.numpy())

    def restore(self, values: npt.NDArray[np.float32]) -> None:
        """Set it to what `values` gave.

        Raises:
            ValueError: of another shape, or not finite.
        """
        if values.shape != tuple(self._average.shape):
            raise ValueError(f"{values.shape} values instead of {tuple(self._average.shape)}")
        if not np.isfinite(values).all():
            raise ValueError(f"{int((~np.isfinite(values)).sum())} values that are not finite")
        self._average.assign(values)

    def _weights(self) -> Any:
        import tensorflow as tf

        return tf.concat([tf.reshape(tf.cast(each.value, tf.float32), [-1]) for each in self._variables], axis=0)

    def _assign(self, flat: Any) -> None:
        import tensorflow as tf

        for variable, values in zip(self._variables, tf.split(flat, self._sizes), strict=True):
            variable.assign(tf.cast(tf.reshape(values, variable.shape), variable.dtype))
