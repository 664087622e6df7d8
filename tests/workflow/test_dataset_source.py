"""The dataset is made again when its images or a key that its source uses have changed, and not otherwise."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.clone import Clone, edited

TARGET = "results/datasets/own.h5"
AGAIN, NOTHING = {"prepare_dataset"}, set()


def with_source(source: str, **keys: Any) -> str:
    """The study's config with a dataset of that source."""
    own = {"name": "own", "source": source, "path": "own", "image_size": 8, **keys}
    return edited({f"dataset.{key}": value for key, value in own.items()})


def changed_later(path: Path) -> None:
    """Make sure that a change just made is younger than the dataset, whatever the file system's clock."""
    os.utime(path, (time.time() + 2,) * 2)


def exchange_keeping_times(folder: Path) -> None:
    """Move another folder of the same names into its place, of files that are older than the dataset."""
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    for file in sorted(file for file in other.rglob("*") if file.suffix in (".png", ".npy")):
        if file.suffix == ".png":
            Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
        elif file.stem == "images":
            np.save(file, 255 - np.load(file))
    for file in [*other.rglob("*"), other]:
        os.utime(file, (time.time() - 3600,) * 2)
    folder.rename(folder.with_name("gone"))
    other.rename(folder)


def copy_with_new_times(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    shutil.copytree(folder.with_name("moved"), folder, copy_function=shutil.copyfile)
    for file in [*folder.rglob("*"), folder]:
        changed_later(file)


@pytest.mark.parametrize("source", ["image_folder", "arrays"])
def test_a_change_counts_exactly_where_the_dataset_depends_on_it(fresh_copy: Clone, source: str) -> None:
    folder = fresh_copy.folder / "own"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    if source == "image_folder":
        for i, image in enumerate(pixels):
            (folder / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"class{i % 2}" / f"{i}.png")
    else:
        folder.mkdir()
        np.save(folder / "images.npy", pixels)
        np.save(folder / "labels.npy", np.arange(20) % 2)
    fresh_copy.write_config(with_source(source))
    fresh_copy.run(TARGET)
    assert fresh_copy.plan(TARGET) == NOTHING
    fresh_copy.write_config(with_source(source, synthetic={"n_images": 50}))
    assert fresh_copy.plan(TARGET) == NOTHING
    fresh_copy.write_config(with_source(source, unreadable_images="skip"))
    assert fresh_copy.plan(TARGET) == (AGAIN if source == "image_folder" else NOTHING)
    fresh_copy.write_config(with_source(source))
    (folder / "notes.txt").write_text("read by nobody")
    if source == "arrays":
        assert fresh_copy.plan(TARGET) == NOTHING
        np.save(folder / "labels.npy", np.arange(20) // 10)
        changed_later(folder / "labels.npy")
    else:
        shutil.copy(folder / "class0" / "0.png", folder / "class0" / "copy.png")
        changed_later(folder / "class0")
    assert fresh_copy.plan(TARGET) == AGAIN
    fresh_copy.run(TARGET)
    assert fresh_copy.plan(TARGET) == NOTHING
    exchange_keeping_times(folder)
    assert fresh_copy.plan(TARGET) == AGAIN
    fresh_copy.run(TARGET)
    assert fresh_copy.plan(TARGET) == NOTHING
    copy_with_new_times(folder)
    assert fresh_copy.plan(TARGET) == NOTHING
