"""A folder of images of any size, mode and format becomes RGB of one size, or is refused by name."""

import numpy as np
import pytest
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import SPLITS, open_dataset, prepare_dataset, read_image
from ensembleflow.errors import DatasetError


def config_of(folder, **changes):
    values = {"name": "own", "source": "image_folder", "path": str(folder), "image_size": 16}
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


def test_all_unreadable_images_are_named_in_one_error(folder, tmp_path):
    whole = (folder / "alpha" / "0.png").read_bytes()
    (folder / "alpha" / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "beta" / "1.jpg").write_text("no image")
    (folder / "gamma" / "empty.tif").write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert "3 images" in caught.value.what
    for name in ("alpha/0.png", "beta/1.jpg", "gamma/empty.tif"):
        assert str(folder / name) in caught.value.where
    assert "alpha/5.png" not in caught.value.where
    assert not (tmp_path / "own.h5").exists()


def test_decompression_bomb_is_refused(folder, tmp_path, monkeypatch):
    Image.new("L", (400, 400)).save(folder / "alpha" / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert "huge.png" in caught.value.where
    assert "bomb" in caught.value.where


def test_pillows_bound_on_size_is_on():
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < 100_000_000


def test_class_of_too_few_images_is_named(folder, tmp_path):
    (folder / "rare").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "rare" / "only.png")
    (folder / "void").mkdir()
    with pytest.raises(DatasetError) as caught:
        prepare_dataset(config_of(folder), tmp_path / "own.h5")
    assert "rare (1 images) is not in valid and test" in caught.value.where
    assert "void (0 images) is not in train and valid and test" in caught.value.where


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


def test_sixteen_bit_grey_keeps_its_scale(tmp_path):
    Image.fromarray(np.array([[0, 32_896], [65_535, 257]], np.uint16)).save(tmp_path / "deep.png")
    image = read_image(tmp_path / "deep.png", (2, 2, 1))
    assert image[..., 0].tolist() == [[0, 128], [255, 1]]


def test_pixels_of_unknown_scale_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_image(tmp_path / "float.tif", (4, 4, 3))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_of_any_mode_becomes_the_asked_shape(tmp_path, mode, channels):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (7, 5), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path, (6, 4, channels))
    assert (image.shape, image.dtype) == ((6, 4, channels), np.uint8)
    assert image.min() >= 250


def test_image_is_turned_as_its_camera_says(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 4:] = 255
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png", (8, 4, 1))[..., 0]
    assert turned[0].max() == 0
    assert turned[-1].min() == 255
