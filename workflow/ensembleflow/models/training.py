"""One epoch of training: shuffled, augmented batches prepared beside one compiled step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ensembleflow.models.augmentation import Augmentation, augment, mix_up
from ensembleflow.models.average import WeightAverage
from ensembleflow.models.batch_statistics import BatchStatistics
from ensembleflow.models.hyperparameters import TrainingHyperparameters
from ensembleflow.models.layers import all_layers
from ensembleflow.models.phases import Phase, freeze, phase_of, scaled_schedule
from ensembleflow.models.schedules import learning_rate_schedule

if TYPE_CHECKING:
    import keras

__all__ = ["Augmentation", "Batch", "EpochResult", "Trainer", "steps_per_epoch", "training_batches"]

_PREPARED_BATCHES = 4


@dataclass(frozen=True)
class EpochResult:
    """Means over one epoch's training images, taken while the weights were changing.

    Attributes:
        loss: cross-entropy plus the L2 term.
        cross_entropy: mean negative log probability of the true class, in nats.
        error: share of images misclassified.
        input_seconds: time in which the step waited for its batches.
        step_seconds: the rest of the epoch's time.
    """

    loss: float
    cross_entropy: float
    error: float
    input_seconds: float
    step_seconds: float


class Batch(NamedTuple):
    """Images to train on.

    Attributes:
        images: uint8 (batch, height, width, channels), or float32 (batch, ...).
        labels: int64 (batch,).
        indices: int64 (batch,): which of the epoch's images they are.
        partners: int64 (batch,): which of the epoch's images are mixed into them; None where none are.
        shares: float32 (batch,): how much of each is the image itself.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    partners: npt.NDArray[np.int64] | None = None
    shares: npt.NDArray[np.float32] | None = None


def training_batches(
    images: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    hyperparameters: TrainingHyperparameters,
    seed: tuple[int, ...],
    threads: int = 1,
    augmentation: Augmentation = augment,
) -> Iterator[Batch]:
    """One epoch's shuffled, augmented batches, prepared by threads a few batches ahead.

    Every random number comes from `seed` and the batch's index, so that an epoch can be made again alone, by any
    number of threads.

    Args:
        images: uint8 (n, height, width, channels) or float32 (n, ...), an array, a memory map or an HDF5 dataset.
        labels: int64 (n,).
        hyperparameters: batch size and augmentation.
        seed: numbers that name the epoch (seed of the study, slot, epoch).
        threads: batches prepared at the same time.
        augmentation: what changes a batch of images.

    Yields:
        Batches, of which the last may be smaller.
    """
    order = np.random.default_rng([*seed, 0]).permutation(len(images))

    def prepare(start: int) -> Batch:
        chosen = np.sort(order[start : start + hyperparameters.batch_size])  # HDF5 reads ascending indices only
        random = np.random.default_rng([*seed, 1 + start])
        augmented = augmentation(images[chosen], hyperparameters, random)
        if not hyperparameters.mixup:
            return Batch(augmented, labels[chosen], chosen)
        mixed, partners, shares = mix_up(augmented, hyperparameters.mixup, random)
        return Batch(mixed, labels[chosen], chosen, chosen[partners], shares)

    starts = iter(range(0, len(images), hyperparameters.batch_size))
    with ThreadPoolExecutor(max_workers=threads) as executor:
        waiting = deque(executor.submit(prepare, start) for start in islice(starts, _PREPARED_BATCHES * threads))
        try:
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(executor.submit(prepare, start) for start in [next(starts, None)] if start is not None)
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def steps_per_epoch(n_images: int, hyperparameters: TrainingHyperparameters) -> int:
    """Updates in an epoch, the last of which may be by a smaller batch."""
    return -(-n_images // hyperparameters.batch_size)


class Trainer:
    """Adam on the cross-entropy of one model, with one compiled step.

    The step is traced once, when the trainer is made, in a fraction of the time of `model.fit`'s own.

    Attributes:
        model: the network; its `optimizer` is Adam, with decoupled weight decay (Loshchilov and Hutter 2019).
        average: of the network's weights, or None.
        batch_statistics: recomputed for what is evaluated, or None where the moving ones are used.

    Args:
        model: an uncompiled model from images to probabilities.
        hyperparameters: learning rate, its schedule, weight decay, batch size and augmentation.
        n_steps: updates of a training that is never stopped, which schedules other than `constant` are laid out for.
        averaged: average the weights.
        batch_statistics: what batch normalisation uses in evaluation; None is its moving averages.
        class_weights: float (classes,): factors of the images' cross-entropies, by class; None leaves them as they are.
        image_weights: float32 (n,): such factors, one for each image of `train_epoch`; None leaves them as they are.
        threads: CPU threads that prepare batches.
        augmentation: what changes a batch of images, each time that they are trained on.
        phases: which layers are trained when; without any, those that the model leaves trainable, always.
        image_dtype: `uint8` or `float32`, the images' type.
        epoch: whose phase the training is in.
    """

    def __init__(
        self,
        model: keras.Model,
        hyperparameters: TrainingHyperparameters,
        n_steps: int,
        *,
        averaged: bool = True,
        batch_statistics: BatchStatistics | None = None,
        class_weights: Sequence[float] | None = None,
        image_weights: npt.NDArray[np.float32] | None = None,
        threads: int = 1,
        augmentation: Augmentation = augment,
        phases: Sequence[Phase] = (),
        epoch: int = 1,
        image_dtype: str = "uint8",
    ) -> None:
        import keras

        from ensembleflow.models.kernels import FusedAdam

        self.model = model
        self.hyperparameters = hyperparameters
        self.threads = threads
        self._augmentation = augmentation
        self._class_weights = class_weights
        self._image_weights = image_weights
        self._phases = phases
        self._image_dtype = image_dtype
        schedule = learning_rate_schedule(hyperparameters.schedule, hyperparameters.learning_rate, n_steps)
        if phases:
            self._learning_rate_factor = keras.Variable(1.0, trainable=False, name="learning_rate_factor")
            schedule = scaled_schedule(schedule, lambda: self._learning_rate_factor)
            # The optimizer knows all that any phase trains.
            freeze(model, frozenset().union(*(phase.trainable for phase in phases)))
        self._adam = FusedAdam(
            schedule,
            weight_decay=hyperparameters.weight_decay or None,
        )
        # A decayed scale or offset would shrink what the network computes, not how it may overfit.
        self._adam.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        optimizer: keras.optimizers.Optimizer = self._adam
        if any(layer.dtype_policy.name == "mixed_float16" for layer in all_layers(model)):
            # Half precision's smallest gradients would be zero.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
        model.compile(optimizer=optimizer, jit_compile=False)
        self.average = WeightAverage(model) if averaged else None
        self.batch_statistics = batch_statistics
        self._phase: Phase | None = None
        if phases:
            self.begin_epoch(epoch)
        else:
            self._step = self._compile_step()

    def begin_epoch(self, epoch: int) -> None:
        """Train from now on what is trained in an epoch, counted from 1; the step is compiled again for a new phase."""
        if not self._phases:
            return
        phase = phase_of(self._phases, epoch)
        if phase is self._phase:
            return
        self._phase = phase
        freeze(self.model, phase.trainable)
        self._learning_rate_factor.assign(phase.learning_rate_factor)
        if self.batch_statistics is not None:
            self.batch_statistics.compile()
        self._step = self._compile_step()

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Within it, the network is what is validated, kept and exported: averaged weights, their batch statistics."""
        with ExitStack() as stack:
            if self.average is not None:
                stack.enter_context(self.average.in_place())
            if self.batch_statistics is not None:
                stack.enter_context(self.batch_statistics.in_place())
            yield

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return float(self._adam.learning_rate)

    def train_epoch(
        self, images: npt.NDArray[Any], labels: npt.NDArray[np.int64], seed: tuple[int, ...]
    ) -> EpochResult:
        """Train one epoch; arguments as of `training_batches`."""
        import tensorflow as tf

        started_at = time.perf_counter()
        input_seconds = 0.0
        totals = tf.zeros(3, dtype=tf.float64)
        batches = training_batches(images, labels, self.hyperparameters, seed, self.threads, self._augmentation)
        while True:
            asked_at = time.perf_counter()
            batch = next(batches, None)
            input_seconds += time.perf_counter() - asked_at
            if batch is None:
                break
            totals += self._step(tf.constant(batch.images), *map(tf.constant, self._targets(batch, labels)))
        loss, cross_entropy, errors = (totals.numpy() / len(images)).tolist()
        step_seconds = time.perf_counter() - started_at - input_seconds
        return EpochResult(loss, cross_entropy, errors, input_seconds, step_seconds)

    def _targets(self, batch: Batch, labels: npt.NDArray[np.int64]) -> list[Any]:
        """What the step takes beside images: labels and weights; of mixed images the partners' too, and the shares."""

        def of(indices: npt.NDArray[np.int64]) -> list[Any]:
            weights = self._image_weights
            return [labels[indices]] if weights is None else [labels[indices], weights[indices]]

        if batch.partners is None:
            return of(batch.indices)
        return [*of(batch.indices), *of(batch.partners), batch.shares]

    def _compile_step(self) -> Any:
        import keras
        import tensorflow as tf

        model, optimizer, adam, average = self.model, self.model.optimizer, self._adam, self.average
        class_weights = None if self._class_weights is None else tf.constant(self._class_weights, tf.float32)
        scale_loss = getattr(optimizer, "scale_loss", lambda loss: loss)

        target = [
            tf.TensorSpec((None,), tf.int64),
            *([] if self._image_weights is None else [tf.TensorSpec((None,), tf.float32)]),
        ]
        mixed = [*target, tf.TensorSpec((None,), tf.float32)] if self.hyperparameters.mixup else []

        def losses(probabilities: Any, labels: Any, *factors: Any) -> tuple[Any, Any]:
            """Each image's cross-entropy, and how much it counts."""
            cross_entropies = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
            weighted = cross_entropies
            if class_weights is not None:
                weighted = cross_entropies * tf.gather(class_weights, labels)
            for factor in factors:
                weighted *= factor
            return cross_entropies, weighted

        @tf.function(
            input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), self._image_dtype), *target, *mixed],
            autograph=False,
            jit_compile=False,
        )
        def step(images: Any, *targets: Any) -> Any:
            labels = targets[0]
            with tf.GradientTape() as tape:
                probabilities = model(images, training=True)
                cross_entropies, weighted = losses(probabilities, *targets[: len(target)])
                if mixed:
                    share = targets[-1]
                    others = losses(probabilities, *targets[len(target) : -1])
                    cross_entropies = share * cross_entropies + (1.0 - share) * others[0]
                    weighted = share * weighted + (1.0 - share) * others[1]
                penalty = sum(model.losses, tf.constant(0.0))
                loss = tf.reduce_mean(weighted) + penalty
                scaled_loss = scale_loss(loss)
            gradients = tape.gradient(scaled_loss, model.trainable_variables)
            n_updates = tf.identity(adam.iterations.value)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            if average is not None:
                average.update(adam.iterations.value, done=adam.iterations.value > n_updates)
            errors = tf.not_equal(tf.argmax(probabilities, axis=-1), labels)
            n_images = tf.cast(tf.shape(labels)[0], tf.float64)
            return tf.stack(
                [
                    tf.cast(loss, tf.float64) * n_images,
                    tf.reduce_sum(tf.cast(cross_entropies, tf.float64)),
                    tf.reduce_sum(tf.cast(errors, tf.float64)),
                ]
            )

        step.get_concrete_function()
        return step
