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
from ensembleflow.datasets.dataset_file import SPLITS, write_dataset
from ensembleflow.datasets.digits import read_digits
from ensembleflow.datasets.duplicates import Duplicates, image_contents, refuse_duplicates
from ensembleflow.datasets.idx import read_idx
from ensembleflow.datasets.image_folder import read_image_folder
from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.datasets.some import some
from ensembleflow.datasets.source_faults import refuse_faults, warn_of_alike_names
from ensembleflow.datasets.source_state import file_checksum, find_source_files, write_source_files
from ensembleflow.datasets.split import grouped_split, stratified_part, stratified_split
from ensembleflow.datasets.synthetic import make_synthetic_images

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
    sizes = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
    _LOG.info("%s: %s images of %d classes, checksum %s", config.name, sizes, len(images.class_names), checksum)


def _tell_duplicates(config: DatasetConfig, splits: dict[str, np.ndarray], duplicates: Duplicates) -> None:
    if config.duplicates == "refuse":
        refuse_duplicates(duplicates, config.path)
    if duplicates.n_test or duplicates.n_valid:
        told = (duplicates.n_test, len(splits["test"]), duplicates.n_valid, len(splits["valid"]))
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
        return read_arrays(config.path)
    if config.source == "idx":
        return read_idx(config.path)
    assert config.image_size is not None
    return read_image_folder(config.path, config.image_size, threads)


def split_of(
    config: DatasetConfig, images: LabelledImages, contents: NDArray[np.uint64] | None = None
) -> dict[str, np.ndarray]:
    """Indices of each split; what the source itself sets aside for the test stays the test.

    Args:
        config: the config's dataset block.
        images: the images.
        contents: equal for images that are to stay in one part; None to split each by itself.

    Raises:
        DatasetError: `train_images` asks for more images than there are, or for fewer than one a class.
    """
    splits = _whole_split(config, images, contents)
    if config.train_images is not None:
        splits["train"] = stratified_part(images.labels, splits["train"], config.train_images)
    return splits


def _whole_split(
    config: DatasetConfig, images: LabelledImages, contents: NDArray[np.uint64] | None
) -> dict[str, np.ndarray]:
    def split(indices: np.ndarray, fractions: dict[str, float]) -> dict[str, np.ndarray]:
        labels = images.labels[indices]
        if contents is None:
            splits = stratified_split(labels, fractions, config.split_seed)
        else:
            splits = grouped_split(labels, contents[indices], fractions, config.split_seed)
        return {name: indices[places] for name, places in splits.items()}

    everything = np.arange(len(images.labels))
    if images.test_indices is None:
        return split(everything, {"valid": config.valid_fraction, "test": config.test_fraction})
    others = np.setdiff1d(everything, images.test_indices)
    if contents is not None:
        copies = np.isin(contents[others], contents[images.test_indices])
        if copies.any():
            told = (config.name, int(copies.sum()))
            _LOG.warning("%s: %d training images are identical to test images and are left out", *told)
        others = others[~copies]
    return {**split(others, {"valid": config.valid_fraction}), "test": images.test_indices}
