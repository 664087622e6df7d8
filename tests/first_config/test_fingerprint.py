"""What is found in a folder or a table of images is what was put there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ensembleflow.datasets.image_file import read_image_kind
from ensembleflow.datasets.labelled_images import UnreadableImagesError
from ensembleflow.errors import DatasetError
from ensembleflow.first_config.choices import choose_dataset
from ensembleflow.first_config.fingerprint import look_at_images
from ensembleflow.first_config.found_text import advice_lines, found_lines
from ensembleflow.first_config.image_size import suitable_image_size
from support.made_images import write_class_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "trees", {"oak": 12, "beech": 4, "ash": 8})


def test_classes_sizes_and_kinds_are_counted(folder: Path) -> None:
    Image.new("RGBA", (40, 20)).save(folder / "oak/alpha.png")
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(folder / "ash/deep.png")
    found = look_at_images(folder, 64).fingerprint
    assert found.class_counts == {"ash": 9, "beech": 4, "oak": 13}
    assert (found.smallest_class, found.largest_class, found.imbalance) == ("beech", "oak", 13 / 4)
    assert found.kinds == {"RGB": 24, "with transparency": 1, "16 bits": 1}
    assert found.sides == (16, 16, 40)
    assert found.widths_and_heights == ((16, 16), (40, 20))
    assert (found.image_size, found.has_colour, found.parts, found.unreadable) == (16, True, {}, ())
    assert (found.n_opened, found.n_decoded, found.n_copies) == (26, 26, 0)


def test_copies_and_contradictions_are_named(folder: Path) -> None:
    shutil.copy(folder / "oak/000.png", folder / "oak/copy.png")
    shutil.copy(folder / "oak/001.png", folder / "ash/copy.png")
    look = look_at_images(folder, 64)
    assert (look.fingerprint.n_copies, look.fingerprint.n_contradicting) == (2, 2)
    assert sorted(look.fingerprint.copies) == ["ash/copy.png = oak/001.png", "oak/000.png = oak/copy.png"]
    assert look.contents is not None
    assert len(look.contents) == len(look.images.labels) == 26
    assert any("one of the two is wrong" in line for line in advice_lines(look.fingerprint, dataset_of(look)))


def dataset_of(look):
    return choose_dataset(look.fingerprint)


def test_files_that_cannot_be_read_are_named_ten_of_many_and_left_out(folder: Path) -> None:
    for i in range(12):
        (folder / f"ash/broken-{i:02}.png").write_bytes(b"no image")
    look = look_at_images(folder, 64)
    assert len(look.fingerprint.unreadable) == 12
    assert len(look.images.labels) == 24
    lines = found_lines(look.fingerprint)
    assert sum("broken-" in line for line in lines) == 10
    assert lines[-1].strip() == "and 2 more"


def test_where_no_image_can_be_read_they_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImagesError, match="2 images cannot be read"):
        look_at_images(tmp_path, 64)


def test_parts_stay_what_they_are(tmp_path: Path) -> None:
    counts = {f"{part}/{name}": n for part, n in (("train", 6), ("test", 3)) for name in ("a", "b")}
    look = look_at_images(write_class_folders(tmp_path / "split", counts), 64)
    assert look.fingerprint.parts == {"train": 12, "test": 6}
    keys = [choice.key for choice in dataset_of(look).choices]
    assert "dataset.valid_fraction" in keys
    assert "dataset.test_fraction" not in keys


def test_a_table_is_looked_at_as_the_folder_is(folder: Path) -> None:
    rows = [f"{each.relative_to(folder)},{each.parent.name},{each.stem}" for each in sorted(folder.rglob("*.png"))]
    (folder / "trees.csv").write_text("\n".join(["path,label,group", *rows]), encoding="utf-8")
    look = look_at_images(folder / "trees.csv", 64)
    assert (look.fingerprint.source, look.fingerprint.n_groups) == ("table", 12)
    assert look.fingerprint.class_counts == {"ash": 8, "beech": 4, "oak": 12}
    assert any("12 groups" in line for line in found_lines(look.fingerprint))


def test_of_very_many_images_a_sample_of_each_class_is_opened_and_it_is_said(folder: Path) -> None:
    look = look_at_images(folder, 64, most_images=6)
    assert (look.fingerprint.n_opened, look.fingerprint.n_images, look.contents) == (6, 24, None)
    assert len(look.pixels) == 6
    assert "of 6 of them, drawn at random" in found_lines(look.fingerprint)[0]


def test_the_size_that_is_asked_for_is_taken(folder: Path) -> None:
    look = look_at_images(folder, 64, image_size=24)
    assert look.pixels.shape == (24, 24, 24, 3)


def test_grey_images_have_no_colour_in_whatever_mode(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "grey", {"a": 3, "b": 3}, mode="L")
    for each in folder.rglob("*.png"):
        Image.open(each).convert("RGB").save(each)
    found = look_at_images(folder, 64).fingerprint
    assert (found.has_colour, found.kinds) == (False, {"RGB": 6})
    assert any("no image has any colour" in line for line in found_lines(found))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"")
    with pytest.raises(DatasetError, match="a file is no folder of images"):
        look_at_images(tmp_path / "images.zip", 64)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "grey"), ("L", "grey"), ("LA", "with transparency"), ("P", "palette"), ("RGB", "RGB"), ("I;16", "16 bits")],
)
def test_the_kind_of_an_image_is_told_by_its_file(tmp_path: Path, mode: str, kind: str) -> None:
    Image.new(mode, (7, 5)).save(tmp_path / "image.png")
    assert read_image_kind(tmp_path / "image.png") == (7, 5, kind)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=20),
    st.sampled_from([64, 128]),
)
def test_the_size_is_within_bounds_and_squares_keep_theirs(sizes: list[tuple[int, int]], largest: int) -> None:
    size = suitable_image_size(np.array(sizes), largest)
    sides = {side for pair in sizes for side in pair}
    assert 8 <= size <= largest
    if len(sides) == 1 and 8 <= min(sides) <= largest:
        assert {size} == sides
    else:
        assert size % 8 == 0
