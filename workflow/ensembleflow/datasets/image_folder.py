"""A folder with one sub-folder of images per class, or with such a folder for each part."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensembleflow.datasets.class_folders import ClassFolder, list_class_folders, why_no_parts
from ensembleflow.datasets.dataset_file import SPLITS
from ensembleflow.datasets.image_file import is_image_name
from ensembleflow.datasets.image_list import image_reader
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.datasets.some import lines_of_some, some
from ensembleflow.errors import DatasetError
from ensembleflow.io.folder import is_utf8

__all__ = ["read_image_folder"]

_LOG = logging.getLogger(__name__)
_EXPECTED = "a folder with one sub-folder of images per class"


def read_image_folder(path: str | Path, image_size: int, threads: int = 1) -> LabelledImages:
    """List a folder's images; each is read as RGB and resized when asked for.

    Class names are the sub-folders' names, sorted. Where the sub-folders are called train, valid and test, or two of
    these with train among them, and hold folders themselves, these are the classes' folders, and the parts stay what
    they are. Links are followed. Hidden files, folders within a class's
    folder and files that are not named like an image are left out, with a warning. Faults of the folder that do not
    hinder reading the other images are in the answer's `faults`: classes without an image, and names that cannot be
    written down.

    Args:
        path: the folder.
        image_size: height and width of the images in pixels.
        threads: images decoded side by side.

    Raises:
        DatasetError: the folder or a class's folder cannot be listed, there are fewer than two classes, or no image at
            all.
    """
    folder = Path(path)
    image_shape = (image_size, image_size, 3)
    try:
        reasons = why_no_parts(folder)
        if reasons:
            raise DatasetError(
                "folders of parts cannot be told from classes",
                where=f"dataset.path: {folder}",
                found="; ".join(reasons),
                expected="train, and valid or test or both, which hold the classes' folders and no image, and nothing "
                "else; or the classes' folders alone",
            )
        listed = list_class_folders(folder)
        faults = _faults(folder, listed)
    except OSError as error:
        raise DatasetError(
            "the folder of images cannot be read",
            where=f"dataset.path: {error.filename or folder}",
            found=error.strerror,
            expected=_EXPECTED,
            hint=None if folder.is_absolute() or folder.exists() else f"the path is relative to {Path.cwd()}",
        ) from None
    _warn_of_others(listed)
    classes = [each for each in listed if each.images and is_utf8(each.name)]
    files = [entry.path for each in classes for entry in each.images]
    class_names = sorted({each.name for each in classes})
    class_of = [class_names.index(each.name) for each in classes]
    labels = np.repeat(np.array(class_of, np.int64), [len(each.images) for each in classes])
    if not files:
        raise faults[0]
    read, checksums = image_reader(files, image_shape, threads)
    parts = np.repeat([each.part or "" for each in classes], [len(each.images) for each in classes])
    return LabelledImages(
        class_names=tuple(class_names),
        labels=labels,
        image_shape=image_shape,
        read=read,
        name_of=lambda index: os.path.relpath(files[index], folder),
        faults=tuple(faults),
        file_checksums=checksums,
        own_split={part: np.flatnonzero(parts == part) for part in SPLITS if part in parts},
    )


def _warn_of_others(classes: Sequence[ClassFolder]) -> None:
    for each in classes:
        if each.others:
            _LOG.warning("%s: left out, no files named like an image: %s", each.path, some(each.others))


def _faults(folder: Path, classes: Sequence[ClassFolder]) -> list[DatasetError]:
    names = sorted({each.name for each in classes})
    if len(names) < 2:
        raise DatasetError(
            "the folder of images has fewer than two classes",
            where=f"dataset.path: {folder}",
            found=f"sub-folders: {', '.join(names) or 'none'}",
            expected=_EXPECTED,
            hint=_hint_at_nesting(classes),
        )
    faults = []
    wrong = [os.fsencode(name) for name in names if not is_utf8(name)]
    if wrong:
        faults.append(
            DatasetError(
                "names of classes are not in UTF-8",
                where=f"dataset.path: {folder}",
                found=some(wrong),
                expected=_EXPECTED,
                hint="rename these sub-folders",
            )
        )
    empty = [each.path for each in classes if not each.images and is_utf8(each.name)]
    if empty:
        faults.append(
            DatasetError(
                "classes have no image",
                where=lines_of_some([f"dataset.path: {path}" for path in empty]),
                found="no file named like an image",
                expected=_EXPECTED,
                hint=_hint_at_nesting(classes) or "remove these sub-folders, or put images into them",
            )
        )
    return faults


def _hint_at_nesting(classes: Sequence[ClassFolder]) -> str | None:
    """What to do where all images lie one level deeper, as in `train/cat/1.png`; one stray folder is no such case."""
    if any(each.images for each in classes):
        return None
    for each in classes:
        inner = [name for name in each.others if name.endswith("/") and name[0] != "."]
        deeper = [name for name in inner if _holds_an_image(Path(each.path, name))]
        if deeper:
            return (
                f"{each.path} holds folders itself ({deeper[0]}, …); if these are the classes, dataset.path must be "
                "the folder right above them; folders of parts are to be called train, valid and test"
            )
    return None


def _holds_an_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_image_name(entry.name) for entry in entries)
