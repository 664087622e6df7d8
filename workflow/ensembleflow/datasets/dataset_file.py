"""The dataset's HDF5 file: schema `dataset`, version 1.

Groups `train`, `valid`, `test`, each with `images` uint8 (n, height, width, channels) and `labels` int64
(n,); `class_names` at the root; root attributes name, source, split_seed and checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.errors import ArtefactError, DatasetError
from ensembleflow.io import create_hdf5, open_hdf5

__all__ = ["SPLITS", "Dataset", "open_dataset", "write_dataset"]

SPLITS = ("train", "valid", "test")
_SCHEMA, _SCHEMA_VERSION = "dataset", 1
_ATTRIBUTES = ("name", "source", "split_seed", "checksum")
_IMAGES_A_WRITE = 256


class Dataset:
    """An open dataset file.

    Attributes:
        name: its name in paths and tables.
        source: where the images came from.
        split_seed: the seed of the split.
        checksum: SHA-256 of the class names and of all images and labels, hexadecimal.
        class_names: name of class i at place i.
        image_shape: (height, width, channels).
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self._path = path
        self._check()
        self.name = str(file.attrs["name"])
        self.source = str(file.attrs["source"])
        self.split_seed = int(file.attrs["split_seed"])
        self.checksum = str(file.attrs["checksum"])
        self.class_names: list[str] = [str(name) for name in file["class_names"].asstr()[:]]
        height, width, channels = file["train/images"].shape[1:]
        self.image_shape: tuple[int, int, int] = (int(height), int(width), int(channels))

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def images(self, split: str) -> NDArray[np.uint8]:
        """All images of a split, uint8 (n, height, width, channels).

        Raises:
            ArtefactError: the file is damaged there.
        """
        return self._read(f"{split}/images")

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of a split, int64 (n,).

        Raises:
            ArtefactError: the file is damaged there.
        """
        return self._read(f"{split}/labels")

    def image_array(self, split: str) -> h5py.Dataset:
        """The images of a split on the disk, to read parts of; valid while the file is open."""
        return self._file[f"{split}/images"]

    def _read(self, key: str) -> np.ndarray:
        try:
            return self._file[key][:]
        except OSError as error:
            raise self._fault(f"{key}: {error}", "readable data") from error

    def _check(self) -> None:
        missing = [name for name in _ATTRIBUTES if name not in self._file.attrs]
        arrays = ["class_names", *(f"{split}/{name}" for split in SPLITS for name in ("images", "labels"))]
        missing += [name for name in arrays if not isinstance(self._file.get(name), h5py.Dataset)]
        if missing:
            raise self._fault(f"no {', no '.join(missing)}", "a whole dataset file")
        for split in SPLITS:
            images, labels = self._file[f"{split}/images"], self._file[f"{split}/labels"]
            found = f"{split}: images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}"
            if (
                images.dtype != np.uint8
                or images.ndim != 4
                or labels.dtype != np.int64
                or labels.shape != images.shape[:1]
            ):
                raise self._fault(found, "images uint8 (n, height, width, channels), labels int64 (n,)")

    def _fault(self, found: str, expected: str) -> ArtefactError:
        return ArtefactError(
            "a dataset file is damaged",
            where=self._path,
            found=found,
            expected=expected,
            hint="delete it and run snakemake again",
        )


@contextmanager
def open_dataset(path: str | Path) -> Iterator[Dataset]:
    """Open a dataset file for reading.

    Raises:
        ArtefactError: it is missing, truncated, of another schema or version, or lacks a part.
    """
    with open_hdf5(path, _SCHEMA, _SCHEMA_VERSION) as file:
        yield Dataset(file, Path(path))


def write_dataset(
    path: str | Path,
    images: LabelledImages,
    splits: Mapping[str, NDArray[np.int64]],
    *,
    name: str,
    source: str,
    split_seed: int,
) -> str:
    """Write images and labels split by split, a few images in memory at a time; give the checksum.

    Args:
        path: the HDF5 file to write.
        images: the images and labels.
        splits: for each of train, valid and test the indices of its images, in the order to write.
        name: the dataset's name.
        source: where the images came from.
        split_seed: the seed that `splits` was made with.

    Raises:
        DatasetError: images cannot be read; all of them are named, and no file is left.
        StorageError: the file cannot be written.
    """
    digest = hashlib.sha256("\0".join(images.class_names).encode("utf-8"))
    faults: list[DatasetError] = []
    with create_hdf5(path, _SCHEMA, _SCHEMA_VERSION) as file:
        file.create_dataset("class_names", data=list(images.class_names), dtype=h5py.string_dtype("utf-8"))
        for split in SPLITS:
            indices = splits[split]
            labels = images.labels[indices]
            group = file.create_group(split)
            group.create_dataset("labels", data=labels)
            stored = group.create_dataset("images", (len(indices), *images.image_shape), np.uint8)
            digest.update(f"\0{split}{stored.shape}".encode())
            digest.update(labels.astype("<i8").tobytes())
            for start in range(0, len(indices), _IMAGES_A_WRITE):
                batch = _read_batch(images, indices[start : start + _IMAGES_A_WRITE], faults)
                if not faults:
                    stored[start : start + len(batch)] = batch
                    digest.update(batch.tobytes())
        if faults:
            raise _unreadable(faults)
        checksum = digest.hexdigest()
        for key, value in zip(_ATTRIBUTES, (name, source, split_seed, checksum), strict=True):
            file.attrs[key] = value
    return checksum


def _read_batch(images: LabelledImages, indices: NDArray[np.int64], faults: list[DatasetError]) -> NDArray[np.uint8]:
    batch = np.zeros((len(indices), *images.image_shape), np.uint8)
    for place, index in enumerate(indices):
        try:
            batch[place] = images.read(int(index))
        except DatasetError as fault:
            faults.append(fault)
    return batch


def _unreadable(faults: list[DatasetError]) -> DatasetError:
    lines = sorted(f"{fault.where}: {fault.found}" for fault in faults)
    return DatasetError(
        "an image cannot be read" if len(lines) == 1 else f"{len(lines)} images cannot be read",
        where="\n            ".join(lines),
        hint="mend or remove them, then run the same command again",
    )
