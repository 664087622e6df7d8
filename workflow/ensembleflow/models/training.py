"""One epoch of training: shuffled, augmented batches prepared beside one compiled step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ensembleflow.models.augmentation import augment
from ensembleflow.models.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    import keras

__all__ = ["EpochResult", "Trainer", "training_batches"]

_PREPARED_BATCHES = 4


@dataclass(frozen=True)
class EpochResult:
    """Means over one epoch's training images, taken while the weights were changing.

    Attributes:
        loss: cross-entropy plus the L2 term.
        cross_entropy: mean negative log probability of the true class, in nats.
        error: share of images misclassified.
    """

    loss: float
    cross_entropy: float
    error: float


def training_batches(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    hyperparameters: Hyperparameters,
    seed: tuple[int, ...],
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """One epoch's shuffled, augmented batches, prepared by a thread a few batches ahead.

    Every random number comes from `seed` and the batch's index, so that an epoch can be made again alone.

    Args:
        images: uint8 (n, height, width, channels), an array or an HDF5 dataset.
        labels: int64 (n,).
        hyperparameters: batch size and augmentation.
        seed: numbers that name the epoch (seed of the study, slot, epoch).

    Yields:
        Pairs of images (batch, height, width, channels) and labels (batch,); the last pair may be smaller.
    """
    order = np.random.default_rng([*seed, 0]).permutation(len(images))
    starts = range(0, len(images), hyperparameters.batch_size)

    def prepare(start: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        chosen = np.sort(order[start : start + hyperparameters.batch_size])  # HDF5 reads ascending indices only
        return augment(images[chosen], hyperparameters, np.random.default_rng([*seed, 1 + start])), labels[chosen]

    with ThreadPoolExecutor(max_workers=1) as executor:
        waiting = [executor.submit(prepare, start) for start in starts[:_PREPARED_BATCHES]]
        for upcoming in range(len(waiting), len(starts) + len(waiting)):
            batch = waiting.pop(0).result()
            if upcoming < len(starts):
                waiting.append(executor.submit(prepare, starts[upcoming]))
            yield batch


class Trainer:
    """Adam on the cross-entropy of one model, with one compiled step.

    The step is traced once, which on a CPU takes a fifth of the time of `model.fit`'s own.

    Attributes:
        model: the network; its `optimizer` is Adam, so that saving the model saves the optimizer's state.
    """

    def __init__(self, model: keras.Model, hyperparameters: Hyperparameters) -> None:
        """Args: an uncompiled model, or one loaded from a checkpoint, whose optimizer goes on."""
        import keras

        self.model = model
        self.hyperparameters = hyperparameters
        if getattr(model, "optimizer", None) is None:
            model.compile(optimizer=keras.optimizers.Adam(hyperparameters.learning_rate), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        self._step = self._compile_step()

    def train_epoch(
        self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], seed: tuple[int, ...]
    ) -> EpochResult:
        """Train one epoch; arguments as of `training_batches`."""
        import tensorflow as tf

        totals = tf.zeros(3, dtype=tf.float64)
        for batch_images, batch_labels in training_batches(images, labels, self.hyperparameters, seed):
            totals += self._step(tf.constant(batch_images), tf.constant(batch_labels))
        loss, cross_entropy, errors = (totals.numpy() / len(images)).tolist()
        return EpochResult(loss=loss, cross_entropy=cross_entropy, error=errors)

    def _compile_step(self) -> Any:
        import keras
        import tensorflow as tf

        model, optimizer = self.model, self.model.optimizer
        regularized = [
            (layer.kernel, layer.kernel_regularizer)
            for layer in model.layers
            if getattr(layer, "kernel_regularizer", None) is not None
        ]

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8),
                tf.TensorSpec((None,), tf.int64),
            ],
            autograph=False,
            jit_compile=False,
        )
        def step(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                probabilities = model(images, training=True)
                cross_entropies = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
                penalty = sum((regularizer(kernel) for kernel, regularizer in regularized), tf.constant(0.0))
                loss = tf.reduce_mean(cross_entropies) + penalty
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            errors = tf.not_equal(tf.argmax(probabilities, axis=-1), labels)
            n_images = tf.cast(tf.shape(labels)[0], tf.float64)
            return tf.stack(
                [
                    tf.cast(loss, tf.float64) * n_images,
                    tf.reduce_sum(tf.cast(cross_entropies, tf.float64)),
                    tf.reduce_sum(tf.cast(errors, tf.float64)),
                ]
            )

        return step
