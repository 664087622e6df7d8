"""From the config's dataset block to the dataset's file."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ensembleflow.arguments import file_path, instance, whole_number
from ensembleflow.config import DatasetConfig
from ensembleflow.datasets.arrays import read_arrays
from ensembleflow.datasets.cifar100 import read_cifar100
from ensembleflow.datasets.dataset_file import CALIBRATION, SPLITS, write_dataset
from ensembleflow.datasets.digits import read_digits
from ensembleflow.datasets.duplicates import Duplicates, image_contents, refuse_duplicates
from ensembleflow.datasets.group_split import joined, split_whole_groups, warn_of_shares, with_groups
from ensembleflow.datasets.idx import read_idx
from ensembleflow.datasets.image_folder import read_image_folder
from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.datasets.near_duplicates import NearDuplicates
from ensembleflow.datasets.some import some
from ensembleflow.datasets.source_faults import refuse_faults, warn_of_alike_names
from ensembleflow.datasets.source_state import file_checksum, find_source_files, write_source_files
from ensembleflow.datasets.split import grouped_split, stratified_part, stratified_split
from ensembleflow.datasets.synthetic import make_synthetic_images
from ensembleflow.datasets.table import read_table

__all__ = ["prepare_dataset"]

_LOG = logging.getLogger(__name__)


def prepare_dataset(config: DatasetConfig, path: str | Path, threads: int = 1) -> None:
    """Read the images of the config's source, split them by class, and write the dataset's file.

    The same config and images give the same bytes. Images that cannot be read are found while the file is written,
    so that each image is decoded once; only where some are to be skipped, or copies kept together, all are read a
    second time, and the split is one of the readable images.

    Args:
        config: the config's dataset block.
        path: the HDF5 file to write.
        threads: images decoded side by side.

    Raises:
        DatasetError: the source cannot be read, images in it cannot, a class would be absent from a split, or names of
            classes cannot be told apart; all faults of a source are told in one message.
        StorageError: the file cannot be written.
    """
    instance("config", config, DatasetConfig, "load_config(...).dataset")
    path, threads = file_path("path", path), whole_number("threads", threads, 1)
    files = find_source_files(config)
    images = _read_source(config, threads)
    warn_of_alike_names(config.name, images.class_names)

    def finish(file: h5py.File, duplicates: Duplicates) -> None:
        _tell_duplicates(config, splits, duplicates)
        if files is not None:
            checksums = images.file_checksums
            if checksums is None:
                checksums = np.array([file_checksum(each) for each in files.paths], np.uint64)
            write_source_files(file, files, checksums)

    def tell_near(near: NearDuplicates) -> None:
        _tell_near_duplicates(config, splits, near)

    while True:
        try:
            contents = image_contents(images) if config.duplicates == "together" else None
            splits = split_of(config, images, contents)
            refuse_faults(config, images, splits)
            checksum = write_dataset(
                path,
                images,
                splits,
                name=config.name,
                source=config.source,
                split_seed=config.split_seed,
                finish=finish,
                tell_near=tell_near,
            )
            break
        except UnreadableImagesError as error:
            if config.unreadable_images == "refuse":
                _LOG.info("cannot be read:\n            %s", "\n            ".join(error.lines))
                raise
            told = (config.name, len(error.faults), len(images.labels))
            _LOG.warning("%s: %d of %d images cannot be read and are left out; the rule's log names them", *told)
            _LOG.info("left out:\n            %s", "\n            ".join(error.lines))
            images = images.without(error.faults)
    sizes = ", ".join(f"{len(splits[split])} {split}" for split in splits)
    if images.own_split:
        given = [part for part in images.own_split if part != "train" or len(images.own_split) == len(SPLITS)]
        sizes += f" ({' and '.join(given)} as the source has them)" if given else ""
    classes = f"{len(images.class_names)} classes"
    if images.groups is not None:
        classes += f" in {len(np.unique(images.groups))} groups"
    _LOG.info("%s: %s images of %s, checksum %s", config.name, sizes, classes, checksum)


def _tell_duplicates(config: DatasetConfig, splits: dict[str, np.ndarray], duplicates: Duplicates) -> None:
    if config.duplicates == "refuse":
        refuse_duplicates(duplicates, config.path)
    if duplicates.n_test or duplicates.n_valid:
        n_valid = len(splits["valid"]) + len(splits.get(CALIBRATION, ()))
        told = (duplicates.n_test, len(splits["test"]), duplicates.n_valid, n_valid)
        _LOG.warning(
            "%s: %d of %d test images and %d of %d validation images are identical to images that are trained with, so "
            "errors will be too low: %s; dataset.duplicates: together puts copies into one part",
            config.name,
            *told,
            some(duplicates.leaked),
        )
    if duplicates.n_contradicting:
        told_of_classes = (config.name, duplicates.n_contradicting, some(duplicates.contradicting))
        _LOG.warning("%s: %d images are identical to one of another class: %s", *told_of_classes)


def _tell_near_duplicates(config: DatasetConfig, splits: dict[str, np.ndarray], near: NearDuplicates) -> None:
    if near:
        told = (near.n_test, len(splits["test"]), near.n_valid, len(splits["valid"]))
        _LOG.warning(
            "%s: %d of %d test images and %d of %d validation images are nearly identical to images that are trained "
            "with, so errors may be too low: %s; images of one group stay in one part",
            config.name,
            *told,
            some(near.examples),
        )


def _read_source(config: DatasetConfig, threads: int) -> LabelledImages:
    if config.source == "digits":
        return read_digits()
    if config.source == "synthetic":
        made_up = config.synthetic
        return make_synthetic_images(made_up.n_images, made_up.image_shape, made_up.n_classes, seed=config.split_seed)
    assert config.path is not None  # DatasetConfig has refused its absence
    if config.source == "cifar100":
        return read_cifar100(config.path)
    if config.source == "arrays":
        return read_arrays(config.path, config.samples)
    if config.source == "idx":
        return read_idx(config.path)
    assert config.image_size is not None
    if config.source == "table":
        return read_table(config.path, config.image_size, threads)
    images = read_image_folder(config.path, config.image_size, threads)
    return images if config.group_pattern is None else with_groups(images, config.group_pattern)


def split_of(
    config: DatasetConfig, images: LabelledImages, contents: NDArray[np.uint64] | None = None
) -> dict[str, np.ndarray]:
    """Indices of each split; what the source itself sets apart stays what it is, and groups stay whole.

    The calibration images are taken out of the validation images, whoever has set these apart.

    Args:
        config: the config's dataset block.
        images: the images.
        contents: equal for images that are to stay in one part; None to split each by itself.

    Raises:
        DatasetError: `train_images` asks for more images than there are, or for fewer than one a class.
    """
    own = images.own_split
    valid, test = (own.get(part, np.empty(0, np.int64)) for part in ("valid", "test"))
    others = own.get("train", np.setdiff1d(np.arange(len(images.labels)), np.concatenate([valid, test])))
    if contents is not None:
        valid = _without_copies(config, "validation", valid, "test", test, contents)
        others = _without_copies(config, "training", others, "test", test, contents)
        others = _without_copies(config, "training", others, "validation", valid, contents)
    fractions = {"valid": config.valid_fraction, "test": config.test_fraction}
    fractions = {part: fraction for part, fraction in fractions.items() if part not in own}
    splits = _split(images, others, "train", fractions, config.split_seed, contents)
    if "valid" in own:
        # Its first images are to be a fair sample of it.
        splits["valid"] = np.random.default_rng([config.split_seed, len(valid)]).permutation(valid)
    if "test" in own:
        splits["test"] = test
    if config.train_images is not None:
        splits["train"] = stratified_part(images.labels, splits["train"], config.train_images)
    splits = {part: splits[part] for part in SPLITS}
    if config.calibration_fraction:
        set_aside = {CALIBRATION: config.calibration_fraction}
        splits |= _split(images, splits["valid"], "valid", set_aside, config.split_seed, contents)
        if images.groups is not None:
            n_groups = len(np.unique(images.groups[splits[CALIBRATION]]))
            _LOG.warning(
                "the %d calibration images are of %d groups: what a cascade promises holds for images that are "
                "independent of each other, and those of a group may not be",
                *(len(splits[CALIBRATION]), n_groups),
            )
    return splits


def _split(
    images: LabelledImages,
    indices: np.ndarray,
    rest: str,
    fractions: dict[str, float],
    seed: int,
    contents: NDArray[np.uint64] | None,
) -> dict[str, np.ndarray]:
    labels = images.labels[indices]
    if images.groups is not None:
        groupings = [images.groups[indices], *([] if contents is None else [contents[indices]])]
        splits = split_whole_groups(labels, joined(*groupings), fractions, seed)
    elif contents is not None:
        splits = grouped_split(labels, contents[indices], fractions, seed)
    else:
        splits = stratified_split(labels, fractions, seed)
    splits = {rest: splits.pop("train"), **splits}
    if images.groups is not None:
        warn_of_shares(images.groups[indices], splits, {rest: 1 - sum(fractions.values()), **fractions})
    return {name: indices[places] for name, places in splits.items()}


def _without_copies(
    config: DatasetConfig,
    kind: str,
    indices: np.ndarray,
    other_kind: str,
    others: np.ndarray,
    contents: NDArray[np.uint64],
) -> np.ndarray:
    copies = np.isin(contents[indices], contents[others])
    if copies.any():
        told = (config.name, int(copies.sum()), kind, other_kind)
        _LOG.warning("%s: %d %s images are identical to %s images and are left out", *told)
    return indices[~copies]
