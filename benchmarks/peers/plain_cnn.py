"""What one person writes in an hour: a plain convolutional network in Keras, trained as often as the time allows.

python peers/plain_cnn.py DATASET.h5 RESULT.json '{"cpu_seconds": 600, "epochs": 30, "seed": 0}'

Three pairs of convolutions with batch normalisation, the image halved between them; Adam with a cosine schedule, light
augmentation, the best settings found by hand on both data sets. The networks differ by their seed alone. Another is
begun as long as it would end in time, judged by the slowest one so far, and the answers are the mean of them all.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import h5py
import keras
import numpy as np
import tensorflow as tf
from judging import judge

FILTERS = (32, 64, 128)
BATCH_SIZE = 64
LEARNING_RATE = 2e-3


def main(dataset_h5: str, result_json: str, options: dict[str, Any]) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with h5py.File(dataset_h5, "r", locking=False) as file:
        (images, labels), (test_images, test_labels) = (
            (file[split]["images"][...].astype("float32") / 255, file[split]["labels"][...].astype("int64"))
            for split in ("train", "test")
        )
    probabilities: list[np.ndarray] = []
    slowest = 0.0
    while time.process_time() + slowest < options["cpu_seconds"] or not probabilities:
        started = time.process_time()
        keras.utils.set_random_seed(1000 * options["seed"] + len(probabilities))
        network = plain_network(images.shape[1:], int(labels.max()) + 1)
        steps = options["epochs"] * -(-len(images) // BATCH_SIZE)
        schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
        network.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
        network.fit(images, labels, batch_size=BATCH_SIZE, epochs=options["epochs"], verbose=0)
        probabilities.append(np.asarray(network.predict(test_images, batch_size=500, verbose=0), np.float64))
        slowest = max(slowest, time.process_time() - started)
        error = judge(probabilities[-1], test_labels)["error"]
        print(f"network {len(probabilities)}: {100 * error:.2f} %, {slowest:.0f} CPU-s", flush=True)
    answers = {
        "plain CNN": {"networks": 1, **judge(probabilities[0], test_labels)},
        "plain CNNs, mean": {"networks": len(probabilities), **judge(np.mean(probabilities, axis=0), test_labels)},
    }
    Path(result_json).write_text(json.dumps(answers))


def plain_network(image_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    layers = keras.layers
    inputs = x = keras.Input(image_shape)
    x = layers.RandomTranslation(0.05, 0.05, fill_mode="nearest")(x)
    x = layers.RandomRotation(0.02, fill_mode="nearest")(x)
    for stage, filters in enumerate(FILTERS):
        if stage:
            x = layers.MaxPooling2D()(x)
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization()(x)
            x = layers.Activation("relu")(x)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax")(x))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
