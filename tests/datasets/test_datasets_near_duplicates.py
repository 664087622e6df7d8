"""Images that are nearly the same in two parts are told, and images that are only alike are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import prepare_dataset
from ensembleflow.datasets.near_duplicates import CORRELATION, _correlations, outlines

Images = np.ndarray


def blobs(n: int, side: int = 40, channels: int = 3, seed: int = 0) -> Images:
    """Images of a few smooth spots each, uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    images = np.zeros((n, side, side, channels))
    for image in images:
        for _ in range(6):
            y, x, width = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.2)
            spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))
            image += rng.uniform(20, 120, channels) * spot[..., np.newaxis]
    return np.clip(images + rng.normal(0, 2, images.shape), 0, 255).astype(np.uint8)


def saved_again(image: Images) -> Images:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def brighter(image: Images) -> Images:
    return np.clip(image * 0.9 + 20, 0, 255).astype(np.uint8)


def stretched_and_back(image: Images) -> Images:
    return np.asarray(Image.fromarray(image).resize((52, 52)).resize(image.shape[1::-1]))


def told(images: Images, test: Images, folder, caplog: pytest.LogCaptureFixture) -> str:
    """The warning about near-duplicates of these; empty without one."""
    labels = np.arange(len(images)) % 2
    arrays = {"x_train": images, "y_train": labels, "x_test": test, "y_test": labels[: len(test)]}
    np.savez(folder / "own.npz", **arrays)
    prepare_dataset(DatasetConfig(name="own", source="arrays", path=str(folder / "own.npz")), folder / "own.h5")
    return " ".join(each.getMessage() for each in caplog.records if "nearly identical" in each.getMessage())


@pytest.mark.parametrize("change", [saved_again, brighter, stretched_and_back])
@pytest.mark.parametrize("floats", [False, True], ids=["uint8", "float32"])
def test_changed_copies_of_training_images_are_told_by_name(
    change: Callable[[Images], Images], floats: bool, tmp_path, caplog
) -> None:
    images, others = blobs(60), blobs(20, seed=1)
    others[:10] = [change(image) for image in images[:10]]
    scale = np.array([1e3, 1e-3, 1], np.float32) if floats else np.uint8(1)
    message = told(images * scale, others * scale, tmp_path, caplog)
    n_told = int(message.split()[1])
    assert 1 <= n_told <= 10, "those whose originals are trained with"
    assert "of 20 test images and 0 of 18 validation images" in message
    assert any(f"image {place} ≈ image {60 + place}" in message for place in range(10))


def test_images_that_are_only_alike_or_identical_are_not_told(tmp_path, caplog) -> None:
    images, others = blobs(60), blobs(20, seed=1)
    others[0] = images[0]
    assert told(images, others, tmp_path, caplog) == ""
    assert told(np.full_like(images, 7), np.full_like(others, 9), tmp_path, caplog) == "", "nothing is in them"


def test_the_digits_have_none(tmp_path, caplog) -> None:
    prepare_dataset(DatasetConfig(), tmp_path / "digits.h5")
    assert "nearly identical" not in caplog.text


def test_values_too_large_to_be_compared_end_nothing(tmp_path, caplog) -> None:
    images = blobs(60, side=64, channels=1).astype(np.float32)
    images[::7, :8, :8] = np.finfo(np.float32).min
    told(images[:40], images[40:], tmp_path, caplog)


def test_images_too_small_and_samples_of_other_ranks_have_no_outlines() -> None:
    assert outlines(np.zeros((5, 7, 40, 3), np.uint8)).shape == (0, 15)
    assert outlines(np.zeros((5, 40, 3), np.float32)).shape == (0, 15)


@given(st.integers(0, 10_000), st.floats(0, 60))
@settings(max_examples=40, deadline=None)
def test_no_pair_is_further_apart_by_its_outlines_than_by_its_correlation(seed: int, noise: float) -> None:
    """So that a search by outlines misses none."""
    images = blobs(4, seed=seed)
    changed = np.clip(images + np.random.default_rng(seed).normal(0, noise, images.shape), 0, 255).astype(np.uint8)
    places = np.arange(4)
    correlations = _correlations(images, places, changed, places)
    distances = np.linalg.norm(outlines(images) - outlines(changed), axis=1)
    assert (distances <= np.sqrt(np.maximum(0, 2 - 2 * correlations)) + 1e-5).all()
    assert 0.9 < CORRELATION < 1
