"""All faults of a source are told in one message, and names of classes that cannot be told apart are among them."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.errors import DatasetError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


def make_class(folder, name, n_images=10):
    (folder / name).mkdir(parents=True)
    for i in range(n_images):
        Image.fromarray(PIXELS[i] ^ np.uint8(zlib.crc32(name.encode()) % 256)).save(folder / name / f"{i}.png")


@pytest.fixture
def folder(tmp_path):
    for name in ("ant", "bee", "cat"):
        make_class(tmp_path / "own", name)
    return tmp_path / "own"


def prepare(folder, **changes):
    config = {"name": "own", "source": "image_folder", "path": str(folder), "image_size": 8}
    config |= {"valid_fraction": 0.2, "test_fraction": 0.2} | changes
    prepare_dataset(DatasetConfig(**config), folder.parent / "own.h5")


def refusal(folder, **changes):
    with pytest.raises(DatasetError) as caught:
        prepare(folder, **changes)
    assert not (folder.parent / "own.h5").exists()
    return caught.value


def test_all_faults_of_a_folder_are_told_at_once(folder):
    (folder / "void").mkdir()
    make_class(folder, "rare", 2)
    make_class(folder, "cat ")
    (folder / "ant" / "broken.png").write_bytes(b"")
    (folder / "bee" / "1.png").write_bytes((folder / "bee" / "1.png").read_bytes()[:50])
    error = refusal(folder)
    assert error.what == "the images have 4 faults"
    for told in (
        "1. classes have no image",
        str(folder / "void"),
        "2. names of classes look the same",
        "'cat' and 'cat '",
        "3. classes are absent from a split",
        "rare (2 images) is not in valid and test",
        "4. 2 images cannot be read",
        str(folder / "ant" / "broken.png"),
        str(folder / "bee" / "1.png"),
    ):
        assert told in error.found


@pytest.mark.parametrize("skipping", ["refuse", "skip"])
def test_images_to_be_skipped_are_no_fault(folder, skipping):
    (folder / "void").mkdir()
    (folder / "ant" / "broken.png").write_bytes(b"")
    error = refusal(folder, unreadable_images=skipping)
    assert error.what == ("the images have 2 faults" if skipping == "refuse" else "classes have no image")


def test_one_fault_is_told_by_itself(folder):
    (folder / "void").mkdir()
    assert refusal(folder).what == "classes have no image"


@pytest.mark.parametrize("name", [" ", "\t", "\u2003", "\u200b", "\u00a0 "])
def test_a_class_named_by_blanks_alone_is_refused(folder, name):
    make_class(folder, name)
    error = refusal(folder)
    assert error.what == "a class has no name"
    assert repr(name) in error.found


@pytest.mark.parametrize("name", ["cat ", " cat", "cat\t", "ca\u200bt", "\u00a0cat"])
def test_names_that_look_the_same_are_refused(folder, name):
    make_class(folder, name)
    error = refusal(folder)
    assert error.what == "names of classes look the same"
    assert "'cat'" in error.found
    assert repr(name) in error.found


@pytest.mark.parametrize(("one", "other"), [("black cat", "black  cat"), ("caf\u00e9", "cafe\u0301")])
def test_runs_of_blanks_and_composed_letters_look_the_same(folder, one, other):
    make_class(folder, one)
    make_class(folder, other)
    assert refusal(folder).what == "names of classes look the same"


def test_names_that_differ_in_case_are_told_and_kept(folder, caplog):
    make_class(folder, "Cat")
    prepare(folder)
    assert "own: classes differ only in upper and lower case: 'Cat' and 'cat'" in caplog.text
    with open_dataset(folder.parent / "own.h5") as dataset:
        assert dataset.class_names == ["Cat", "ant", "bee", "cat"]


def test_other_names_are_not_told(folder, caplog):
    make_class(folder, "ca t")
    make_class(folder, "c\u00e4t")
    prepare(folder)
    assert caplog.text == ""


@pytest.mark.parametrize("names", [["cat", "cat "], ["cat", ""], ["cat", " "]])
@pytest.mark.parametrize("given_as", ["class_names", "labels"])
def test_names_in_arrays_are_held_to_the_same(tmp_path, names, given_as):
    images, places = np.repeat(PIXELS, 2, axis=0), np.arange(20) % 2
    if given_as == "class_names":
        np.savez(tmp_path / "own.npz", images=images, labels=places, class_names=np.array(names))
    else:
        np.savez(tmp_path / "own.npz", images=images, labels=np.array(names)[places])
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(DatasetConfig(name="own", source="arrays", path=str(tmp_path / "own.npz")), tmp_path / "own.h5")
    assert caught.value.what in ("a class has no name", "names of classes look the same")
