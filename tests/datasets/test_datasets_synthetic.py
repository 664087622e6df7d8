"""Made-up images: of any shape and number, the same each time, and learnable."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ensembleflow.config import DatasetConfig, parse_config
from ensembleflow.datasets import SPLITS, open_dataset, prepare_dataset
from ensembleflow.datasets.synthetic import make_synthetic_images
from ensembleflow.errors import ConfigError


def config_of(seed=0, **synthetic):
    return DatasetConfig(name="made_up", source="synthetic", split_seed=seed, synthetic=synthetic)


@pytest.mark.parametrize("shape", [(4, 4, 1), (32, 32, 3), (20, 31, 4)])
def test_images_have_the_shape_number_and_classes_asked_for(tmp_path, shape):
    prepare_dataset(config_of(n_images=70, image_shape=shape, n_classes=7), tmp_path / "made_up.h5")
    with open_dataset(tmp_path / "made_up.h5") as dataset:
        assert dataset.image_shape == shape
        assert dataset.n_classes == 7
        labels = np.concatenate([dataset.labels(split) for split in SPLITS])
        assert np.bincount(labels).tolist() == [10] * 7
        pixels = dataset.images("train")
    assert pixels.min() < 40
    assert pixels.max() > 215


def test_each_image_depends_on_the_seed_and_its_own_number_alone():
    few, many = (make_synthetic_images(n, (8, 8, 3), 5, seed=3) for n in (20, 2_000_000_000 // 10_000))
    np.testing.assert_array_equal(few.read(np.array([17, 4])), many.read(np.array([4, 17]))[::-1])
    other = make_synthetic_images(20, (8, 8, 3), 5, seed=4)
    assert (few.read(np.arange(20)) != other.read(np.arange(20))).any(axis=(1, 2, 3)).all()
    assert len(np.unique(few.read(np.arange(20)).reshape(20, -1), axis=0)) == 20


def test_the_same_config_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        prepare_dataset(config_of(seed, n_images=30, n_classes=2), tmp_path / f"{name}.h5")
    one, again, other = ((tmp_path / f"{name}.h5").read_bytes() for name in ("one", "again", "other"))
    assert one == again != other


def test_classes_can_be_learnt_but_not_from_single_pixels():
    source = make_synthetic_images(600, (16, 16, 1), 4, seed=0)
    pixels = source.read(np.arange(600)).reshape(600, -1) / 255
    half = np.arange(600) < 300

    def error(features):
        fitted = LogisticRegression(max_iter=500).fit(features[half], source.labels[half])
        return 1 - fitted.score(features[~half], source.labels[~half])

    assert error(pixels) < 0.2
    assert error(pixels[:, [100]]) > 0.4


def test_fewer_images_than_each_class_needs_are_refused():
    with pytest.raises(ConfigError) as caught:
        parse_config({"dataset": {"source": "synthetic", "synthetic": {"n_images": 20, "n_classes": 7}}})
    assert "n_images" in str(caught.value)
    assert "3 times" in str(caught.value)
