"""What one image costs a network, counted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ensembleflow.models.layers import all_layers

if TYPE_CHECKING:
    import keras

__all__ = ["count_multiply_adds"]


def count_multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of one image's way through a network: its convolutions of any kind, and dense layers.

    A convolution's kernel (height, width, channels / groups, filters) is applied at every place of its output, a
    transposed one's at every place of its input; a dense layer's kernel once. Normalisation, activations, sums and
    pooling are left out, as is usual: together they are a few per cent of a residual network's.

    Args:
        model: a functional model of the `keras` API, channels last.

    Raises:
        TypeError: a layer has weights for each input, as attention has, but is neither a convolution nor dense.
    """
    return sum(_of_layer(layer) for layer in all_layers(model) if _multiplies(layer))


def _multiplies(layer: Any) -> bool:
    return any(len(weight.shape) > 1 for weight in layer.weights)


def _of_layer(layer: Any) -> int:
    import keras

    layers = keras.layers
    a_place = sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
    if isinstance(layer, layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose):
        return a_place * math.prod(layer.input.shape[1:-1])
    at_each_output = (
        *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D),
        *(layers.SeparableConv1D, layers.SeparableConv2D),
    )
    if isinstance(layer, at_each_output):
        return a_place * math.prod(layer.output.shape[1:-1])
    raise TypeError(f"the multiply-adds of a {type(layer).__name__} are not known")
