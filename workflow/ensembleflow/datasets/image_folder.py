"""A folder with one sub-folder of images a class."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.image_file import is_image_name, read_image
from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.errors import DatasetError
from ensembleflow.io.folder import is_utf8

__all__ = ["read_image_folder"]

_LOG = logging.getLogger(__name__)
_EXPECTED = "a folder with one sub-folder of images a class"


def read_image_folder(path: str | Path, image_size: int, threads: int = 1) -> LabelledImages:
    """List a folder's images; each is read as RGB and resized when asked for.

    Class names are the sub-folders' names, sorted. Links are followed. Hidden files, folders within a class's
    folder and files that are not named like an image are left out, with a warning.

    Args:
        path: the folder.
        image_size: height and width of the images in pixels.
        threads: images decoded side by side; what is read does not depend on it. Threads do, for Pillow decodes and
            resizes without holding Python's lock.

    Raises:
        DatasetError: the folder or a class's folder cannot be listed, there are fewer than two classes, a class's name
            is not in UTF-8, or a class has no image.
    """
    folder = Path(path)
    image_shape = (image_size, image_size, 3)
    try:
        class_names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
        if len(class_names) < 2:
            raise DatasetError(
                "the folder of images has fewer than two classes",
                where=f"dataset.path: {folder}",
                found=f"sub-folders: {', '.join(class_names) or 'none'}",
                expected=_EXPECTED,
                hint=_hint_at_nesting(folder, class_names),
            )
        _check_names_are_utf8(folder, class_names)
        files_of_classes = [_image_files(folder / name) for name in class_names]
        _check_no_class_is_empty(folder, class_names, files_of_classes)
    except OSError as error:
        raise DatasetError(
            "the folder of images cannot be read",
            where=f"dataset.path: {error.filename or folder}",
            found=error.strerror,
            expected=_EXPECTED,
            hint=None if folder.is_absolute() or folder.exists() else f"the path is relative to {Path.cwd()}",
        ) from None
    files = [file for class_files in files_of_classes for file in class_files]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int64), [len(each) for each in files_of_classes])

    def read_one(index: int) -> NDArray[np.uint8] | DatasetError:
        try:
            return read_image(files[index], image_shape)
        except DatasetError as error:
            return error

    def read(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(indices), *image_shape), np.uint8)
        faults: dict[int, str] = {}
        with ThreadPoolExecutor(threads) as pool:
            for place, image in enumerate(pool.map(read_one, indices.tolist())):
                if isinstance(image, DatasetError):
                    faults[int(indices[place])] = f"{image.where}: {image.found}"
                else:
                    images[place] = image
        if faults:
            raise UnreadableImagesError(faults)
        return images

    return LabelledImages(class_names=tuple(class_names), labels=labels, image_shape=image_shape, read=read)


def _image_files(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
    # A link that leads nowhere is an image that cannot be read; a pipe or a device would be waited for.
    images = [entry for entry in entries if is_image_name(entry.name) and (entry.is_file() or not entry.exists())]
    if len(images) < len(entries):
        others = sorted(set(entries) - set(images))
        names = ", ".join(f"{entry.name}/" if entry.is_dir() else entry.name for entry in others)
        _LOG.warning("%s: left out, no files named like an image: %s", folder, names)
    return images


def _check_names_are_utf8(folder: Path, class_names: Sequence[str]) -> None:
    wrong = [os.fsencode(name) for name in class_names if not is_utf8(name)]
    if wrong:
        raise DatasetError(
            "names of classes are not in UTF-8",
            where=f"dataset.path: {folder}",
            found=", ".join(map(repr, wrong)),
            expected=_EXPECTED,
            hint="rename these sub-folders",
        )


def _check_no_class_is_empty(folder: Path, class_names: Sequence[str], files_of_classes: Sequence[list[Path]]) -> None:
    empty = [name for name, files in zip(class_names, files_of_classes, strict=True) if not files]
    if empty:
        raise DatasetError(
            "classes have no image",
            where="\n            ".join(f"dataset.path: {folder / name}" for name in empty),
            found="no file named like an image",
            expected=_EXPECTED,
            hint=_hint_at_nesting(folder, empty) or "remove these sub-folders, or put images into them",
        )


def _hint_at_nesting(folder: Path, names: Sequence[str]) -> str | None:
    """What to do where the images lie one level deeper, as in `train/cat/1.png`."""
    for name in names:
        inner = sorted(entry for entry in (folder / name).iterdir() if entry.is_dir() and entry.name[0] != ".")
        if inner:
            return (
                f"{folder / name} holds folders itself ({inner[0].name}, …); if these are the classes, dataset.path "
                "must be the folder right above them; merge several such folders, as train and test, into one"
            )
    return None
