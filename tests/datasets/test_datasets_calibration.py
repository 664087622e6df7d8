"""Validation images that are set aside: nothing else is moved, nothing else sees them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.datasets.duplicates import contents_of
from ensembleflow.errors import ArgumentError
from ensembleflow.planning.dataset_plan import plan_dataset


def test_they_are_taken_from_the_validation_by_class_and_all_other_images_stay(tmp_path):
    for name, share in (("whole", 0.0), ("divided", 0.4)):
        prepare_dataset(DatasetConfig(calibration_fraction=share), tmp_path / f"{name}.h5")
    with open_dataset(tmp_path / "whole.h5") as whole, open_dataset(tmp_path / "divided.h5") as divided:
        assert whole.splits == ("train", "valid", "test")
        assert divided.splits == ("train", "valid", "test", "calibration")
        assert whole.checksum != divided.checksum
        for split in ("train", "test"):
            assert np.array_equal(whole.images(split), divided.images(split))
        parts = [divided.images(split) for split in ("valid", "calibration")]
        together = np.sort(contents_of(np.concatenate(parts)))
        assert np.array_equal(together, np.sort(contents_of(whole.images("valid"))))
        assert len(parts[1]) == pytest.approx(0.4 * len(together), abs=5)
        counts = [np.bincount(divided.labels(split), minlength=10) for split in ("valid", "calibration")]
        assert (abs(counts[1] - 0.4 * (counts[0] + counts[1])) <= 0.5).all()


def test_without_them_the_file_and_its_plan_are_what_they_were(tmp_path):
    prepare_dataset(DatasetConfig(), tmp_path / "digits.h5")
    with open_dataset(tmp_path / "digits.h5") as dataset, pytest.raises(ArgumentError, match="calibration"):
        dataset.images("calibration")
    assert "calibration" not in plan_dataset(DatasetConfig())
    assert "calibration" in plan_dataset(DatasetConfig(calibration_fraction=0.4))


def test_images_of_a_group_are_not_torn_apart_and_their_number_is_told(tmp_path, caplog):
    for slide in range(36):
        folder = tmp_path / "images" / ("oak" if slide % 2 else "beech")
        folder.mkdir(parents=True, exist_ok=True)
        for crop in range(4):
            Image.fromarray(np.full((8, 8), 4 * slide + crop, np.uint8)).save(folder / f"s{slide:02}_{crop}.png")
    values = {"name": "own", "source": "image_folder", "path": str(tmp_path / "images"), "image_size": 8}
    values |= {"group_pattern": r"s\d+_", "valid_fraction": 0.4, "test_fraction": 0.2, "calibration_fraction": 0.5}
    prepare_dataset(DatasetConfig(**values), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        slides = [set((dataset.images(split)[:, 0, 0, 0] // 4).tolist()) for split in dataset.splits]
    assert sum(map(len, slides)) == 36 and all(slides)
    assert "calibration images are of" in caplog.text and "groups: what a cascade promises" in caplog.text
