"""The honest floor: what is fitted, to how many images, and what is told where nothing is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from ensembleflow.config import BaselineConfig, DatasetConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.io import read_json
from ensembleflow.library import fit_baseline
from ensembleflow.library.baseline import fitted_values, n_affordable


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "digits.h5"
    prepare_dataset(DatasetConfig(), path)
    return path


def fitted(dataset: Path, folder: Path, **config: object) -> tuple[dict, pd.DataFrame]:
    config = BaselineConfig.model_validate(config)
    fit_baseline(dataset, config, folder / "baseline.json", folder / "baseline.csv")
    return read_json(folder / "baseline.json"), pd.read_csv(folder / "baseline.csv")


def test_it_answers_as_scikit_learn_does_from_the_raw_pixels(digits: Path, tmp_path: Path) -> None:
    told, answers = fitted(digits, tmp_path)
    with open_dataset(digits) as data:
        train, test = (data.images(split).reshape(len(data.labels(split)), -1) / 255.0 for split in ("train", "test"))
        expected = SVC(C=10).fit(train, data.labels("train")).predict(test)
        own = answers[answers.split == "test"]
        assert own.predicted.tolist() == expected.tolist()
        assert own.label.tolist() == data.labels("test").tolist()
        assert own.image.tolist() == list(range(len(expected)))
        assert told["dataset_checksum"] == data.checksum
    assert (own.predicted != own.label).mean() < 0.02
    assert told["classifier"] == "SVC(C=10, gamma='scale')" and told["reason"] == ""
    assert told["n_fitted_images"] == told["n_train_images"] == len(train)


def test_fitting_again_gives_the_same_answers(digits: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fitted(digits, tmp_path / name)
    assert (tmp_path / "one/baseline.csv").read_bytes() == (tmp_path / "two/baseline.csv").read_bytes()


def test_turned_off_it_says_so_and_has_no_answers(digits: Path, tmp_path: Path) -> None:
    told, answers = fitted(digits, tmp_path, classifier="none")
    assert told["classifier"] is None and "library.baseline.classifier" in told["reason"]
    assert answers.empty and list(answers.columns) == ["split", "image", "label", "predicted"]


@pytest.mark.parametrize(("n_images", "n_fitted"), [(3000, "all"), (40_000, "some"), (300_000, "none")])
def test_large_data_are_learned_in_part_or_left_out_and_told(tmp_path: Path, n_images: int, n_fitted: str) -> None:
    synthetic = {"n_images": n_images, "image_shape": (4, 4, 1), "n_classes": 3}
    path = tmp_path / "made_up.h5"
    prepare_dataset(DatasetConfig(name="made_up", source="synthetic", synthetic=synthetic), path)
    told, answers = fitted(path, tmp_path, max_giga_multiply_adds=1)
    n_train = told["n_train_images"]
    if n_fitted == "none":
        assert "too large" in told["reason"] and f"{n_train:,}" in told["reason"]
        assert told["n_fitted_images"] == 0 and answers.empty
        return
    assert told["reason"] == "" and len(answers) == n_images - n_train
    assert (told["n_fitted_images"] == n_train) == (n_fitted == "all")
    assert told["n_fitted_images"] >= 0.1 * n_train


def test_of_many_small_classes_no_more_images_are_learned_than_the_limit_allows(tmp_path: Path) -> None:
    path, n_classes = tmp_path / "many.h5", 500
    labels = np.concatenate([np.repeat(np.arange(n_classes), 3), np.zeros(2500, np.int64)])
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 32, 32, 1), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", images=images, labels=labels)
    prepare_dataset(DatasetConfig(name="many", source="arrays", path=str(tmp_path / "many.npz")), path)
    told, answers = fitted(path, tmp_path, max_giga_multiply_adds=3)
    n_train = told["n_train_images"]
    affordable = [n_affordable(n_train, len(labels) - n_train, told["n_values"] + n_classes, limit) for limit in (1, 3)]
    assert 0.1 * n_train < affordable[0] < n_classes < affordable[1] < n_train
    assert told["n_fitted_images"] == affordable[1] and len(answers) == len(labels) - n_train
    told, answers = fitted(path, tmp_path, max_giga_multiply_adds=1)
    assert "too large" in told["reason"] and answers.empty, "a class would have no image"


@given(st.integers(1, 10**7), st.integers(0, 10**7), st.integers(1, 10**5), st.floats(1e-6, 1e6))
def test_no_more_images_are_affordable_than_the_limit_allows(
    n_train: int, n_answered: int, n_values: int, limit: float
) -> None:
    n = n_affordable(n_train, n_answered, n_values, limit)

    def work(n: int) -> float:
        return n * (n + n_answered) * n_values / 1e9

    assert 0 <= n <= n_train
    assert work(n) <= limit * (1 + 1e-6)
    assert n == n_train or work(n + 2) > limit * (1 - 1e-6)


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_fitted_values_are_at_most_32_a_side_and_keep_a_plain_image_plain(
    height: int, width: int, channels: int
) -> None:
    images = np.full((2, height, width, channels), 51, dtype=np.uint8)
    pixels = fitted_values(images)
    assert pixels.shape[1] <= 32 * 32 * channels
    assert (height > 32 or width > 32) or pixels.shape[1] == height * width * channels
    np.testing.assert_allclose(pixels, 0.2, rtol=1e-6)
