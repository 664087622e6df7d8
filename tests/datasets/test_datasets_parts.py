"""Folders that are split already stay what they are; what they lack is cut from the training images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import SPLITS, open_dataset, prepare_dataset
from ensembleflow.datasets.class_folders import list_class_folders, list_parts
from ensembleflow.datasets.source_state import find_source_files, source_inputs, source_state
from ensembleflow.errors import DatasetError

N_IMAGES = {"train": 20, "valid": 5, "test": 8}  # a class


def config_of(folder, **changes):
    values = {"name": "own", "source": "image_folder", "path": str(folder), "image_size": 8}
    return DatasetConfig(**values | {"valid_fraction": 0.2, "test_fraction": 0.2} | changes)


def make_part(folder, part: str, name: str | None = None) -> None:
    """The images of a part: its number in red, the class's in green, their own in blue."""
    for label, class_name in enumerate(("oak", "beech")):
        (folder / (name or part) / class_name).mkdir(parents=True)
        for number in range(N_IMAGES[part]):
            pixels = np.full((8, 8, 3), (100 * SPLITS.index(part), 100 * label, 10 * number), np.uint8)
            Image.fromarray(pixels).save(folder / (name or part) / class_name / f"{number}.png")


@pytest.fixture
def folder(tmp_path):
    for part in SPLITS:
        make_part(tmp_path / "images", part)
    return tmp_path / "images"


def read(path, part: str):
    """The part and the class that each image shows, and its label."""
    with open_dataset(path) as dataset:
        pixels = dataset.images(part)[:, 0, 0, :]
        assert dataset.class_names == ["beech", "oak"]
        return pixels[:, 0] // 100, 1 - pixels[:, 1] // 100, dataset.labels(part)


def test_three_parts_stay_what_they_are(folder, tmp_path):
    prepare_dataset(config_of(folder), tmp_path / "own.h5")
    for number, part in enumerate(SPLITS):
        parts, shown, labels = read(tmp_path / "own.h5", part)
        assert parts.tolist() == [number] * 2 * N_IMAGES[part]
        assert shown.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("lacking", "sizes"), [("valid", [32, 8, 16]), ("test", [32, 10, 8]), ("", [40, 10, 16])], ids=str
)
def test_what_is_lacking_is_cut_from_the_training_images(folder, tmp_path, lacking, sizes):
    if lacking:
        shutil.rmtree(folder / lacking)
    prepare_dataset(config_of(folder), tmp_path / "own.h5")
    found = {part: read(tmp_path / "own.h5", part)[0].tolist() for part in SPLITS}
    assert [len(found[part]) for part in SPLITS] == sizes
    for part, numbers in found.items():
        assert set(numbers) == {0 if part == lacking else SPLITS.index(part)}


def test_validation_images_come_in_a_mixed_order(folder, tmp_path):
    prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert 0 < read(tmp_path / "own.h5", "valid")[2][:5].sum() < 5


@pytest.mark.parametrize("names", [("training", "val", "testing"), ("Train", "Validation", "TEST")])
def test_parts_may_be_called_otherwise(tmp_path, names):
    for part, name in zip(SPLITS, names, strict=True):
        make_part(tmp_path / "images", part, name)
    assert list(list_parts(tmp_path / "images")) == list(SPLITS)
    prepare_dataset(config_of(tmp_path / "images"), tmp_path / "own.h5")
    assert set(read(tmp_path / "own.h5", "test")[0].tolist()) == {2}


def test_classes_that_are_called_train_and_test_are_classes(tmp_path):
    for name in ("train", "test"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.full((8, 8, 3), 10 * number + (name == "test"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    prepare_dataset(config_of(tmp_path / "images"), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        assert dataset.class_names == ["test", "train"]


@pytest.mark.parametrize("others", [("train", "extra"), ("train",)], ids="-".join)
def test_other_folders_of_folders_are_told(tmp_path, others):
    for name in others:
        make_part(tmp_path / "images", "train", name)
    with pytest.raises(DatasetError) as error:
        prepare_dataset(config_of(tmp_path / "images"), tmp_path / "own.h5")
    assert "called train, valid and test" in str(error.value)


NEARLY = {
    "an image beside the classes": (
        lambda folder: copy_image(folder, "train/stray.png"),
        "train/stray.png lies beside",
    ),
    "a part without classes": (lambda folder: (folder / "dev").mkdir(), "dev is none"),
    "an empty part": (lambda folder: empty(folder / "valid"), "valid holds no folder"),
    "a part twice": (lambda folder: shutil.copytree(folder / "valid", folder / "val"), "two folders are valid"),
    "no training": (lambda folder: shutil.rmtree(folder / "train"), "there is no train"),
    "a part that is a file": (lambda folder: replaced(folder / "test", Path.touch), "test is no folder"),
    "a part that leads nowhere": (
        lambda folder: replaced(folder / "test", lambda path: path.symlink_to("/nowhere")),
        "test is no folder",
    ),
    "flat test images": (lambda folder: flatten(folder / "test"), "test/0.png lies beside the classes"),
}


def copy_image(folder, name):
    shutil.copy(folder / "train/oak/0.png", folder / name)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def replaced(folder, make):
    shutil.rmtree(folder)
    make(folder)


def flatten(folder):
    for path in (folder / "oak").iterdir():
        path.rename(folder / path.name)
    shutil.rmtree(folder / "oak")
    shutil.rmtree(folder / "beech")


@pytest.mark.parametrize("fault", NEARLY)
def test_what_keeps_folders_from_being_parts_is_told(folder, tmp_path, fault):
    spoil, reason = NEARLY[fault]
    spoil(folder)
    with pytest.raises(DatasetError, match="folders of parts cannot be told from classes") as error:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert reason in error.value.found
    source_inputs(config_of(folder), tmp_path / "own.h5")  # a plan is made all the same


def test_a_part_that_leads_to_itself_is_told(folder, tmp_path):
    replaced(folder / "test", lambda path: path.symlink_to("test"))
    with pytest.raises(DatasetError, match="Too many levels of symbolic links"):
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    source_inputs(config_of(folder), tmp_path / "own.h5")


def test_a_part_behind_a_link_that_leads_elsewhere_is_noticed(folder, tmp_path):
    (folder / "test").rename(tmp_path / "test1")
    shutil.copytree(tmp_path / "test1", tmp_path / "test2")
    (folder / "test").symlink_to(tmp_path / "test1")
    config = config_of(folder)
    prepare_dataset(config, tmp_path / "own.h5")
    recorded = find_source_files(config).state
    (tmp_path / "test2/oak/0.png").write_bytes((tmp_path / "test2/oak/1.png").read_bytes())
    (tmp_path / "test1").rename(tmp_path / "test0")
    (tmp_path / "test2").rename(tmp_path / "test1")
    assert source_state(config, tmp_path / "own.h5", recorded) != recorded


def test_a_class_that_is_absent_from_one_part_is_told(folder, tmp_path):
    shutil.rmtree(folder / "test/oak")
    with pytest.raises(DatasetError, match="classes are absent") as error:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert "oak (25 images) is not in test" in str(error.value)


def test_an_empty_class_folder_is_told_by_its_path(folder, tmp_path):
    for path in (folder / "valid/oak").iterdir():
        path.unlink()
    with pytest.raises(DatasetError) as error:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert f"dataset.path: {folder}/valid/oak" in str(error.value)


def test_copies_of_the_other_parts_are_left_out_of_training(folder, tmp_path):
    for part, number in (("test", 3), ("valid", 4)):
        (folder / f"train/oak/copy-{part}.png").write_bytes((folder / f"{part}/oak/{number}.png").read_bytes())
    prepare_dataset(config_of(folder, duplicates="together"), tmp_path / "own.h5")
    assert set(read(tmp_path / "own.h5", "train")[0].tolist()) == {0}


def test_a_group_that_is_in_two_of_the_folders_is_refused(folder, tmp_path):
    with pytest.raises(DatasetError, match="groups stand in two parts") as error:
        prepare_dataset(config_of(folder, group_pattern=r"(\d+)\.png"), tmp_path / "own.h5")
    assert "0 (in train and valid and test)" in str(error.value)


def test_unreadable_images_of_a_part_can_be_skipped(folder, tmp_path):
    (folder / "test/oak/0.png").write_bytes(b"no image")
    prepare_dataset(config_of(folder, unreadable_images="skip"), tmp_path / "own.h5")
    parts, shown, labels = read(tmp_path / "own.h5", "test")
    assert (len(parts), set(parts.tolist())) == (15, {2})
    assert shown.tolist() == labels.tolist()


def test_a_moved_image_is_noticed(folder, tmp_path):
    config = config_of(folder)
    assert [each.part for each in list_class_folders(folder)] == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    assert folder / "test/oak" in source_inputs(config, tmp_path / "own.h5")
    prepare_dataset(config, tmp_path / "own.h5")
    recorded = find_source_files(config).state
    assert source_state(config, tmp_path / "own.h5", recorded) == recorded
    (folder / "train/oak/19.png").rename(folder / "test/oak/19.png")
    assert source_state(config, tmp_path / "own.h5", recorded) != recorded
