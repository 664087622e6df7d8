"""The dataset's file: its content, its bytes, and what is refused."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import SPLITS, open_dataset, prepare_dataset
from ensembleflow.datasets.dataset_file import write_dataset
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.errors import ArtefactError, DatasetError, StorageError


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("datasets") / "digits.h5"
    prepare_dataset(DatasetConfig(), path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_digits_are_all_there_once_as_full_scale_grey_images(digits):
    bunch = load_digits()
    expected = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    with open_dataset(digits) as dataset:
        images = np.concatenate([dataset.images(split) for split in SPLITS])
        labels = np.concatenate([dataset.labels(split) for split in SPLITS])
        assert dataset.class_names == [str(i) for i in range(10)]
        assert dataset.image_shape == (8, 8, 1)
        assert dataset.n_classes == 10
        assert (dataset.name, dataset.source, dataset.split_seed) == ("digits", "digits", 0)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert (images.min(), images.max()) == (0, 255)
    rows = lambda pixels, classes: sorted(zip(map(bytes, pixels), classes.tolist(), strict=True))  # noqa: E731
    assert rows(images, labels) == rows(expected, bunch.target)


def test_digits_split_as_asked(digits):
    with open_dataset(digits) as dataset:
        sizes = {split: len(dataset.labels(split)) for split in SPLITS}
        for split in SPLITS:
            assert set(dataset.labels(split)) == set(range(10))
            assert len(dataset.image_array(split)) == sizes[split]
            np.testing.assert_array_equal(dataset.image_array(split)[3:7], dataset.images(split)[3:7])
    assert sum(sizes.values()) == 1797
    assert sizes["valid"] == pytest.approx(0.3 * 1797, abs=5)
    assert sizes["test"] == pytest.approx(0.3 * 1797, abs=5)


def test_same_config_gives_the_same_bytes(digits, tmp_path):
    prepare_dataset(DatasetConfig(), tmp_path / "again.h5")
    assert digest(tmp_path / "again.h5") == digest(digits)


def test_another_split_seed_gives_another_checksum(digits, tmp_path):
    prepare_dataset(DatasetConfig(split_seed=1), tmp_path / "other.h5")
    with open_dataset(digits) as one, open_dataset(tmp_path / "other.h5") as other:
        assert one.checksum != other.checksum
        assert not np.array_equal(one.labels("valid"), other.labels("valid"))


def memory_images(labels, images, class_names=("a", "b")):
    images = np.asarray(images, np.uint8).reshape(len(labels), 2, 2, 1)
    return LabelledImages(class_names, np.asarray(labels, np.int64), (2, 2, 1), images.__getitem__)


def checksum_of(tmp_path, source, order=(0, 1, 2, 3)):
    splits = dict(zip(SPLITS, np.split(np.array(order), [2, 3]), strict=True))
    return write_dataset(tmp_path / "x.h5", source, splits, name="x", source="digits", split_seed=0)


def test_checksum_changes_with_pixels_labels_class_names_and_order(tmp_path):
    pixels = np.arange(16)
    base = checksum_of(tmp_path, memory_images([0, 1, 0, 1], pixels))
    assert checksum_of(tmp_path, memory_images([0, 1, 0, 1], pixels)) == base
    assert checksum_of(tmp_path, memory_images([0, 1, 0, 1], pixels + 1)) != base
    assert checksum_of(tmp_path, memory_images([0, 1, 0, 0], pixels)) != base
    assert checksum_of(tmp_path, memory_images([0, 1, 0, 1], pixels, ("a", "c"))) != base
    assert checksum_of(tmp_path, memory_images([0, 1, 0, 1], pixels), order=(1, 0, 2, 3)) != base


def test_class_names_of_any_script_are_kept(tmp_path):
    checksum_of(tmp_path, memory_images([0, 1, 0, 1], range(16), ("Großforaminifère", "珊瑚")))
    with open_dataset(tmp_path / "x.h5") as dataset:
        assert dataset.class_names == ["Großforaminifère", "珊瑚"]


def test_missing_file_is_an_artefact_error(tmp_path):
    with pytest.raises(ArtefactError, match="missing"), open_dataset(tmp_path / "nowhere.h5"):
        pass


@pytest.mark.parametrize("kept_bytes", [0, 100, 5000, -1])
def test_truncated_file_is_an_artefact_error(digits, tmp_path, kept_bytes):
    path = tmp_path / "cut.h5"
    path.write_bytes(digits.read_bytes()[:kept_bytes])
    with pytest.raises(ArtefactError) as caught, open_dataset(path):
        pass
    assert str(path) in caught.value.where
    assert caught.value.hint


@pytest.mark.parametrize(("attribute", "value"), [("schema_version", 2), ("schema", "predictions")])
def test_foreign_schema_is_an_artefact_error(digits, tmp_path, attribute, value):
    path = tmp_path / "foreign.h5"
    path.write_bytes(digits.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value
    with pytest.raises(ArtefactError) as caught, open_dataset(path):
        pass
    assert str(value) in caught.value.found
    assert caught.value.expected == "dataset version 1"


def _drop_split(file):
    del file["valid"]


def _drop_checksum(file):
    del file.attrs["checksum"]


def _shorten_labels(file):
    labels = file["test/labels"][:-1]
    del file["test/labels"]
    file["test/labels"] = labels


def _floats_for_images(file):
    images = file["train/images"][:].astype(np.float32)
    del file["train/images"]
    file["train/images"] = images


@pytest.mark.parametrize("damage", [_drop_split, _drop_checksum, _shorten_labels, _floats_for_images])
def test_file_that_lacks_a_part_is_an_artefact_error(digits, tmp_path, damage):
    path = tmp_path / "damaged.h5"
    path.write_bytes(digits.read_bytes())
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(ArtefactError, match="damaged"), open_dataset(path):
        pass


def test_folder_that_cannot_be_made_is_a_storage_error_and_failure_leaves_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        prepare_dataset(DatasetConfig(), tmp_path / "file" / "digits.h5")
    with pytest.raises(DatasetError):
        prepare_dataset(DatasetConfig(valid_fraction=0.001), tmp_path / "digits.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
