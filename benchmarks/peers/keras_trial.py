"""A trial as a user of Keras would write it: the same network and augmentation, `compile` and `fit`.

Both peers train with this; it leaves what our search leaves of a trial, a `.keras` file, but no checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def train(trial: dict[str, Any], dataset: str, models: str, report: Callable[[int, float], None]) -> None:
    """Train `trial["epochs"]` epochs and save the model; `report` gets each epoch and its validation error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import h5py
    import keras
    import numpy as np
    import tensorflow as tf

    from ensembleflow.models import Hyperparameters, build_resnet
    from ensembleflow.models.augmentation import augment

    # One core per worker, as our search jobs have it.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.backend.clear_session()
    hyperparameters = Hyperparameters.from_dict(trial["hyperparameters"])
    with h5py.File(dataset) as file:
        images, labels, valid_images, valid_labels = (
            file[f"{split}/{name}"][:] for split in ("train", "valid") for name in ("images", "labels")
        )
        n_classes = len(file["class_names"])

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rng = np.random.default_rng(trial["slot"])
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-len(images) // hyperparameters.batch_size)

        def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
            start = number * hyperparameters.batch_size
            chosen = self.order[start : start + hyperparameters.batch_size]
            return augment(images[chosen], hyperparameters, self.rng), labels[chosen]

        def on_epoch_end(self) -> None:
            self.order = self.rng.permutation(len(images))

    class Report(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            report(epoch + 1, 1 - logs["val_accuracy"])

    model = build_resnet(hyperparameters, images.shape[1:], n_classes)
    model.compile(
        keras.optimizers.Adam(hyperparameters.learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(
        Batches(),
        epochs=trial["epochs"],
        validation_data=(valid_images, valid_labels),
        validation_batch_size=256,
        callbacks=[Report()],
        verbose=0,
    )
    model.save(Path(models) / f"trial-{trial['slot']:05d}.keras")
