"""CIFAR100's archive is checked before it is opened, and only arrays are unpickled from it."""

import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import prepare_dataset
from ensembleflow.datasets.cifar100 import CIFAR100_MD5, read_cifar100
from ensembleflow.datasets.prepare import split_of
from ensembleflow.errors import DatasetError

N_CLASSES, N_TRAIN, N_TEST = 3, 25, 4


class Pickled:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def part(n_a_class: int, seed: int) -> dict:
    data = np.random.default_rng(seed).integers(0, 256, (n_a_class * N_CLASSES, 3072), dtype=np.uint8)
    labels = np.tile(np.arange(N_CLASSES), n_a_class).tolist()
    return {b"data": data, b"fine_labels": labels, b"coarse_labels": [0] * len(labels), b"filenames": [b"x"]}


def parts() -> dict:
    names = [b"apple", b"bear", b"crab"]
    return {"train": part(N_TRAIN, 0), "test": part(N_TEST, 1), "meta": {b"fine_label_names": names}}


def archive_of(path, members: dict, protocol: int = 4) -> str:
    """Write an archive laid out like the real one; give its MD5."""
    with tarfile.open(path, "w:gz") as archive:
        for name, values in members.items():
            content = pickle.dumps(values, protocol=protocol) if not isinstance(values, bytes) else values
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def python_2_pickle(images: np.ndarray, labels: list[int]) -> bytes:
    """The opcodes that Python 2 and its NumPy wrote, as in the real archive: byte strings and protocol 2."""

    def string(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + string(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + string(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = number(images.shape[0]) + number(images.shape[1]) + b"\x86"
    array += b"(" + number(1) + shape + dtype + b"\x89" + string(images.tobytes()) + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}" + string(b"data") + array + b"s" + string(b"fine_labels") + listed + b"s."


def with_text_keys(members: dict) -> dict:
    return {name: {key.decode(): value for key, value in values.items()} for name, values in members.items()}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_images_labels_and_names_are_read(tmp_path, protocol):
    path = tmp_path / "small.tar.gz"
    md5 = archive_of(path, parts(), protocol)
    source = read_cifar100(path, md5=md5)
    assert source.class_names == ("apple", "bear", "crab")
    assert source.image_shape == (32, 32, 3)
    train = parts()["train"][b"data"]
    image = source.read(7)
    assert image.shape == (32, 32, 3)
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel].ravel(), train[7, channel * 1024 : (channel + 1) * 1024])
    assert source.labels.tolist() == parts()["train"][b"fine_labels"] + parts()["test"][b"fine_labels"]


def test_pickles_of_python_2_are_read(tmp_path):
    path, small = tmp_path / "small.tar.gz", parts()
    for name in ("train", "test"):
        small[name] = python_2_pickle(small[name][b"data"], small[name][b"fine_labels"])
    source = read_cifar100(path, md5=archive_of(path, small))
    same = read_cifar100(path, md5=archive_of(path, parts()))
    assert source.labels.tolist() == same.labels.tolist()
    assert all(np.array_equal(source.read(i), same.read(i)) for i in range(len(source.labels)))


def test_text_keys_are_read_as_well(tmp_path):
    path = tmp_path / "small.tar.gz"
    assert len(read_cifar100(path, md5=archive_of(path, with_text_keys(parts()))).labels) == 87


def test_own_test_images_stay_the_test_and_valid_is_a_share_of_the_training_images(tmp_path):
    path = tmp_path / "small.tar.gz"
    source = read_cifar100(path, md5=archive_of(path, parts(), 4))
    config = DatasetConfig(name="c", source="cifar100", path=str(path), valid_fraction=0.04, test_fraction=0.9)
    splits = split_of(config, source)
    assert splits["test"].tolist() == list(range(N_TRAIN * N_CLASSES, (N_TRAIN + N_TEST) * N_CLASSES))
    assert np.bincount(source.labels[splits["valid"]]).tolist() == [1, 1, 1]
    assert sorted([*splits["train"], *splits["valid"]]) == list(range(N_TRAIN * N_CLASSES))


def test_archive_of_another_checksum_is_refused_before_anything_is_unpickled(tmp_path):
    path, touched = tmp_path / "evil.tar.gz", tmp_path / "touched"
    archive_of(path, parts() | {"train": Pickled(f"touch {touched}")})
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(DatasetConfig(name="c", source="cifar100", path=str(path)), tmp_path / "c.h5")
    assert CIFAR100_MD5 in caught.value.expected
    assert str(path) in caught.value.where
    assert not touched.exists()
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_truncated_archive_has_another_checksum(tmp_path, kept):
    path = tmp_path / "cut.tar.gz"
    md5 = archive_of(path, parts())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DatasetError, match="another checksum") as caught:
        read_cifar100(path, md5=md5)
    assert str(path) in caught.value.where
    assert "download" in caught.value.hint


@pytest.mark.parametrize("member", ["train", "test", "meta"])
def test_pickled_code_is_not_run_even_with_the_right_checksum(tmp_path, member):
    path, touched = tmp_path / "evil.tar.gz", tmp_path / "touched"
    md5 = archive_of(path, parts() | {member: {b"data": Pickled(f"touch {touched}")}})
    with pytest.raises(DatasetError) as caught:
        read_cifar100(path, md5=md5)
    assert "system" in caught.value.found
    assert not touched.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"meta": {b"coarse_label_names": []}},
        {"train": {b"data": np.zeros((3, 3072), np.uint8)}},
        {"train": {b"data": np.zeros((3, 3000), np.uint8), b"fine_labels": [0, 1, 2]}},
        {"train": {b"data": np.zeros((3, 3072), np.float32), b"fine_labels": [0, 1, 2]}},
        {"train": {b"data": np.zeros((3, 3072), np.uint8), b"fine_labels": [0, 1, 3]}},
        {"train": {b"data": np.zeros((3, 3072), np.uint8), b"fine_labels": [0, 1]}},
        {"train": [1, 2]},
        {"train": b""},
        {"train": b"no pickle"},
        {"test": b"\x80\x04"},
    ],
)
def test_archive_that_lacks_a_part_is_refused(tmp_path, change):
    path = tmp_path / "odd.tar.gz"
    md5 = archive_of(path, parts() | change, 4)
    with pytest.raises(DatasetError, match="lacks a part"):
        read_cifar100(path, md5=md5)


def test_missing_member_and_missing_archive_are_refused(tmp_path):
    path = tmp_path / "odd.tar.gz"
    md5 = archive_of(path, {"train": parts()["train"]}, 4)
    with pytest.raises(DatasetError, match="lacks a part"):
        read_cifar100(path, md5=md5)
    for missing in (tmp_path / "nowhere.tar.gz", tmp_path):
        with pytest.raises(DatasetError, match="cannot be read"):
            read_cifar100(missing)
