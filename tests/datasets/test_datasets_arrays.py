"""Images as NumPy or HDF5 arrays become the dataset's file, or are refused with file, array and reason."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import SPLITS, open_dataset, prepare_dataset
from ensembleflow.datasets.array_store import StoredArray
from ensembleflow.datasets.arrays import read_arrays
from ensembleflow.errors import DatasetError

N = 30
LABELS = np.arange(N) % 3


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (N, *shape), dtype=np.uint8)


GREY, RGB = pixels(6, 5), pixels(6, 5, 3)
CONTAINERS = ["npz", "compressed npz", "h5", "chunked h5", "folder"]


def write(folder, container, arrays):
    """Write arrays into a container; give its path."""
    if container == "folder":
        path = folder / "arrays"
        path.mkdir()
        for key, values in arrays.items():
            np.save(path / f"{key}.npy", values)
    elif "npz" in container:
        path = folder / "arrays.npz"
        (np.savez_compressed if container.startswith("compressed") else np.savez)(path, **arrays)
    else:
        path = folder / "arrays.h5"
        with h5py.File(path, "w") as file:
            for key, values in arrays.items():
                values = np.asarray(values)
                if values.dtype.kind == "U":
                    file.create_dataset(key, data=values.tolist(), dtype=h5py.string_dtype())
                elif container.startswith("chunked"):
                    chunks = (min(4, max(1, len(values))), *values.shape[1:])
                    file.create_dataset(
                        key, data=values, maxshape=(None, *values.shape[1:]), chunks=chunks, compression=1
                    )
                else:
                    file[key] = values
    return path


def everything(source):
    """All images and labels, in the source's order."""
    return source.read(np.arange(len(source.labels))), source.labels


def refused(path):
    """What a source is refused with, and that it names the path."""
    with pytest.raises(DatasetError) as caught:
        source = read_arrays(path)
        source.read(np.arange(len(source.labels)))
    assert str(path) in caught.value.where
    return caught.value


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("images", [GREY, GREY[..., np.newaxis], RGB], ids=["grey", "one channel", "rgb"])
def test_images_and_labels_are_read_from_every_container(tmp_path, container, images):
    path = write(tmp_path, container, {"images": images, "labels": LABELS})
    source = read_arrays(path)
    expected = images if images.ndim == 4 else images[..., np.newaxis]
    assert source.image_shape == expected.shape[1:]
    assert source.class_names == ("0", "1", "2")
    read, labels = everything(source)
    assert (read.dtype, labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(labels, LABELS)
    some = np.array([29, 3, 3, 17, 0])
    np.testing.assert_array_equal(source.read(some), expected[some])


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_dataset(tmp_path, container):
    path = write(tmp_path, container, {"images": RGB, "labels": LABELS})
    config = DatasetConfig(name="own", source="arrays", path=str(path), valid_fraction=0.2, test_fraction=0.2)
    prepare_dataset(config, tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        assert [len(dataset.labels(split)) for split in SPLITS] == [18, 6, 6]
        rows = {bytes(image): label for image, label in zip(RGB, LABELS, strict=True)}
        for split in SPLITS:
            found = zip(dataset.images(split), dataset.labels(split), strict=True)
            assert all(rows[bytes(image)] == label for image, label in found)


@pytest.mark.parametrize("container", CONTAINERS)
def test_test_images_of_keras_arrays_stay_the_test(tmp_path, container):
    arrays = {"x_train": GREY, "y_train": LABELS[:, np.newaxis], "x_test": GREY[:9] // 2, "y_test": LABELS[:9]}
    path = write(tmp_path, container, arrays)
    config = DatasetConfig(name="own", source="arrays", path=str(path), valid_fraction=0.2, test_fraction=0.6)
    prepare_dataset(config, tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        assert [len(dataset.labels(split)) for split in SPLITS] == [24, 6, 9]
        np.testing.assert_array_equal(dataset.images("test")[..., 0], GREY[:9] // 2)
        np.testing.assert_array_equal(dataset.labels("test"), LABELS[:9])


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int64, np.float16, np.float32, np.float64])
def test_values_that_are_no_bytes_are_kept_as_float32(tmp_path, container, dtype):
    values = (np.random.default_rng(0).integers(0, 60_000, GREY.shape) / 7).astype(dtype)
    source = read_arrays(write(tmp_path, container, {"images": values, "labels": LABELS}))
    read = everything(source)[0]
    assert (source.image_dtype, read.dtype) == ("float32", np.float32)
    np.testing.assert_array_equal(read[..., 0], values.astype(np.float32))


def test_arrays_in_another_byte_or_memory_order_are_read(tmp_path):
    values = (RGB / 255).astype(np.float32)
    arrays = {"images": np.asfortranarray(values.astype(">f4")), "labels": LABELS.astype(">i2")}
    for container in ("folder", "npz", "h5"):
        images, labels = everything(read_arrays(write(tmp_path, container, arrays)))
        np.testing.assert_array_equal(images, values)
        np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_images_may_have_any_number_of_channels(tmp_path, channels):
    images = pixels(6, 5, channels)
    source = read_arrays(write(tmp_path, "npz", {"images": images, "labels": LABELS}))
    assert (source.image_shape, source.image_dtype) == ((6, 5, channels), "uint8")
    np.testing.assert_array_equal(everything(source)[0], images)


@pytest.mark.parametrize("shape", [(7,), (6, 5), (6, 5, 3), (4, 6, 5, 2)])
def test_samples_of_any_rank_are_kept_as_they_are_where_the_config_says_so(tmp_path, shape):
    values = pixels(*shape)
    path = write(tmp_path, "folder", {"images": values, "labels": LABELS})
    config = DatasetConfig(name="own", source="arrays", path=str(path), samples="arrays")
    prepare_dataset(config, tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        assert (dataset.name, dataset.image_shape, dataset.image_dtype) == ("own", shape, "float32")
        rows = {values[place].astype(np.float32).tobytes() for place in range(N)}
        assert {image.tobytes() for split in SPLITS for image in dataset.images(split)} == rows


def test_the_mean_and_deviation_of_the_training_samples_channels_are_in_the_file(tmp_path):
    values = np.random.default_rng(0).normal(1e6, [1, 20, 0], (N, 6, 5, 3))
    path = write(tmp_path, "npz", {"images": values, "labels": LABELS})
    prepare_dataset(DatasetConfig(name="own", source="arrays", path=str(path)), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        train, found = dataset.images("train"), dataset.standardisation
    np.testing.assert_allclose(found.mean, train.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.deviation[:2], train.std(axis=(0, 1, 2), dtype=np.float64)[:2], rtol=1e-9)
    assert found.deviation[2] == 1, "all values are equal"
    standardised = found.apply(train)
    np.testing.assert_allclose(standardised.mean(axis=(0, 1, 2)), 0, atol=1e-2)
    np.testing.assert_allclose(standardised.std(axis=(0, 1, 2)), [1, 1, 0], atol=1e-2)


def test_images_of_bytes_have_no_standardisation_and_their_checksum_of_before(tmp_path):
    path = write(tmp_path, "npz", {"images": RGB, "labels": LABELS})
    prepare_dataset(DatasetConfig(name="own", source="arrays", path=str(path)), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        assert dataset.standardisation is None
        assert dataset.checksum == "a3f541c7eb8440bbfd384e4f255f532be5dbe413e9567f262de61e209b910714"


def test_what_is_rounded_and_channels_that_seem_to_come_first_are_told(tmp_path, caplog):
    caplog.set_level("INFO")
    path = write(tmp_path, "npz", {"images": pixels(3, 8, 8).astype(np.int32) * 2**20, "labels": LABELS})
    read_arrays(path)
    told = [record.getMessage() for record in caplog.records]
    assert any("kept as float32" in each and "int32 from 0 to 2.67387e+08" in each for each in told)
    assert any("rounded to float32" in each for each in told)
    assert any("transpose(0, 2, 3, 1)" in each for each in told)


NAMES = np.array(["Großforaminifère", "b", "珊瑚"])


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("labels", [LABELS, NAMES[LABELS]], ids=["places", "names"])
def test_class_names_are_taken_in_their_order(tmp_path, container, labels):
    path = write(tmp_path, container, {"images": GREY, "labels": labels, "class_names": NAMES})
    source = read_arrays(path)
    assert source.class_names == tuple(NAMES)
    np.testing.assert_array_equal(source.labels, LABELS)


def test_a_folders_class_names_are_lines_of_a_text_file(tmp_path):
    path = write(tmp_path, "folder", {"images": GREY, "labels": LABELS})
    (path / "class_names.txt").write_text("first\r\nsecond \nthird\n\n", encoding="utf-8")
    assert read_arrays(path).class_names == ("first", "second", "third")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["cat", "ant", "bee"], ("ant", "bee", "cat")),
        ([b"cat", b"ant", b"bee"], ("ant", "bee", "cat")),
        ([1, 2, 10], ("1", "2", "10")),
        ([7, 0, 3], ("0", "3", "7")),
    ],
)
def test_without_class_names_each_value_is_a_class_of_that_name(tmp_path, values, names):
    labels = np.array(values)[LABELS]
    for container in ("npz", "h5"):
        source = read_arrays(write(tmp_path, container, {"images": GREY, "labels": labels}))
        assert source.class_names == names
        told = [str(value.decode() if isinstance(value, bytes) else value) for value in labels.tolist()]
        assert [source.class_names[label] for label in source.labels] == told


def test_truth_values_are_two_classes(tmp_path):
    path = write(tmp_path, "h5", {"images": GREY, "labels": LABELS > 0})
    assert read_arrays(path).class_names == ("0", "1")


@pytest.mark.parametrize("container", ["folder", "chunked h5"])
@pytest.mark.parametrize(
    ("arrays", "what", "expected_or_hint"),
    [
        ({"labels": LABELS}, "arrays are missing: images", "x_train"),
        ({"images": GREY}, "arrays are missing: labels", "x_train"),
        ({"x": GREY, "y": LABELS}, "arrays are missing: images, labels", "x_train"),
        ({"x_train": GREY, "y_train": LABELS, "x_test": GREY}, "arrays are missing: y_test", "y_test"),
        ({"images": GREY, "labels": LABELS, "x_test": GREY}, "not clear which", "x_train"),
        ({"images": GREY, "labels": LABELS[:-1]}, "differ in number", "one label an image"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "no images", "(n, height, width)"),
        ({"images": GREY[0], "labels": LABELS[:6]}, "another shape", "(n, height, width)"),
        ({"images": pixels(6, 5, 3, 2), "labels": LABELS}, "another shape", "samples: arrays"),
        ({"images": pixels(6), "labels": LABELS}, "another shape", "samples: arrays"),
        ({"images": GREY.astype(np.complex64), "labels": LABELS}, "another type", "whole numbers or floats"),
        ({"images": GREY > 99, "labels": LABELS}, "another type", "255 *"),
        ({"images": GREY * 1e38, "labels": LABELS}, "no numbers", "nan_to_num"),
        ({"x_train": GREY, "y_train": LABELS, "x_test": GREY / 2, "y_test": LABELS}, "differ", "one type"),
        ({"images": np.where(GREY > 250, np.nan, 0.5), "labels": LABELS}, "no numbers", "nan_to_num"),
        ({"images": GREY, "labels": np.eye(3)[LABELS]}, "labels have another shape", "argmax"),
        ({"images": GREY, "labels": LABELS / 2}, "neither whole numbers nor texts", "astype('int64')"),
        ({"images": GREY, "labels": LABELS - 1}, "a label is negative", "labels from 0"),
        ({"images": GREY, "labels": 0 * LABELS}, "fewer than two classes", "two classes"),
        ({"images": GREY, "labels": LABELS, "class_names": NAMES[:2]}, "no class name", "0 to 1"),
        ({"images": GREY, "labels": NAMES[LABELS], "class_names": NAMES[:2]}, "no class name", "one of the 2"),
        ({"images": GREY, "labels": LABELS, "class_names": np.array(["a", "b", "a"])}, "stand twice", "distinct"),
        ({"images": GREY, "labels": LABELS, "class_names": np.array(["a", "", "c"])}, "has no name", ""),
        ({"images": GREY, "labels": LABELS, "class_names": np.arange(3)}, "another shape or type", "one text"),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": RGB, "y_test": LABELS},
            "train with and those to test with differ",
            "one type",
        ),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": GREY, "y_test": NAMES[LABELS]},
            "some labels are numbers",
            "one kind",
        ),
    ],
)
def test_every_fault_is_one_clear_message(tmp_path, container, arrays, what, expected_or_hint):
    error = refused(write(tmp_path, container, arrays))
    assert what in error.what
    assert expected_or_hint in f"{error.expected} {error.hint}"


def test_a_class_name_without_images_is_named(tmp_path):
    path = write(tmp_path, "npz", {"images": GREY, "labels": LABELS, "class_names": np.array([*NAMES, "void"])})
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(DatasetConfig(name="own", source="arrays", path=str(path)), tmp_path / "own.h5")
    assert "void (0 images) is not in train and valid and test" in caught.value.where


class Touched:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("container", ["npz", "folder"])
@pytest.mark.parametrize("key", ["images", "labels", "class_names"])
def test_pickled_objects_are_refused_and_not_run(tmp_path, capsys, container, key):
    arrays = {"images": GREY, "labels": LABELS, "class_names": NAMES, key: np.array([Touched()] * N, dtype=object)}
    error = refused(write(tmp_path, container, arrays))
    assert "pickled" in error.what
    assert key in error.where
    assert "unpickled" not in capsys.readouterr().out


def test_images_of_different_sizes_in_hdf5_are_refused(tmp_path):
    path = tmp_path / "ragged.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (N,), dtype=h5py.vlen_dtype(np.uint8))
        file["labels"] = LABELS
    assert "another type" in refused(path).what


def test_groups_and_single_values_in_hdf5_are_refused(tmp_path):
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["train/images"], file["train/labels"] = GREY, LABELS
    assert "train/images" in refused(path).found
    with h5py.File(path, "a") as file:
        file["images"], file["labels"] = 1, LABELS
    assert "no images" in refused(path).what
    with h5py.File(path, "a") as file:
        del file["images"], file["labels"]
        file["images"], file["labels"] = h5py.Empty("f4"), LABELS
    assert "cannot be read" in refused(path).what


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kept", [0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, container, kept):
    path = write(tmp_path, container, {"images": pixels(20, 20), "labels": LABELS})
    file = path / "images.npy" if path.is_dir() else path
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    error = refused(path)
    assert "cannot be read" in error.what
    assert "pickle" not in str(error)
    assert "again" in error.hint


def test_a_damaged_chunk_is_refused_where_it_is_read(tmp_path):
    path = write(tmp_path, "chunked h5", {"images": pixels(20, 20), "labels": LABELS})
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(3)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    assert "images" in refused(path).where


@pytest.mark.parametrize("container", ["npz", "compressed npz"])
def test_a_damaged_byte_in_an_npz_is_found_by_its_checksum(tmp_path, container):
    path = write(tmp_path, container, {"images": pixels(20, 20), "labels": LABELS})
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)
    assert "cannot be read" in refused(path).what


@pytest.mark.parametrize("name", ["own.npz", "own.h5", "own.hdf5"])
def test_a_web_page_saved_under_the_files_name_is_no_array(tmp_path, name):
    path = tmp_path / name
    path.write_text("<html>404</html>" * 100)
    error = refused(path)
    assert "cannot be read" in error.what
    assert "pickle" not in str(error)
    assert error.hint


def test_what_is_no_container_is_refused(tmp_path):
    np.save(tmp_path / "images.npy", GREY)
    assert "*.npy" in refused(tmp_path / "images.npy").found
    assert "missing" in refused(tmp_path / "nowhere.npz").what
    assert "missing" in refused(tmp_path / "nowhere").what
    (tmp_path / "empty").mkdir()
    assert "none" in refused(tmp_path / "empty").found
    (tmp_path / "own.npz").write_bytes((tmp_path / "images.npy").read_bytes())
    assert "NUMPY" in refused(tmp_path / "own.npz").found
    (tmp_path / "own.pkl").write_bytes(pickle.dumps(Touched()))
    assert "*.pkl" in refused(tmp_path / "own.pkl").found


def test_arrays_that_are_not_asked_for_are_not_opened(tmp_path):
    path = write(tmp_path, "folder", {"images": GREY, "labels": LABELS})
    np.save(path / "notes.npy", np.array([Touched()], dtype=object))
    assert len(read_arrays(path).labels) == N


def recording(values, block_rows, in_blocks):
    """An array that tells which rows are read of it."""
    reads = []

    def rows(start, stop):
        reads.append((start, stop))
        return values[start:stop]

    return StoredArray("x", values.shape, values.dtype, rows, block_rows, in_blocks), reads


@given(st.lists(st.integers(0, 49), max_size=80), st.integers(1, 60))
def test_each_block_is_read_once_and_only_where_it_is_needed(indices, block_rows):
    values = np.arange(100).reshape(50, 2)
    stored, reads = recording(values, block_rows, in_blocks=True)
    indices = np.array(indices, dtype=np.int64)
    np.testing.assert_array_equal(stored.take(indices), values[indices])
    assert sorted(reads) == sorted({(b * block_rows, min((b + 1) * block_rows, 50)) for b in indices // block_rows})


def test_a_large_hdf5_file_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    """Compressed, it is read in whole chunks up to the bound; neither chunked nor compressed, it is mapped."""
    monkeypatch.setattr("ensembleflow.datasets.array_store._BLOCK_BYTES", 10 * 400)
    images = pixels(20, 20)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(4, 5, 20), compression="gzip")
        file["labels"] = LABELS
    source = read_arrays(tmp_path / "own.h5")
    reads = []
    whole = h5py.Dataset.__getitem__

    def getitem(dataset, key):
        reads.append((dataset.name, key))
        return whole(dataset, key)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", getitem)
    np.testing.assert_array_equal(everything(source)[0][..., 0], images)
    assert reads == [("/images", slice(start, min(start + 8, N))) for start in range(0, N, 8)]
    reads.clear()
    source.read(np.array([9, 10]))
    assert reads == [("/images", slice(8, 16))]
    plain = read_arrays(write(tmp_path, "h5", {"images": images, "labels": LABELS}))
    reads.clear()
    np.testing.assert_array_equal(everything(plain)[0][..., 0], images)
    assert reads == []
