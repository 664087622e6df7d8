"""A folder of IDX files becomes the dataset's file, or is refused with the file and the reason."""

from __future__ import annotations

import gzip
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.datasets.idx import read_idx
from ensembleflow.errors import DatasetError

N_TRAIN, N_TEST = 60, 20
SHAPE = (5, 4)
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(values, code=0x08):
    """An array as an IDX file's bytes."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, code, values.ndim, *values.shape) + values.tobytes()


def arrays(n_classes=3):
    random = np.random.default_rng(0)
    return {
        TRAIN_IMAGES: random.integers(0, 256, (N_TRAIN, *SHAPE), dtype=np.uint8),
        TRAIN_LABELS: np.arange(N_TRAIN, dtype=np.uint8) % n_classes,
        TEST_IMAGES: random.integers(0, 256, (N_TEST, *SHAPE), dtype=np.uint8),
        TEST_LABELS: np.arange(N_TEST, dtype=np.uint8) % n_classes,
    }


def write(folder, values, packed=()):
    """Write arrays, or bytes as they are, as IDX files; `packed` names those to pack."""
    folder.mkdir(exist_ok=True)
    for name, each in values.items():
        content = each if isinstance(each, bytes) else idx(each)
        if name in packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def config_of(folder, **changes):
    return DatasetConfig(**{"name": "own", "source": "idx", "path": str(folder), **changes})


@pytest.mark.parametrize("packed", [[], list(arrays()), [TRAIN_IMAGES]], ids=["plain", "packed", "mixed"])
def test_images_labels_and_their_order_are_the_files(tmp_path, packed):
    source = read_idx(write(tmp_path / "idx", arrays(), packed))
    given = arrays()
    images = source.read(np.arange(N_TRAIN + N_TEST))
    np.testing.assert_array_equal(images[..., 0], np.concatenate([given[TRAIN_IMAGES], given[TEST_IMAGES]]))
    np.testing.assert_array_equal(source.labels, np.concatenate([given[TRAIN_LABELS], given[TEST_LABELS]]))
    assert source.image_shape == (*SHAPE, 1)
    assert source.class_names == ("0", "1", "2")
    assert source.own_split["test"].tolist() == list(range(N_TRAIN, N_TRAIN + N_TEST))


def test_names_with_a_dot_are_taken_too(tmp_path):
    values = {name.replace("-idx", ".idx"): each for name, each in arrays().items()}
    assert len(read_idx(write(tmp_path / "idx", values)).labels) == N_TRAIN + N_TEST


def test_class_names_beside_the_files_are_taken(tmp_path):
    folder = write(tmp_path / "idx", arrays())
    (folder / "class_names.txt").write_text("T-shirt/top\nTrouser\nAnkle boot\n", encoding="utf-8")
    assert read_idx(folder).class_names == ("T-shirt/top", "Trouser", "Ankle boot")
    (folder / "class_names.txt").write_text("T-shirt/top\nTrouser\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="labels have no class name") as caught:
        read_idx(folder)
    assert caught.value.found == "2"


def test_labels_may_begin_at_one(tmp_path):
    values = arrays()
    values[TRAIN_LABELS], values[TEST_LABELS] = values[TRAIN_LABELS] + 1, values[TEST_LABELS] + 1
    source = read_idx(write(tmp_path / "idx", values))
    assert source.class_names == ("1", "2", "3")
    assert source.labels.max() == 2


def test_own_test_images_stay_the_test_and_valid_is_a_share_of_the_others(tmp_path):
    folder = write(tmp_path / "idx", arrays())
    prepare_dataset(config_of(folder, valid_fraction=0.1, test_fraction=0.95), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        np.testing.assert_array_equal(dataset.images("test")[..., 0], arrays()[TEST_IMAGES])
        assert np.bincount(dataset.labels("valid")).tolist() == [2, 2, 2]
        assert np.bincount(dataset.labels("train")).tolist() == [18, 18, 18]


LARGE = struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
FAULTS = {
    "cut": (TRAIN_IMAGES, idx(arrays()[TRAIN_IMAGES])[:-1], "1,199 bytes where the header tells 60 × 5 × 4 = 1,200"),
    "cut labels": (TEST_LABELS, idx(arrays()[TEST_LABELS])[:-3], "17 bytes where the header tells 20"),
    "cut within the header": (TRAIN_IMAGES, LARGE[:9], "ends within its header"),
    "empty": (TRAIN_LABELS, b"", "no IDX file; it begins with b''"),
    "too long": (TEST_IMAGES, idx(arrays()[TEST_IMAGES]) + b"\0", "401 bytes where the header tells 20 × 5 × 4 = 400"),
    "no IDX": (TRAIN_IMAGES, b"\x89PNG\r\n\x1a\n" * 9, "no IDX file; it begins with b'\\x89PNG'"),
    "unknown code": (TRAIN_IMAGES, idx(arrays()[TRAIN_IMAGES], 0x0A), "no IDX file"),
    "floats": (TRAIN_IMAGES, idx(arrays()[TRAIN_IMAGES].astype(">f4"), 0x0D), "values of type float32 (code 0x0D)"),
    "labels for images": (TRAIN_IMAGES, idx(arrays()[TRAIN_LABELS]), "an array of 1 dimension"),
    "images for labels": (TEST_LABELS, idx(arrays()[TEST_IMAGES]), "an array of 3 dimensions"),
    "absurdly large": (TRAIN_IMAGES, LARGE, "0 bytes where the header tells 4,294,967,295 × 4,294,967,295"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_at_fault_is_named_with_the_reason(tmp_path, fault):
    name, content, found = FAULTS[fault]
    folder = write(tmp_path / "idx", arrays() | {name: content})
    with pytest.raises(DatasetError, match="an IDX file cannot be read") as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert found in caught.value.found
    assert caught.value.where == f"dataset.path: {folder / name}"
    assert not (tmp_path / "own.h5").exists()


@pytest.mark.parametrize("fault", sorted({*FAULTS} - {"absurdly large"}))
def test_a_packed_file_at_fault_is_named_too(tmp_path, fault):
    name, content, _ = FAULTS[fault]
    folder = write(tmp_path / "idx", arrays() | {name: content}, packed=[name])
    with pytest.raises(DatasetError, match="an IDX file cannot be read") as caught:
        read_idx(folder)
    assert caught.value.where == f"dataset.path: {folder / name}.gz"


def damaged(packed: bytes, kind: str) -> bytes:
    middle = len(packed) // 2
    return {
        "cut": packed[:middle],
        "cut in its sum": packed[:-2],
        "altered": packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :],
        "no gzip": b"not packed at all",
        "empty": b"",
    }[kind]


@pytest.mark.parametrize("kind", ["cut", "cut in its sum", "altered", "no gzip", "empty"])
@pytest.mark.parametrize("name", [TRAIN_IMAGES, TEST_LABELS])
def test_a_damaged_gzip_file_is_refused(tmp_path, name, kind):
    folder = write(tmp_path / "idx", arrays(), packed=[name])
    path = folder / f"{name}.gz"
    path.write_bytes(damaged(path.read_bytes(), kind))
    with pytest.raises(DatasetError, match="an IDX file cannot be read") as caught:
        read_idx(folder)
    assert caught.value.where == f"dataset.path: {path}"
    assert caught.value.found


def test_a_packed_header_is_believed_only_as_far_as_file_and_memory_allow(tmp_path, monkeypatch):
    folder = write(tmp_path / "idx", arrays() | {TRAIN_IMAGES: LARGE}, packed=[TRAIN_IMAGES])
    with pytest.raises(DatasetError, match="an IDX file cannot be read") as caught:
        read_idx(folder)
    assert "packed bytes where the header tells" in caught.value.found
    folder = write(tmp_path / "large", arrays(), packed=[TRAIN_IMAGES])
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1199))
    with pytest.raises(DatasetError, match="an IDX file cannot be read") as caught:
        read_idx(folder)
    assert "more than the memory holds" in caught.value.found
    assert "gunzip" in caught.value.found


def test_missing_files_are_named_together(tmp_path):
    folder = write(tmp_path / "idx", arrays())
    (folder / TRAIN_LABELS).unlink()
    (folder / TEST_IMAGES).unlink()
    with pytest.raises(DatasetError, match="IDX files are missing") as caught:
        read_idx(folder)
    assert caught.value.found == f"no {TEST_IMAGES}, no {TRAIN_LABELS}"
    for nowhere in (tmp_path / "nowhere", folder / TRAIN_IMAGES):
        with pytest.raises(DatasetError, match="IDX files are missing") as caught:
            read_idx(nowhere)
        assert str(nowhere) in caught.value.where


@pytest.mark.parametrize("part", [TRAIN_LABELS, TEST_LABELS])
def test_images_and_labels_that_differ_in_number_are_refused(tmp_path, part):
    values = arrays()
    values[part] = values[part][:-1]
    with pytest.raises(DatasetError, match="images and labels differ in number") as caught:
        read_idx(write(tmp_path / "idx", values))
    assert part in caught.value.where


def test_images_of_two_sizes_are_refused(tmp_path):
    values = arrays()
    values[TEST_IMAGES] = np.zeros((N_TEST, 4, 4), np.uint8)
    with pytest.raises(DatasetError, match="those to test with differ"):
        read_idx(write(tmp_path / "idx", values))


@pytest.mark.parametrize(("labels", "absent"), [([0, 1, 4], "2, 3"), ([2, 3, 4], "1"), ([0, 1, 255], "2, 3, 4")])
def test_labels_with_gaps_are_refused(tmp_path, labels, absent):
    values = arrays()
    for name in (TRAIN_LABELS, TEST_LABELS):
        values[name] = np.array(labels, np.uint8)[values[name]]
    with pytest.raises(DatasetError, match="labels have gaps") as caught:
        read_idx(write(tmp_path / "idx", values))
    assert f"none of them {absent}" in caught.value.found


def test_a_class_that_only_the_test_images_have_is_refused(tmp_path):
    values = arrays()
    values[TEST_LABELS] = np.arange(N_TEST, dtype=np.uint8) % 4
    with pytest.raises(DatasetError, match="absent from a split") as caught:
        prepare_dataset(config_of(write(tmp_path / "idx", values)), tmp_path / "own.h5")
    assert "3 (5 images) is not in train and valid" in caught.value.where


@pytest.mark.parametrize("shape", [(0, 5, 4), (60, 0, 4)])
def test_files_without_a_pixel_are_refused(tmp_path, shape):
    values = arrays()
    values[TRAIN_IMAGES] = np.zeros(shape, np.uint8)
    with pytest.raises(DatasetError):
        read_idx(write(tmp_path / "idx", values))
