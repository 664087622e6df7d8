"""Images that are identical in two parts, or in two classes, are told, kept together or refused."""

from __future__ import annotations

import shutil
from collections import Counter

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import SPLITS, open_dataset, prepare_dataset
from ensembleflow.datasets.duplicates import Duplicates, contents_of, find_duplicates
from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.errors import DatasetError

CLASSES = ("ant", "bee")


def image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Two classes of twenty different images."""
    for place, name in enumerate(CLASSES):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(20):
            image(100 * place + i).save(tmp_path / "own" / name / f"{i:02}.png")
    return tmp_path / "own"


def prepared(folder, **changes):
    config = {"name": "own", "source": "image_folder", "path": str(folder), "image_size": 8}
    config |= {"valid_fraction": 0.2, "test_fraction": 0.2} | changes
    path = folder.parent / "own.h5"
    prepare_dataset(DatasetConfig(**config), path)
    return path


def parts_of_contents(path):
    """For each content the parts in which it stands."""
    parts: dict[int, set[str]] = {}
    with open_dataset(path) as dataset:
        for split in SPLITS:
            for content in contents_of(dataset.images(split)).tolist():
                parts.setdefault(content, set()).add(split)
    return parts


def twice(folder):
    """Each image once more, in another format."""
    for name in CLASSES:
        for file in sorted((folder / name).iterdir()):
            Image.open(file).save(file.with_name(f"copy_{file.stem}.bmp"))


def test_images_without_copies_are_split_as_ever_and_nothing_is_told(folder, caplog):
    told = prepared(folder).read_bytes()
    assert prepared(folder, duplicates="together").read_bytes() == told
    assert prepared(folder, duplicates="refuse").read_bytes() == told
    with open_dataset(folder.parent / "own.h5") as dataset:
        assert dataset.duplicates == Duplicates()
    with h5py.File(folder.parent / "own.h5") as file:
        assert "duplicates" not in file.attrs
    assert "identical" not in caplog.text


def test_copies_in_two_parts_are_counted_and_named_in_log_and_file(folder, caplog):
    twice(folder)
    path = prepared(folder)
    with open_dataset(path) as dataset:
        contents = {split: contents_of(dataset.images(split)).tolist() for split in SPLITS}
        duplicates = dataset.duplicates
    assert duplicates.n_test == sum(each in contents["train"] + contents["valid"] for each in contents["test"]) > 0
    assert duplicates.n_valid == sum(each in contents["train"] for each in contents["valid"]) > 0
    assert duplicates.n_contradicting == 0
    assert f"{duplicates.n_test} of 16 test images and {duplicates.n_valid} of 16 validation images" in caplog.text
    for pair in duplicates.leaked:
        one, other = pair.split(" = ")
        assert {one.replace("copy_", "")[:6], other.replace("copy_", "")[:6]} == {one.replace("copy_", "")[:6]}
        assert pair in caplog.text


def test_every_test_image_may_be_a_copy(folder, tmp_path, caplog):
    pixels = np.stack([np.asarray(image(i)) for i in range(40)])
    labels = np.arange(40) % 2
    np.savez(tmp_path / "own.npz", x_train=pixels, y_train=labels, x_test=pixels[:8], y_test=labels[:8])
    config = DatasetConfig(name="own", source="arrays", path=str(tmp_path / "own.npz"))
    prepare_dataset(config, tmp_path / "own.h5")
    assert "8 of 8 test images" in caplog.text
    assert "image 40" in caplog.text
    caplog.clear()
    prepare_dataset(config.model_copy(update={"duplicates": "together"}), tmp_path / "own.h5")
    assert "8 training images are identical to test images and are left out" in caplog.text
    assert all(len(parts) == 1 for parts in parts_of_contents(tmp_path / "own.h5").values())
    with open_dataset(tmp_path / "own.h5") as dataset:
        np.testing.assert_array_equal(dataset.images("test"), pixels[:8])
        assert dataset.duplicates == Duplicates()


def test_copies_in_two_classes_are_counted_and_named(folder, caplog):
    shutil.copy(folder / "ant" / "03.png", folder / "bee" / "is_it_an_ant.png")
    with open_dataset(prepared(folder)) as dataset:
        assert dataset.duplicates.n_contradicting == 2
        (pair,) = dataset.duplicates.contradicting
    assert set(pair.split(" = ")) == {"ant/03.png", "bee/is_it_an_ant.png"}
    assert f"2 images are identical to one of another class: {pair}" in caplog.text


def test_together_puts_copies_into_one_part_and_keeps_all_images(folder):
    twice(folder)
    shutil.copy(folder / "ant" / "03.png", folder / "bee" / "is_it_an_ant.png")
    path = prepared(folder, duplicates="together")
    assert all(len(parts) == 1 for parts in parts_of_contents(path).values())
    with open_dataset(path) as dataset:
        counts = Counter(label for split in SPLITS for label in dataset.labels(split).tolist())
        assert counts == {0: 40, 1: 41}
        assert (dataset.duplicates.n_test, dataset.duplicates.n_valid) == (0, 0)
        assert all(set(dataset.labels(split)) == {0, 1} for split in SPLITS)


def test_refuse_names_the_copies_and_makes_nothing(folder):
    shutil.copy(folder / "ant" / "03.png", folder / "bee" / "is_it_an_ant.png")
    with pytest.raises(DatasetError, match="identical images stand in two parts or two classes") as caught:
        prepared(folder, duplicates="refuse")
    assert "ant/03.png" in caught.value.found
    assert "dataset.duplicates" in caught.value.hint
    assert not (folder.parent / "own.h5").exists()


def test_copies_and_unreadable_images_that_are_skipped_go_together(folder, caplog):
    twice(folder)
    (folder / "ant" / "00.png").write_bytes(b"")
    path = prepared(folder, duplicates="together", unreadable_images="skip")
    assert all(len(parts) == 1 for parts in parts_of_contents(path).values())
    assert "1 of 80 images cannot be read" in caplog.text


def test_all_unreadable_images_are_told_at_once_where_copies_are_looked_for(folder, monkeypatch):
    monkeypatch.setattr("ensembleflow.datasets.duplicates._IMAGES_A_READ", 7)
    for number in ("03", "19"):
        (folder / CLASSES[0] / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImagesError, match="2 images cannot be read"):
        prepared(folder, duplicates="together")


def test_a_folder_without_a_readable_image_is_told_where_copies_are_looked_for(folder):
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="classes are absent"):
        prepared(folder, duplicates="together", unreadable_images="skip")


def test_digits_are_all_different(tmp_path, caplog):
    prepare_dataset(DatasetConfig(duplicates="refuse"), tmp_path / "digits.h5")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=40))
def test_copies_are_counted_as_by_comparing_each_with_each(drawn):
    """Of each image: its content, its class, its part."""
    contents, labels, parts = (np.array(column) for column in zip(*drawn, strict=True))
    splits = {name: np.flatnonzero(parts == part) for part, name in enumerate(SPLITS)}
    images = LabelledImages(CLASSES, labels, (1, 1, 1), lambda indices: np.zeros(()))
    checksums = {name: contents[indices].astype(np.uint64) for name, indices in splits.items()}
    found = find_duplicates(images, splits, checksums)
    same = contents[:, np.newaxis] == contents
    earlier = (same & (parts[:, np.newaxis] > parts)).any(axis=1)
    assert found.n_test == np.sum(earlier & (parts == 2))
    assert found.n_valid == np.sum(earlier & (parts == 1))
    assert found.n_contradicting == np.sum((same & (labels[:, np.newaxis] != labels)).any(axis=1))
    assert bool(found.leaked) == bool(found.n_test or found.n_valid)
    assert bool(found.contradicting) == bool(found.n_contradicting)
    assert Duplicates.from_json(found.as_json()) == found
