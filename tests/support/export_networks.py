"""Export small networks of each block and stem, with what they answer to some images.

Run as a file with a folder as its only argument: pytest's own process does not import TensorFlow.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ensembleflow.datasets.standardisation import Standardisation
from ensembleflow.models import build_resnet, configure_tensorflow, export_model
from ensembleflow.models.engines import load_engine
from support.example_hyperparameters import hyperparameters

# Block, activation and side in pixels: images of 72 pixels have the large stem.
NETWORKS = {
    "v1-large": ("v1", "relu", 72),
    "v2-small": ("v2", "elu", 8),
    "next-small": ("next", "relu", 8),
    "next-large": ("next", "tanh", 72),
    "v1-floats": ("v1", "relu", 8),
}
# Of float images: channels far from 0 to 255.
MEANS, DEVIATIONS = np.array([100.0, 0.0, -2e-3]), np.array([3.0, 500.0, 1e-3])
N_IMAGES = 11


def main(folder: Path) -> None:
    configure_tensorflow(1)
    import keras

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    for name, (block, activation, side) in NETWORKS.items():
        shape = (side, side, 3)
        floats = Standardisation(MEANS, DEVIATIONS) if name.endswith("floats") else None
        network = build_resnet(
            hyperparameters(block=block, activation=activation), shape, n_classes=5, standardisation=floats
        )
        for layer in network.layers:
            if "normalization" in layer.name:  # as if trained: means and variances of their own
                layer.set_weights([random.uniform(0.5, 1.5, values.shape) for values in layer.get_weights()])
        images = random.integers(0, 256, (N_IMAGES, *shape), dtype=np.uint8)
        if floats is not None:
            images = random.normal(MEANS, DEVIATIONS, images.shape).astype(np.float32)
        export_model(network, folder / name, images.dtype.name)
        tensorflow = load_engine("tensorflow", folder / name, 1).predict(images, 4)
        np.savez(folder / f"{name}.npz", images=images, keras=network(images), tensorflow=tensorflow)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
