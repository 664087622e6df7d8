"""Folders of made-up images for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_class_folders(root: Path, counts: Mapping[str, int], side: int = 16, mode: str = "RGB") -> Path:
    """A folder for each class with so many distinct images; a class's name may have a part before it, `train/oak`."""
    random = np.random.default_rng(0)
    for name, n_images in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(n_images):
            shape = (side, side) if mode == "L" else (side, side, 3)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(root / name / f"{i:03}.png")
    return root
