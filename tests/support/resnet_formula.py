"""Table 5's networks by hand: parameters and multiply-adds from the hyperparameters alone, without building any.

`python tests/support/resnet_formula.py` compares 224x224 with 32x32 images at random points of the paper's space.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensembleflow.config import IntRange, SpaceConfig, load_config
from ensembleflow.models import Hyperparameters

CONFIGS = Path(__file__).resolve().parents[2] / "config"
LARGE, SMALL = 224, 32


@dataclass
class Count:
    """What one network is made of: parameters, those among them that are kernels, and multiply-adds an image."""

    parameters: int = 0
    kernels: int = 0
    multiply_adds: int = 0

    def convolution(self, side: int, kernel: int, inputs: int, filters: int, groups: int = 1) -> None:
        """A convolution without bias, at each of side x side places."""
        weights = kernel * kernel * (inputs // groups) * filters
        self.parameters += weights
        self.kernels += weights
        self.multiply_adds += weights * side * side

    def normalisation(self, channels: int) -> None:
        """Scale, shift, mean and variance of each channel."""
        self.parameters += 4 * channels


def count_network(hp: Hyperparameters, image_side: int, channels: int, n_classes: int) -> Count:
    """Count the network of `hp` for square images, block by block as the papers draw them."""
    count = Count()
    large = image_side > 64
    side = image_side // 2 if large else image_side
    count.convolution(side, 7 if large else 3, channels, hp.stem_filters)
    inputs = hp.stem_filters
    if hp.block != "v2":
        count.normalisation(inputs)
    for stage in range(4):
        filters = hp.stage_filters * 2**stage
        for block in range(hp.stage_blocks[stage]):
            stride = 2 if stage > 0 and block == 0 else 1
            side_before, side = side, side // stride
            if stride == 2 or inputs != filters:
                count.convolution(side, 1, inputs, filters)  # the shortcut's projection
            if hp.block == "v1":
                for channels_in in (inputs, filters):
                    count.convolution(side, 3, channels_in, filters)
                    count.normalisation(filters)
            elif hp.block == "v2":
                for channels_in in (inputs, filters):
                    count.normalisation(channels_in)
                    count.convolution(side, 3, channels_in, filters)
            else:
                groups = max(1, round(hp.stage_filters / 4))
                width = groups * 4 * 2**stage
                count.convolution(side_before, 1, inputs, width)
                count.convolution(side, 3, width, width, groups)
                count.convolution(side, 1, width, filters)
                for channels_in in (width, width, filters):
                    count.normalisation(channels_in)
            inputs = filters
    if hp.block == "v2":
        count.normalisation(inputs)
    count.parameters += inputs * n_classes + n_classes
    count.kernels += inputs * n_classes
    count.multiply_adds += inputs * n_classes
    return count


def papers_space() -> SpaceConfig:
    """Table 5's space, as `config/cifar100.yaml` has it."""
    return load_config([CONFIGS / "config.yaml", CONFIGS / "cifar100.yaml"]).search.space


def random_point(space: SpaceConfig, random: np.random.Generator) -> Hyperparameters:
    """A point of the space, each hyperparameter drawn evenly."""
    values: dict[str, Any] = {}
    for name in Hyperparameters.names():
        if name in ("schedule", "weight_decay"):  # which no network's size depends on
            continue
        bounds = getattr(space, name)
        if name in ("block", "activation"):
            values[name] = str(random.choice(bounds))
        elif isinstance(bounds, IntRange):
            values[name] = int(random.integers(bounds.low, bounds.high, endpoint=True))
        else:
            values[name] = float(random.uniform(bounds.low, bounds.high))
    return Hyperparameters(**values)


def compare(n_points: int, n_classes: int = 100, seed: int = 0) -> dict[str, np.ndarray]:
    """Both image sizes at random points of the space.

    Returns:
        `block`, and the ratios of `parameters` and `multiply_adds` of 224x224 to 32x32 images, each (n_points,).
    """
    random, space = np.random.default_rng(seed), papers_space()
    points = [random_point(space, random) for _ in range(n_points)]
    pairs = [[count_network(point, side, 3, n_classes) for side in (LARGE, SMALL)] for point in points]
    return {
        "block": np.array([point.block for point in points]),
        "parameters": np.array([large.parameters / small.parameters for large, small in pairs]),
        "multiply_adds": np.array([large.multiply_adds / small.multiply_adds for large, small in pairs]),
    }


def main() -> None:
    found = compare(10_000)
    titles = ("lowest", "5 %", "median", "95 %", "highest")
    print("224x224 to 32x32    block" + "".join(f"{title:>10}" for title in titles))
    for name in ("parameters", "multiply_adds"):
        for block in ("all", "v1", "v2", "next"):
            ratios = found[name][(found["block"] == block) | (block == "all")]
            values = "".join(f"{value:>10.4f}" for value in np.percentile(ratios, [0, 5, 50, 95, 100]))
            print(f"{name:20}{block:5}{values}")


if __name__ == "__main__":
    main()
