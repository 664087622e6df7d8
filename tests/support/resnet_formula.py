"""Table 5's networks at random points: how much larger they are for larger images.

`python tests/support/resnet_formula.py` compares 224x224 with 32x32 images at random points of the paper's space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ensembleflow.config import IntRange, SpaceConfig, load_config
from ensembleflow.models import Hyperparameters
from ensembleflow.models.network_size import network_size

CONFIGS = Path(__file__).resolve().parents[2] / "config"
LARGE, SMALL = 224, 32

NOT_IN_TABLE_5 = ("schedule", "weight_decay", "horizontal_flips", "vertical_flips", "cutout", "mixup")


def papers_space() -> SpaceConfig:
    """Table 5's space, as `config/cifar100.yaml` has it."""
    return load_config([CONFIGS / "config.yaml", CONFIGS / "cifar100.yaml"]).search.space


def random_point(space: SpaceConfig, random: np.random.Generator) -> Hyperparameters:
    """A point of the space, each hyperparameter drawn evenly."""
    values: dict[str, Any] = {}
    for name in Hyperparameters.names():
        if name in NOT_IN_TABLE_5:  # nor does a network's size depend on them
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
    pairs = [[network_size(point, (side, side, 3), n_classes) for side in (LARGE, SMALL)] for point in points]
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
