"""Predictions caches of made-up probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensembleflow.library import create_predictions

N_SAMPLES = {"valid": 11, "test": 7}
N_CLASSES = 4
MODELS = ("trial-00007", "trial-00002", "trial-00005")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def labels() -> dict[str, np.ndarray]:
    return {split: np.arange(n) * 3 % N_CLASSES for split, n in N_SAMPLES.items()}


def probabilities(seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """By split (models, samples, classes), some of them very small."""
    random = np.random.default_rng(seed)
    shapes = {split: (len(MODELS), n, N_CLASSES) for split, n in N_SAMPLES.items()}
    return {split: softmax(random.normal(scale=5, size=shape)).astype(dtype) for split, shape in shapes.items()}


def open_writer(path: Path, **changes: Any):
    facts = {
        "study": "digits-random-s0",
        "dataset_checksum": "abc",
        "class_names": [f"class {index}" for index in range(N_CLASSES)],
        "models": MODELS,
        "weights_sha256": [f"{index:064}" for index in range(len(MODELS))],
        "labels": labels(),
    }
    return create_predictions(path, **{**facts, **changes})


def write(path: Path, values: dict[str, np.ndarray], order: Sequence[tuple[str, int]] = (), batch: int = 4, **changes):
    """Write all models' probabilities: a batch of each (split, model) of `order` in turn, until all are written."""
    order = order or [(split, model) for model in range(len(MODELS)) for split in N_SAMPLES]
    with open_writer(path, **changes) as writer:
        for start in range(0, max(N_SAMPLES.values()), batch):
            for split, model in order:
                part = values[split][model, start : start + batch]
                if len(part):
                    writer.write(split, model, start, part)
