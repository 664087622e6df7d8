"""Grouped convolutions at the speed of plain ones."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["GroupedConv2D"]


@keras.saving.register_keras_serializable(package="ensembleflow")
class GroupedConv2D(keras.layers.Conv2D):
    """A `keras.layers.Conv2D` with groups that calls TensorFlow's own grouped kernel.

    Keras's TensorFlow backend compiles every grouped convolution with XLA, which on a CPU makes a training
    step several times slower than the kernel that TensorFlow has for it, and is compiled anew for every
    batch size. Same weights, same result within rounding; on other backends it is the plain layer.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve (batch, height, width, channels) with the grouped kernel."""
        if keras.backend.backend() != "tensorflow" or self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        return tf.nn.conv2d(
            inputs, kernel, strides=self.strides, padding=self.padding.upper(), dilations=self.dilation_rate
        )
