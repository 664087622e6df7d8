"""A folder of images of any size, mode and format becomes RGB of one size, or is refused by name."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import SPLITS, open_dataset, prepare_dataset
from ensembleflow.datasets.labelled_images import UnreadableImagesError
from ensembleflow.errors import DatasetError


def config_of(folder, **changes):
    values = {"name": "own", "source": "image_folder", "path": str(folder), "image_size": 16}
    values |= {"valid_fraction": 0.2, "test_fraction": 0.2}
    return DatasetConfig(**values | changes)


@pytest.fixture
def folder(tmp_path):
    """Three classes of ten images, each of one colour, in many sizes and formats."""
    root = tmp_path / "images"
    for shade, name in enumerate(["beta", "alpha", "gamma"]):
        (root / name).mkdir(parents=True)
        for i in range(10):
            suffix = ["png", "jpg", "bmp", "tif", "webp"][i % 5]
            Image.new("RGB", (10 + 3 * i, 40 - 2 * i), (80 * shade, 10, 200)).save(root / name / f"{i}.{suffix}")
    return root


def test_classes_are_the_sorted_folder_names_and_images_have_one_shape(folder, tmp_path):
    prepare_dataset(config_of(folder), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        assert dataset.class_names == ["alpha", "beta", "gamma"]
        assert dataset.image_shape == (16, 16, 3)
        assert [len(dataset.labels(split)) for split in SPLITS] == [18, 6, 6]
        for split in SPLITS:
            red = dataset.images(split)[..., 0].mean(axis=(1, 2))
            expected = np.array([80, 0, 160])[dataset.labels(split)]
            np.testing.assert_allclose(red, expected, atol=6)


def test_same_folder_gives_the_same_bytes(folder, tmp_path):
    for name in ("one", "again"):
        prepare_dataset(config_of(folder), tmp_path / f"{name}.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()


def test_a_class_whose_name_is_no_text_is_refused_by_name(folder, tmp_path):
    os.rename(folder / "gamma", folder / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DatasetError, match="not in UTF-8") as error:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert r"b'caf\xe9'" in str(error.value)
    assert "rename" in error.value.hint


@pytest.fixture
def broken(folder):
    """Three images of three classes that cannot be read: cut off in the middle, no image, empty."""
    for name in ("alpha/0.png", "beta/1.jpg"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "gamma" / "empty.tif").write_bytes(b"")
    return {"alpha/0.png", "beta/1.jpg", "gamma/empty.tif"}


@pytest.mark.parametrize("threads", [1, 3])
def test_all_unreadable_images_are_named_in_one_error(folder, broken, tmp_path, threads):
    with pytest.raises(UnreadableImagesError) as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5", threads)
    assert caught.value.what == "3 images cannot be read"
    assert "dataset.unreadable_images: skip" in caught.value.hint
    named = {line.strip().partition(": ")[0] for line in caught.value.where.splitlines()}
    assert named == {str(folder / name) for name in broken}
    assert not (tmp_path / "own.h5").exists()


def test_skipped_images_are_named_in_the_log_and_the_others_are_split_by_class(folder, broken, tmp_path, caplog):
    with caplog.at_level("INFO"):
        prepare_dataset(config_of(folder, unreadable_images="skip"), tmp_path / "own.h5")
    assert "3 of 31 images" in caplog.text
    assert all(str(folder / name) in caplog.text for name in broken)
    for name in broken:
        (folder / name).unlink()
    prepare_dataset(config_of(folder), tmp_path / "mended.h5")
    with open_dataset(tmp_path / "own.h5") as dataset, open_dataset(tmp_path / "mended.h5") as mended:
        assert dataset.checksum == mended.checksum, "as if they had been removed"
        counts = {split: np.bincount(dataset.labels(split)).tolist() for split in SPLITS}
    assert counts == {"train": [5, 5, 6], "valid": [2, 2, 2], "test": [2, 2, 2]}


def test_a_class_that_skipping_leaves_too_few_images_of_is_named(folder, tmp_path):
    for file in sorted((folder / "beta").iterdir())[2:]:
        file.write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(config_of(folder, unreadable_images="skip"), tmp_path / "own.h5")
    assert "beta (2 images) is not in valid and test" in caught.value.where


def test_the_number_of_threads_changes_no_byte(folder, tmp_path):
    for threads in (1, 4):
        prepare_dataset(config_of(folder), tmp_path / f"{threads}.h5", threads)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "4.h5").read_bytes()


def test_progress_is_told_while_images_are_read(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("ensembleflow.datasets.dataset_file._PROGRESS_SECONDS", 0)
    with caplog.at_level("INFO"):
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    told = [record.getMessage() for record in caplog.records if getattr(record, "progress", False)]
    assert told == [f"own: {n} of 30 images read" for n in (18, 24, 30)]


def test_class_of_too_few_images_is_named(folder, tmp_path):
    (folder / "rare").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "rare" / "only.png")
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert "rare (1 images) is not in valid and test" in caught.value.where


def test_classes_without_an_image_are_named(folder, tmp_path):
    (folder / "void").mkdir()
    (folder / "documents").mkdir()
    (folder / "documents" / "paper.pdf").write_bytes(b"%PDF")
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert "no image" in caught.value.what
    assert str(folder / "void") in caught.value.where
    assert str(folder / "documents") in caught.value.where
    assert "alpha" not in caught.value.where


def test_classes_one_folder_deeper_are_told(folder, tmp_path):
    """The layout that some archives have: one/cat/1.png, two/cat/2.png. That of train and test is read as it is."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "one").symlink_to(folder)
    with pytest.raises(DatasetError, match="fewer than two classes") as caught:
        prepare_dataset(config_of(tmp_path / "archive"), tmp_path / "own.h5")
    assert "right above them" in caught.value.hint
    (tmp_path / "archive" / "two").symlink_to(folder)
    with pytest.raises(DatasetError, match="classes have no image") as caught:
        prepare_dataset(config_of(tmp_path / "archive"), tmp_path / "own.h5")
    assert "right above them" in caught.value.hint
    assert "alpha" in caught.value.hint


def test_a_stray_folder_beside_classes_with_images_is_not_taken_for_the_data(folder, tmp_path):
    shutil.copytree(folder, folder / "backup" / "of_last_year")
    with pytest.raises(DatasetError, match="classes have no image") as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert str(folder / "backup") in caught.value.where
    assert "right above them" not in caught.value.hint
    assert "remove" in caught.value.hint
    alone = tmp_path / "alone"
    (alone / "alpha" / "thumbnails").mkdir(parents=True)
    (alone / "alpha" / "only.png").write_bytes((folder / "alpha" / "0.png").read_bytes())
    (alone / "alpha" / "thumbnails" / "only.png").write_bytes((folder / "alpha" / "0.png").read_bytes())
    with pytest.raises(DatasetError, match="fewer than two classes") as caught:
        prepare_dataset(config_of(alone), tmp_path / "own.h5")
    assert caught.value.hint is None


def test_of_thousands_of_files_of_an_unread_format_ten_are_named(folder, tmp_path, caplog):
    for i in range(3000):
        (folder / "alpha" / f"{i:04}.raw").write_bytes(b"")
    prepare_dataset(config_of(folder), tmp_path / "own.h5")
    (told,) = [record.getMessage() for record in caplog.records if "named like an image" in record.getMessage()]
    assert "0000.raw" in told
    assert told.endswith("0009.raw and 2990 more")
    assert len(told) < 400


def test_of_many_unreadable_images_ten_are_named_and_the_log_names_all(folder, tmp_path, caplog):
    for i in range(25):
        (folder / "beta" / f"broken{i:02}.png").write_bytes(b"")
    with caplog.at_level("INFO"), pytest.raises(UnreadableImagesError) as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert caught.value.what == "25 images cannot be read"
    assert len(caught.value.where.splitlines()) == 11
    assert caught.value.where.endswith("and 15 more")
    assert all(f"broken{i:02}.png: " in caplog.text for i in range(25))


def test_links_are_followed_and_a_dangling_one_is_an_image_that_cannot_be_read(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (folder / "alpha").rename(elsewhere)
    (folder / "alpha").symlink_to(elsewhere)
    (folder / "beta" / "linked.png").symlink_to(elsewhere / "0.png")
    prepare_dataset(config_of(folder), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        assert sum(len(dataset.labels(split)) for split in SPLITS) == 31
    (folder / "beta" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "beta" / "loop.png").symlink_to(folder / "beta" / "loop.png")
    with pytest.raises(UnreadableImagesError) as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert "2 images" in caught.value.what
    assert "dangling.png: No such file" in caught.value.where
    assert "loop.png: Too many levels" in caught.value.where


def test_a_pipe_named_like_an_image_is_not_waited_for(folder, tmp_path, caplog):
    os.mkfifo(folder / "alpha" / "pipe.png")
    prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert "pipe.png" in caplog.text


@contextmanager
def without_roots_rights():
    """Run as a user who may not read what others have closed."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_told(folder):
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o777)
        root = Path(open_to_all) / "images"
        shutil.copytree(folder, root)
        (root / "alpha" / "3.tif").chmod(0)
        with without_roots_rights(), pytest.raises(UnreadableImagesError) as caught:
            prepare_dataset(config_of(root), Path(open_to_all) / "own.h5")
        assert caught.value.what == "an image cannot be read"
        assert "alpha/3.tif: Permission denied" in caught.value.where
        (root / "beta").chmod(0)
        with (
            without_roots_rights(),
            pytest.raises(DatasetError, match="folder of images cannot be read") as caught,
        ):
            prepare_dataset(config_of(root), Path(open_to_all) / "own.h5")
        (root / "beta").chmod(0o700)
    assert str(root / "beta") in caught.value.where
    assert caught.value.found == "Permission denied"


def test_hidden_and_other_files_are_left_out_with_a_warning(folder, tmp_path, caplog):
    (folder / "alpha" / "notes.txt").write_text("written in the laboratory")
    (folder / "alpha" / ".DS_Store").write_bytes(b"\0")
    (folder / "alpha" / "nested").mkdir()
    (folder / ".thumbnails").mkdir()
    (folder / "LICENCE").write_text("free")
    prepare_dataset(config_of(folder), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        assert sum(len(dataset.labels(split)) for split in SPLITS) == 30
    assert "notes.txt" in caplog.text
    assert "nested" in caplog.text


@pytest.mark.parametrize("broken", ["missing", "file", "one class", "no class"])
def test_folder_that_holds_no_classes_is_refused(folder, tmp_path, broken):
    path = {"missing": tmp_path / "nowhere", "file": folder / "alpha" / "0.png", "no class": folder / "alpha"}.get(
        broken
    )
    if broken == "one class":
        path = tmp_path / "single"
        (path / "alpha").mkdir(parents=True)
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(config_of(path), tmp_path / "own.h5")
    assert str(path) in caught.value.where
    assert "sub-folder" in caught.value.expected
