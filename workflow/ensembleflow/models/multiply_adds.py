"""What one image costs a network, counted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

__all__ = ["count_multiply_adds"]


def count_multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of one image's way through a network: its convolutions, with groups or without, and dense layers.

    A convolution's kernel (height, width, channels / groups, filters) is applied at every place of its output; a dense
    layer's kernel once. Normalisation, activations, sums and pooling are left out, as is usual: together they are a few
    per cent of a residual network's.

    Args:
        model: a functional model of the `keras` API, channels last.

    Raises:
        TypeError: a layer has a kernel but is neither a two-dimensional convolution nor dense.
    """
    return sum(_of_layer(layer) for layer in model.layers if hasattr(layer, "kernel"))


def _of_layer(layer: Any) -> int:
    import keras

    a_place = math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Dense):
        return a_place * math.prod(layer.output.shape[1:-1])
    if type(layer).__name__ in ("Conv2D", "GroupedConv2D"):
        return a_place * math.prod(layer.output.shape[1:3])
    raise TypeError(f"the multiply-adds of a {type(layer).__name__} are not known")
