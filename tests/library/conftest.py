"""A small library of real networks, made once, by another process: this one never imports TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import prepare_dataset

# One small and one large network of the search's kind, and one of known size: 64 x 30,000 weights, and as many numbers
# an image between its two layers as it has units.
_TRAIN = """
import json, sys
import keras
from ensembleflow.models import Hyperparameters, build_resnet, configure_tensorflow, save_model, weights_sha256

configure_tensorflow(1)
keras.utils.set_random_seed(0)
folder, facts = sys.argv[1], json.loads(sys.argv[2])
layers = keras.layers
images = keras.Input((8, 8, 1), dtype="uint8")
hidden = layers.Dense(facts["wide_units"])(layers.Flatten()(layers.Rescaling(1 / 255)(images)))
networks = {
    "trial-00001": build_resnet(Hyperparameters(**facts["small"]), (8, 8, 1), 10),
    "trial-00000": build_resnet(Hyperparameters(**facts["large"]), (8, 8, 1), 10),
    "trial-00002": keras.Model(images, layers.Dense(10, activation="softmax")(hidden)),
}
for model, network in networks.items():
    save_model(network, f"{folder}/{model}.keras")
    print(model, weights_sha256(network), network.count_params())
"""

_CACHE = """
import json, logging, sys
from ensembleflow.config import PredictionsConfig
from ensembleflow.library import cache_predictions

logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
folder, runs = sys.argv[1], json.loads(sys.argv[2])
for name, config in runs.items():
    cache_predictions(
        f"{folder}/models.csv", [folder], f"{folder}/digits.h5", "digits-random-s0",
        PredictionsConfig(**config), f"{folder}/exported", f"{folder}/{name}.h5",
    )
"""

_ANSWER = """
import sys
import numpy as np
from ensembleflow.datasets import open_dataset
from ensembleflow.models import configure_tensorflow, load_exported

configure_tensorflow(1)
folder, models = sys.argv[1], sys.argv[2:]
with open_dataset(f"{folder}/digits.h5") as data:
    images = {split: data.images(split) for split in ("valid", "test")}
for split, array in images.items():
    answers = [load_exported(f"{folder}/exported/{model}").predict(array, 256) for model in models]
    np.save(f"{folder}/{split}.npy", answers)
"""

_MEASURE = """
import json, logging, sys
from ensembleflow.config import CostConfig
from ensembleflow.library import measure_costs

logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
folder, runs = sys.argv[1], json.loads(sys.argv[2])
for name, config in runs.items():
    engine = config.pop("engine", "tensorflow")
    inputs = [f"{folder}/{part}" for part in ("models.csv", "exported", "predictions.h5", "digits.h5")]
    measure_costs(*inputs, CostConfig(**config), f"{folder}/{name}.csv", engine)
"""


def _hyperparameters(**changes: Any) -> dict[str, Any]:
    zooms = ("max_zoom", "max_translation", "max_shear", "max_channel_shift", "max_rotation_degrees")
    blocks = {f"blocks_stage_{stage}": 1 for stage in range(1, 5)}
    trained = {"learning_rate": 0.003, "batch_size": 32, "l2": 1e-4, "block": "v1", "activation": "relu"}
    return {**trained, "stem_filters": 4, "stage_filters": 4, **blocks, **dict.fromkeys(zooms, 0.0), **changes}


class SmallLibrary:
    """Three untrained networks, their table, and the folder of all that is made of them."""

    models = ("trial-00001", "trial-00000", "trial-00002")
    wide_units = 30_000

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prepare_dataset(DatasetConfig(), folder / "digits.h5")
        sizes = {"small": _hyperparameters(), "large": _hyperparameters(stage_filters=16, blocks_stage_1=2)}
        told = self.run(_TRAIN, json.dumps({**sizes, "wide_units": self.wide_units}))
        lines = [line.split() for line in told.splitlines()]
        self.weights_sha256 = {model: sha256 for model, sha256, _ in lines}
        rows = [
            {"rank": rank, "model": model, "slot": int(model[-5:]), "kept": True, "n_parameters": int(n_parameters)}
            for rank, (model, _, n_parameters) in enumerate(lines, start=1)
        ]
        rows.append({"rank": 4, "model": "trial-00003", "slot": 3, "kept": False, "n_parameters": 1})
        rows = [{**row, "weights_sha256": self.weights_sha256.get(row["model"], "0")} for row in rows]
        pd.DataFrame(rows).to_csv(folder / "models.csv", index=False)

    def run(self, script: str, *arguments: str, expected_status: int = 0) -> str:
        """Run a script as a job would be, in a process of its own; gives what it prints."""
        command = [sys.executable, "-c", script, str(self.folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == expected_status, done.stderr
        return done.stdout if expected_status == 0 else done.stderr

    def cache(self, runs: dict[str, dict[str, Any]], **options: Any) -> str:
        """Cache predictions once for each name, with its config."""
        return self.run(_CACHE, json.dumps(runs), **options)

    def answers(self, models: Sequence[str] = models) -> None:
        """Write what the exported functions answer to `valid.npy` and `test.npy`."""
        self.run(_ANSWER, *models)

    def measure(self, runs: dict[str, dict[str, Any]], **options: Any) -> str:
        """Measure costs once for each name, with its config."""
        return self.run(_MEASURE, json.dumps(runs), **options)


@pytest.fixture(scope="session")
def small_library(tmp_path_factory: pytest.TempPathFactory) -> SmallLibrary:
    return SmallLibrary(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def cached(small_library: SmallLibrary) -> tuple[SmallLibrary, str]:
    """The library with its exported functions and caches, and what making them told."""
    told = small_library.cache(
        {
            "predictions": {},
            "again": {},
            "half": {"dtype": "float16"},
            "true_class": {"every_class": False},
        }
    )
    return small_library, told
