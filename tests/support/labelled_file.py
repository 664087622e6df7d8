"""Datasets whose labels are all that matters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensembleflow.datasets import SPLITS
from ensembleflow.datasets.dataset_file import write_dataset
from ensembleflow.datasets.labelled_images import LabelledImages


def write_labels(path: Path, class_sizes: Sequence[int]) -> None:
    """A dataset with so many images of each class in each part."""
    labels = np.tile(np.repeat(np.arange(len(class_sizes), dtype=np.int64), class_sizes), len(SPLITS))
    images = LabelledImages(
        class_names=tuple(map(str, range(len(class_sizes)))),
        labels=labels,
        image_shape=(1, 1, 1),
        read=lambda indices: np.zeros((len(indices), 1, 1, 1), np.uint8),
    )
    parts = np.split(np.arange(len(labels), dtype=np.int64), len(SPLITS))
    write_dataset(path, images, dict(zip(SPLITS, parts, strict=True)), name="made_up", source="arrays", split_seed=0)
