"""Small real exported functions, made once, by another process: this one never imports TensorFlow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server_process import MAX_IMAGES, TOKEN, ServerProcess, write_answers
from stage_artefacts import Results

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

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.uint8)])
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


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    made = Exported(folder)
    np.savez(folder / "weights.npz", **made.weights)
    subprocess.run([sys.executable, "-c", _EXPORT, str(folder)], check=True, capture_output=True, timeout=300)
    return made


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (120, *IMAGE_SHAPE), dtype=np.uint8)


@pytest.fixture(scope="session")
def served_bundle(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of all three members."""
    folder = tmp_path_factory.mktemp("served")
    results = Results(folder, exported, exported.models)
    results.make_bundle(folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="session")
def running_server(served_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(served_bundle, tmp_path_factory.mktemp("server")) as server:
        yield server.wait_until_ready()


@pytest.fixture
def server(running_server: ServerProcess) -> ServerProcess:
    """A server with all of its members alive."""
    return running_server.wait_until_ready()


@pytest.fixture(scope="session")
def small_bundle(served_bundle: Path, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the first member alone."""
    bundle = Path(shutil.copytree(served_bundle, tmp_path_factory.mktemp("small") / "bundle"))
    manifest = json.loads((bundle / "bundle.json").read_text())
    answers = exported.answers(exported.models[0], np.load(bundle / "check" / "images.npy"))
    write_answers(bundle, answers, members=manifest["members"][:1], allocation=manifest["allocation"][:1])
    return bundle


@pytest.fixture(scope="session")
def running_small_server(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """It takes little, waits briefly, and wants a token."""
    options = {
        "--max-request-images": MAX_IMAGES,
        "--max-queued-images": MAX_IMAGES,
        "--max-body-mb": 1,
        "--max-connections": 60,
        "--read-timeout": 1,
    }
    words = [str(word) for option in options.items() for word in option]
    with ServerProcess(small_bundle, tmp_path_factory.mktemp("small"), *words, token=TOKEN) as server:
        yield server.wait_until_ready()


@pytest.fixture
def small_server(running_small_server: ServerProcess) -> ServerProcess:
    return running_small_server.wait_until_ready()
