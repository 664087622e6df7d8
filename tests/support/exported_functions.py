"""Small exported functions whose answers are known, made by another process: pytest's own never imports TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

__all__ = ["IMAGE_SHAPE", "Exported", "export"]

IMAGE_SHAPE = (8, 8, 1)
N_CLASSES = 10

_EXPORT = """
import sys
sys.modules["keras"] = None
import numpy as np
import tensorflow as tf

folder = sys.argv[1]


def export(name, weights, most_images):
    module = tf.Module()
    module.weights = [tf.Variable(weights)]

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.uint8, name="images")])
    def serve(images):
        tf.debugging.assert_less_equal(tf.shape(images)[0], most_images, "out of pretended memory")
        flat = tf.reshape(tf.cast(images, tf.float32), (-1, 64)) / 255.0
        return tf.nn.softmax(flat @ module.weights[0])

    module.serve = serve
    tf.saved_model.save(module, f"{folder}/{name}", signatures={"serving_default": serve})


for name, weights in np.load(f"{folder}/weights.npz").items():
    export(name, weights, 64 if name == "trial-00002" else 10**6)
"""


class Exported:
    """A folder of exported functions, and what each must answer.

    `trial-00002` fails when it is given more than 64 images at once.
    """

    models = ("trial-00000", "trial-00001", "trial-00002")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        random = np.random.default_rng(0)
        self.weights = {model: random.normal(size=(64, N_CLASSES)).astype(np.float32) for model in self.models}

    def answers(self, model: str, images: np.ndarray) -> np.ndarray:
        logits = images.reshape(len(images), 64).astype(np.float64) / 255 @ self.weights[model]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def average(self, images: np.ndarray, models: tuple[str, ...] = models) -> np.ndarray:
        return np.mean([self.answers(model, images) for model in models], axis=0)


def export(folder: Path) -> Exported:
    made = Exported(folder)
    np.savez(folder / "weights.npz", **made.weights)
    subprocess.run([sys.executable, "-c", _EXPORT, str(folder)], check=True, capture_output=True, timeout=300)
    return made
