"""What batch normalisation normalises by once training is over: statistics of images as they are served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ensembleflow.models.layers import all_layers

if TYPE_CHECKING:
    import keras

__all__ = ["RECOMPUTED_FROM_IMAGES", "BatchStatistics"]

RECOMPUTED_FROM_IMAGES = 1024
"""Training images that the statistics are recomputed from, or all where there are fewer."""


class BatchStatistics:
    """Means and variances of batch normalisation, recomputed over images that are not augmented.

    The moving averages that training leaves are those of augmented images. A network is served images as they are: its
    layers' statistics over those, at the weights that it is served with, are what its normalisation should use
    (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", section 3.2, recompute
    them for their average; here without the augmentation).

    The images are the same for every network of a dataset, and the statistics the means over their batches, so that
    computing them again gives the same values.

    Args:
        model: the network; its optimizer and weights are left as they are.
        images: uint8 or float32 (images, ...), those of training: an array, a memory map or an HDF5 dataset.
        batch_size: images per call.
    """

    def __init__(self, model: keras.Model, images: npt.NDArray[Any], batch_size: int) -> None:
        self._model = model
        self._image_dtype = images.dtype
        chosen = np.random.default_rng(0).permutation(len(images))[:RECOMPUTED_FROM_IMAGES]
        self._batches = [
            images[np.sort(chosen[start : start + batch_size])] for start in range(0, len(chosen), batch_size)
        ]
        self.compile()

    def compile(self) -> None:
        """Recompute from now on those layers' statistics that are trainable now: a frozen one keeps its own."""
        import keras

        self._layers = [
            each
            for each in all_layers(self._model)
            if isinstance(each, keras.layers.BatchNormalization) and each.trainable
        ]
        self._moving = [moving for each in self._layers for moving in (each.moving_mean, each.moving_variance)]
        self._step = self._compile_step(self._model)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the recomputed statistics of its present weights, and the moving ones back afterwards."""
        moving = [np.asarray(each.numpy()) for each in self._moving]
        try:
            self._recompute()
            yield
        finally:
            for variable, values in zip(self._moving, moving, strict=True):
                variable.assign(values)

    def _recompute(self) -> None:
        import tensorflow as tf

        n_seen = 0
        for batch in self._batches:
            kept = n_seen / (n_seen + len(batch))
            self._step(tf.constant(batch), tf.constant(kept, tf.float32))
            n_seen += len(batch)

    def _compile_step(self, model: keras.Model) -> Any:
        import tensorflow as tf

        signature = [tf.TensorSpec((None, *model.input_shape[1:]), self._image_dtype), tf.TensorSpec((), tf.float32)]

        @tf.function(input_signature=signature, autograph=False)
        def step(images: Any, kept: Any) -> None:
            with ExitStack() as stack:
                for layer in self._layers:
                    stack.enter_context(_taking_in_batches(layer, kept))
                model(images, training=False)

        return step


@contextmanager
def _taking_in_batches(layer: Any, momentum: Any) -> Iterator[None]:
    """Within it, one layer does as in training whatever the network does: dropout, which is random, stays away."""
    call, momentum_before = layer.call, layer.momentum
    layer.momentum = momentum
    layer.call = lambda inputs, training=None, mask=None: call(inputs, training=True, mask=mask)
    try:
        yield
    finally:
        layer.momentum = momentum_before
        del layer.call
