"""All that is wrong with a source of images, told in one message."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets.dataset_file import SPLITS
from ensembleflow.datasets.group_split import check_groups_are_whole
from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.datasets.some import some
from ensembleflow.datasets.split import check_every_class_in_every_split
from ensembleflow.errors import DatasetError

__all__ = ["refuse_faults", "warn_of_alike_names"]

_LOG = logging.getLogger(__name__)
_IMAGES_A_READ = 256
_LINE = "\n            "


def refuse_faults(config: DatasetConfig, images: LabelledImages, splits: Mapping[str, NDArray[np.int64]]) -> None:
    """Refuse a source with faults. If it has any, its images are read too, so that none is told only the next time.

    Raises:
        DatasetError: the one fault, or all of them.
    """
    where = "dataset" if config.path is None else f"dataset.path: {config.path}"
    faults = [*images.faults, *_faults_of_names(config, images.class_names)]
    try:
        # A guarantee speaks of the images as they come: it does not need each class.
        chosen_by = {part: splits[part] for part in SPLITS}
        check_every_class_in_every_split(images.labels, images.class_names, chosen_by, images.groups)
    except DatasetError as error:
        faults.append(error)
    if images.groups is not None:
        try:
            check_groups_are_whole(images.groups, splits, where)
        except DatasetError as error:
            faults.append(error)
    if not faults:
        return
    if config.unreadable_images == "refuse" and images.file_checksums is not None:
        faults += _unreadable(images)
    if len(faults) == 1:
        raise faults[0]
    told = [f"{number}. {_LINE.join(str(fault).splitlines())}" for number, fault in enumerate(faults, 1)]
    raise DatasetError(f"the images have {len(faults)} faults", where=where, found=_LINE.join(told))


def warn_of_alike_names(dataset: str, class_names: Sequence[str]) -> None:
    """Tell classes whose names differ only in upper and lower case: they may be meant, as letters are."""
    alike = _alike(class_names, lambda name: _visible(name).casefold())
    alike = [names for names in alike if len({_visible(name) for name in names}) == len(names)]
    if alike:
        told = some([" and ".join(map(repr, names)) for names in alike])
        _LOG.warning("%s: classes differ only in upper and lower case: %s", dataset, told)


def _faults_of_names(config: DatasetConfig, class_names: Sequence[str]) -> list[DatasetError]:
    where = "dataset" if config.path is None else f"dataset.path: {config.path}"
    faults = []
    blank = [name for name in class_names if not _visible(name)]
    if blank:
        faults.append(
            DatasetError(
                "a class has no name",
                where=where,
                found=some([*map(repr, blank)]),
                expected="names that can be read",
                hint="name these classes",
            )
        )
    alike = _alike([name for name in class_names if _visible(name)], _visible)
    if alike:
        faults.append(
            DatasetError(
                "names of classes look the same",
                where=where,
                found=some([" and ".join(map(repr, names)) for names in alike]),
                expected="names that differ in more than blanks",
                hint="rename one of each, or put the images of both into one class",
            )
        )
    return faults


def _visible(name: str) -> str:
    """A name as a reader sees it: composed, without marks that show nothing, blanks around it, and runs of blanks."""
    shown = (
        char
        for char in unicodedata.normalize("NFC", name)
        if unicodedata.category(char) not in ("Cf", "Cc") or char.isspace()
    )
    return " ".join("".join(shown).split())


def _alike(names: Sequence[str], key: Callable[[str], str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return [each for each in groups.values() if len(each) > 1]


def _unreadable(images: LabelledImages) -> list[DatasetError]:
    faults: dict[int, str] = {}
    for start in range(0, len(images.labels), _IMAGES_A_READ):
        try:
            images.read(np.arange(start, min(start + _IMAGES_A_READ, len(images.labels)), dtype=np.int64))
        except UnreadableImagesError as error:
            faults |= error.faults
    return [UnreadableImagesError(faults)] if faults else []
