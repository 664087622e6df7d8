"""A folder with one sub-folder of images a class."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.image_file import is_image_name, read_image
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.errors import DatasetError

__all__ = ["read_image_folder"]

_LOG = logging.getLogger(__name__)


def read_image_folder(path: str | Path, image_size: int) -> LabelledImages:
    """List a folder's images; each is read as RGB and resized when asked for.

    Class names are the sub-folders' names, sorted. Hidden files and files that do not end like an image
    are left out, with a warning.

    Args:
        path: the folder.
        image_size: height and width of the images in pixels.

    Raises:
        DatasetError: the folder cannot be listed, or has fewer than two sub-folders.
    """
    folder = Path(path)
    image_shape = (image_size, image_size, 3)
    try:
        class_names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
        files_of_classes = [_image_files(folder / name) for name in class_names]
    except OSError as error:
        raise DatasetError(
            "the folder of images cannot be read",
            where=f"dataset.path: {folder}",
            found=error.strerror,
            expected="a folder with one sub-folder of images a class",
        ) from None
    if len(class_names) < 2:
        raise DatasetError(
            "the folder of images has fewer than two classes",
            where=f"dataset.path: {folder}",
            found=f"sub-folders: {', '.join(class_names) or 'none'}",
            expected="one sub-folder of images a class",
        )
    files = [file for class_files in files_of_classes for file in class_files]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int64), [len(each) for each in files_of_classes])

    def read(index: int) -> NDArray[np.uint8]:
        return read_image(files[index], image_shape)

    return LabelledImages(class_names=tuple(class_names), labels=labels, image_shape=image_shape, read=read)


def _image_files(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
    images = [entry for entry in entries if is_image_name(entry.name) and entry.is_file()]
    if len(images) < len(entries):
        others = sorted(set(entries) - set(images))
        _LOG.warning("%s: left out, not named like an image: %s", folder, ", ".join(entry.name for entry in others))
    return images
