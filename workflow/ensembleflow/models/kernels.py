"""Keras's own layers and optimizer on TensorFlow's fused kernels.

Same weights, same configuration, same results within rounding as their parents, which Keras composes of many small
operations: each of those is traced anew for every network and costs a kernel launch in every step. On another backend
they are their parents.
"""

from __future__ import annotations

import functools
from typing import Any

import keras

__all__ = ["FusedAdam", "FusedBatchNormalization", "GroupedConv2D"]


def _on_tensorflow() -> bool:
    return bool(keras.backend.backend() == "tensorflow")


@keras.saving.register_keras_serializable(package="ensembleflow")
class GroupedConv2D(keras.layers.Conv2D):
    """A `keras.layers.Conv2D` with groups that calls TensorFlow's own grouped kernel.

    Keras's TensorFlow backend compiles every grouped convolution with XLA, which on a CPU makes a training
    step several times slower than the kernel that TensorFlow has for it, and is compiled anew for every
    batch size. On processors where TensorFlow does without oneDNN, by default those without AVX-512, that
    kernel has no gradient: there the same sums are those of a depthwise convolution.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve (batch, height, width, channels) with the grouped kernel."""
        if not _on_tensorflow() or self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        how = {"padding": self.padding.upper(), "dilations": self.dilation_rate}
        if self.groups == 1 or _has_grouped_gradient():
            return tf.nn.conv2d(inputs, kernel, strides=self.strides, **how)
        height, width, n_inputs, n_outputs = kernel.shape  # of one group's inputs, and of all outputs
        n_outputs //= self.groups
        kernel = tf.reshape(kernel, (height, width, n_inputs, self.groups, n_outputs))
        kernel = tf.reshape(tf.transpose(kernel, (0, 1, 3, 2, 4)), (height, width, self.groups * n_inputs, n_outputs))
        products = tf.nn.depthwise_conv2d(inputs, kernel, strides=(1, *self.strides, 1), **how)
        shape = tf.shape(products)
        products = tf.reshape(products, (*tf.unstack(shape[:3]), self.groups, n_inputs, n_outputs))
        return tf.reshape(tf.reduce_sum(products, axis=4), (*tf.unstack(shape[:3]), self.groups * n_outputs))


@functools.cache
def _has_grouped_gradient() -> bool:
    import tensorflow as tf

    sizes, how = (3, 3, 2, 4), {"strides": (1, 1, 1, 1), "padding": "SAME"}
    # Outside of the network's graph, and so beside its tapes too.
    with tf.init_scope():
        images = tf.ones((1, 3, 3, 4))
        try:
            tf.raw_ops.Conv2DBackpropFilter(input=images, filter_sizes=sizes, out_backprop=images, **how)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


@keras.saving.register_keras_serializable(package="ensembleflow")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """A `keras.layers.BatchNormalization` over the channels of (batch, height, width, channels), trained by one kernel.

    The moving variance averages the batches' biased variances, as Keras's does; the kernel's own is unbiased.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise; in training with the batch's mean and variance, which the moving averages then take in."""
        # Not for predictions: TensorFlow's graph optimiser fuses the kernel with a tanh or elu after it into one that
        # CPUs do not have.
        if not _on_tensorflow() or mask is not None or not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=tf.cast(self.gamma.value, tf.float32),
            offset=tf.cast(self.beta.value, tf.float32),
            mean=tf.zeros((0,)),
            variance=tf.zeros((0,)),
            epsilon=self.epsilon,
            is_training=True,
        )
        shape = tf.shape(inputs)
        n_values = tf.cast(shape[0] * shape[1] * shape[2], tf.float32)
        biased = variance * ((n_values - 1.0) / n_values)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, biased)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="ensembleflow")
class FusedAdam(keras.optimizers.Adam):
    """A `keras.optimizers.Adam` whose update of a variable is one kernel instead of twenty operations."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Apply one gradient for each variable."""
        if _on_tensorflow():
            import tensorflow as tf

            step = tf.cast(self.iterations.value + 1, tf.float32)
            self._beta_powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        return super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its two moments in place."""
        if not _on_tensorflow() or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index = self._get_variable_index(variable)
        # Keras hands over TensorFlow's variable, and keeps the moments as its own.
        handles = [variable.handle, self._momentums[index].value.handle, self._velocities[index].value.handle]
        beta_1_power, beta_2_power = self._beta_powers
        tf.raw_ops.ResourceApplyAdam(
            var=handles[0],
            m=handles[1],
            v=handles[2],
            beta1_power=beta_1_power,
            beta2_power=beta_2_power,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
