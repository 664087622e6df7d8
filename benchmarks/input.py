"""What limits a training's input: reading, augmenting or the step itself, side by side.

    python benchmarks/input.py

For images of 32×32×3 and 224×224×3, on one core and in one run: images/s of decoding image files (PNG and JPEG, as they
are read once, when the dataset is prepared), of reading batches from the dataset's file, of augmenting them (ours, and
with Keras's own operation for the same transforms, which it was before), and of a training step of a residual network;
medians over repeats. Then which of the two that run side by side in a training, input or step, limits it on 1, 8 and 16
cores: batches are prepared by as many threads as there are cores, so that the input's speed is that of a core times the
cores, and the step's on a CPU at best as well; on a GPU the step's is measured as it is.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.models import Hyperparameters, Trainer, augment, build_resnet, configure_tensorflow, device_name
from ensembleflow.models.augmentation import random_affines

HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "l2": 1e-5,
    "block": "v1",
    "activation": "relu",
    "stem_filters": 16,
    "stage_filters": 16,
    **{f"blocks_stage_{stage}": 1 for stage in range(1, 5)},
    "max_zoom": 0.1,
    "max_translation": 0.1,
    "max_shear": 0.1,
    "max_channel_shift": 0.05,
    "max_rotation_degrees": 15,
}
CORES = (1, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[32, 224], help="of the images, in pixels")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--gpu", action="store_true", help="compute the step on a GPU")
    arguments = parser.parse_args()
    configure_tensorflow(1, use_gpu=arguments.gpu, training=True)
    with tempfile.TemporaryDirectory() as folder:
        for side in arguments.sides:
            report(side, arguments.repeats, Path(folder))


def report(side: int, repeats: int, folder: Path) -> None:
    """Print one size's speeds, and what limits it."""
    batch_size = 32 if side > 64 else 64
    dataset = folder / f"images-{side}.h5"
    synthetic = {"n_images": 8 * batch_size, "image_shape": [side, side, 3], "n_classes": 10}
    prepare_dataset(DatasetConfig(name="images", source="synthetic", synthetic=synthetic), dataset)
    hp = Hyperparameters(**HYPERPARAMETERS, batch_size=batch_size)
    with open_dataset(dataset) as data:
        stored = data.image_array("train")
        images = np.asarray(stored[:batch_size])
        labels = np.zeros(batch_size, np.int64)
        trainer = Trainer(build_resnet(hp, (side, side, 3), data.n_classes), hp, 100)
        encoded = {name: [_encoded(image, name) for image in images] for name in ("PNG", "JPEG")}
        rng = np.random.default_rng(0)
        places = np.arange(0, len(stored), max(1, len(stored) // batch_size))[:batch_size]
        work: dict[str, Callable[[], Any]] = {
            "decode PNG": lambda: [_decoded(each) for each in encoded["PNG"]],
            "decode JPEG": lambda: [_decoded(each) for each in encoded["JPEG"]],
            "read from the dataset's file": lambda: stored[places],
            "augment": lambda: augment(images, hp, rng),
            "augment, Keras's operation": lambda: _keras_augment(images, hp, rng),
            f"training step on {device_name()}": lambda: _step(trainer, images, labels),
        }
        speeds = {name: batch_size / _median_seconds(each, repeats) for name, each in work.items()}
    print(f"{side}x{side}x3, batches of {batch_size}, images/s on one core:")
    for name, speed in speeds.items():
        print(f"  {name:32} {speed:10,.0f}")
    *_, step = speeds.values()
    on_gpu = "cpu" not in device_name().lower()
    each_input = 1 / (1 / speeds["read from the dataset's file"] + 1 / speeds["augment"])
    for cores in CORES:
        step_speed = step if on_gpu else step * cores
        slower = "the input" if each_input * cores < step_speed else "the step"
        print(f"  on {cores:2} cores: input {each_input * cores:10,.0f}, step {step_speed:10,.0f}: {slower} limits")


def _step(trainer: Trainer, images: np.ndarray, labels: np.ndarray) -> None:
    import tensorflow as tf

    np.asarray(trainer._step(tf.constant(images), tf.constant(labels)))


def _median_seconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        started_at = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_at)
    return statistics.median(seconds)


def _encoded(image: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def _decoded(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def _keras_augment(images: np.ndarray, hp: Hyperparameters, rng: np.random.Generator) -> np.ndarray:
    """The same transforms by `keras.ops.image.affine_transform`, in float32."""
    import keras

    matrices = random_affines(len(images), images.shape[1:], hp, rng)
    shift = rng.uniform(-hp.max_channel_shift, hp.max_channel_shift, (len(images), 1, 1, images.shape[-1])) * 255.0
    with keras.device("cpu"):
        moved = keras.ops.image.affine_transform(
            images.astype(np.float32), matrices, interpolation="bilinear", fill_mode="nearest"
        )
        moved = np.asarray(keras.ops.convert_to_numpy(moved)) + shift.astype(np.float32)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
