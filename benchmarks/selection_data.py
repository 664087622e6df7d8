"""Made-up probabilities for the selection's benchmark: correlated models of unlike quality, from a fixed seed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ensembleflow.errors import ArtefactError
from ensembleflow.io import create_hdf5
from ensembleflow.library import open_predictions
from ensembleflow.library.predictions import SCHEMA, SCHEMA_VERSION

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_PIXELS_A_BATCH = 2**20
_N_TEST_PIXELS = 1024


def classification(n_models: int, n_samples: int, n_classes: int, seed: int = 0) -> tuple[Array, Labels]:
    """Softmax probabilities float32 (models, samples, classes) and labels.

    A logit is the class's evidence, that of the sample which all models see alike, and the model's own: accuracies of
    50 to 80 %, and errors that models share.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_samples)
    shared = rng.standard_normal((n_samples, n_classes), np.float32)
    strength = np.linspace(2.75, 3.65, n_models, dtype=np.float32)
    rng.shuffle(strength)
    probabilities = np.empty((n_models, n_samples, n_classes), np.float32)
    for model in range(n_models):
        logits = 0.9 * shared + 0.6 * rng.standard_normal((n_samples, n_classes), np.float32)
        logits[np.arange(n_samples), labels] += strength[model]
        logits *= rng.uniform(2.5, 3.5)
        logits = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities[model] = logits / logits.sum(axis=1, keepdims=True)
    return probabilities, labels


def costs_of(n_models: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Seconds (models,): log-normal, as those of networks of random depth and width are."""
    return np.random.default_rng([seed, 1]).lognormal(-1.0, 0.7, n_models)


def segmentation_cache(folder: Path, n_models: int, n_pixels: int, n_classes: int, seed: int = 0) -> Path:
    """A cache of the true class's probabilities in float16, in `folder`; made unless it is there.

    It is written as `create_predictions` lays it out, but row by row: that of every class, which would only be thrown
    away, would take thirty times as long to make up.
    """
    study = f"segmentation-{n_models}-{n_pixels}-{n_classes}-{seed}"
    path = folder / f"{study}.h5"
    try:
        with open_predictions(path) as predictions:
            if predictions.study == study:
                return path
    except ArtefactError:
        pass
    n_bytes = n_pixels * (n_models * np.dtype(np.float16).itemsize + np.dtype(np.int64).itemsize)
    free = shutil.disk_usage(folder).free
    if free < 1.05 * n_bytes:
        sys.exit(f"{folder} has {free / 1e9:.1f} GB free, and the cache takes {n_bytes / 1e9:.1f} GB: see --scratch")
    print(f"writing {n_bytes / 1e9:.1f} GB to {path}", file=sys.stderr, flush=True)
    text = h5py.string_dtype()
    with create_hdf5(path, SCHEMA, SCHEMA_VERSION) as file:
        file.attrs["study"], file.attrs["dataset_checksum"], file.attrs["dtype"] = study, "0" * 64, "float16"
        file.attrs["class_names"] = np.array([f"class {k}" for k in range(n_classes)], dtype=text)
        file.attrs["weights_sha256"] = np.array(["0" * 64] * n_models, dtype=text)
        file.create_dataset("models", data=[f"m{model:03}" for model in range(n_models)], dtype=text)
        for split, length in (("valid", n_pixels), ("test", _N_TEST_PIXELS)):
            group = file.create_group(split)
            stored = group.create_dataset("true_class_probability", (n_models, length), np.float16)
            labels = group.create_dataset("labels", (length,), np.int64)
            for start in range(0, length, _PIXELS_A_BATCH):
                stop = min(start + _PIXELS_A_BATCH, length)
                labels[start:stop], stored[:, start:stop] = _pixels(n_models, n_classes, stop - start, seed, start)
    return path


def _pixels(
    n_models: int, n_classes: int, n_pixels: int, seed: int, start: int
) -> tuple[Labels, npt.NDArray[np.float16]]:
    """Labels, in runs as regions have them, and true classes' probabilities (models, pixels)."""
    rng = np.random.default_rng([seed, 2, start])
    regions = rng.integers(0, n_classes, n_pixels // 64 + 1)
    shared = rng.standard_normal(n_pixels, np.float32)
    probabilities = np.empty((n_models, n_pixels), np.float16)
    for model in range(n_models):
        quality = 1.5 + 0.15 * model / n_models
        logits = quality + 1.4 * shared + 1.2 * rng.standard_normal(n_pixels, np.float32)
        probabilities[model] = 1 / (1 + np.exp(-logits))
    return np.repeat(regions, 64)[:n_pixels], probabilities
