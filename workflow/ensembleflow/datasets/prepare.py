"""From the config's dataset block to the dataset's file."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets.arrays import read_arrays
from ensembleflow.datasets.cifar100 import read_cifar100
from ensembleflow.datasets.dataset_file import SPLITS, write_dataset
from ensembleflow.datasets.digits import read_digits
from ensembleflow.datasets.idx import read_idx
from ensembleflow.datasets.image_folder import read_image_folder
from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.datasets.split import check_every_class_in_every_split, stratified_part, stratified_split
from ensembleflow.datasets.synthetic import make_synthetic_images

__all__ = ["prepare_dataset"]

_LOG = logging.getLogger(__name__)


def prepare_dataset(config: DatasetConfig, path: str | Path, threads: int = 1) -> None:
    """Read the images of the config's source, split them by class, and write the dataset's file.

    The same config and images give the same bytes. Images that cannot be read are found while the file is written,
    so that each image is decoded once; only where some are to be skipped, all are read a second time, and the split is
    one of the readable images.

    Args:
        config: the config's dataset block.
        path: the HDF5 file to write.
        threads: images decoded side by side.

    Raises:
        DatasetError: the source cannot be read, images in it cannot (all of them are named), or a class would be
            absent from a split.
        StorageError: the file cannot be written.
    """
    images = _read_source(config, threads)
    while True:
        splits = split_of(config, images)
        check_every_class_in_every_split(images.labels, images.class_names, splits)
        try:
            checksum = write_dataset(
                path, images, splits, name=config.name, source=config.source, split_seed=config.split_seed
            )
            break
        except UnreadableImagesError as error:
            if config.unreadable_images == "refuse":
                raise
            told = (config.name, len(error.faults), len(images.labels))
            _LOG.warning("%s: %d of %d images cannot be read and are left out; the rule's log names them", *told)
            _LOG.info("left out:\n            %s", error.where)
            images = images.without(error.faults)
    sizes = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
    _LOG.info("%s: %s images of %d classes, checksum %s", config.name, sizes, len(images.class_names), checksum)


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


def split_of(config: DatasetConfig, images: LabelledImages) -> dict[str, np.ndarray]:
    """Indices of each split; what the source itself sets aside for the test stays the test.

    Raises:
        DatasetError: `train_images` asks for more images than there are, or for fewer than one a class.
    """
    splits = _whole_split(config, images)
    if config.train_images is not None:
        splits["train"] = stratified_part(images.labels, splits["train"], config.train_images)
    return splits


def _whole_split(config: DatasetConfig, images: LabelledImages) -> dict[str, np.ndarray]:
    fractions = {"valid": config.valid_fraction}
    if images.test_indices is None:
        return stratified_split(images.labels, {**fractions, "test": config.test_fraction}, config.split_seed)
    others = np.setdiff1d(np.arange(len(images.labels)), images.test_indices)
    splits = stratified_split(images.labels[others], fractions, config.split_seed)
    return {**{name: others[indices] for name, indices in splits.items()}, "test": images.test_indices}
