"""The dataset's HDF5 file: schema `dataset`, version 1.

Groups `train`, `valid`, `test` and, where the config asks for one, `calibration`, each with `images` uint8 (n, height,
width, channels) or float32 (n, ...), and `labels` int64 (n,); `class_names` at the root; root attributes name, source,
split_seed and checksum. Where they apply: `train/mean` and `train/deviation`, float64 (channels,), of float32 images;
`train/weights`, float32 (n,), how much each image counts; the attribute `duplicates`, identical images in two parts or
classes; the group `source_files`, what the images were read from.

The images lie in the file as they are in memory, neither in chunks nor compressed, so that every process of a
machine maps the same pages of the system's cache instead of holding a copy.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ensembleflow.arguments import file_path, one_of
from ensembleflow.datasets.duplicates import Duplicates, contents_of, find_duplicates
from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.datasets.near_duplicates import NearDuplicates, find_near_duplicates, outlines
from ensembleflow.datasets.standardisation import Standardisation, standardisation_of
from ensembleflow.errors import ArtefactError
from ensembleflow.io import create_hdf5, map_array, open_hdf5

__all__ = ["CALIBRATION", "SPLITS", "Dataset", "open_dataset", "write_dataset"]

SPLITS = ("train", "valid", "test")
"""What a dataset's images are divided into, in the file's order."""

CALIBRATION = "calibration"
"""Validation images that were set aside: nothing is chosen by them but how far a cascade may go."""

_SCHEMA, _SCHEMA_VERSION = "dataset", 1
_ATTRIBUTES = ("name", "source", "split_seed", "checksum")
_STANDARDISATION = ("mean", "deviation")
_MAX_IMAGES_A_READ, _MAX_BYTES_A_READ = 256, 2**26
_PROGRESS_SECONDS = 10

_LOG = logging.getLogger(__name__)


class Dataset:
    """An open dataset file.

    Attributes:
        name: its name in paths and tables.
        source: where the images came from.
        split_seed: the seed of the split.
        checksum: SHA-256 of the class names and of all images, labels and weights, hexadecimal.
        class_names: name of class i at place i.
        image_shape: (height, width, channels); of float32 samples any shape.
        image_dtype: `uint8` or `float32`.
        standardisation: of float32 samples, what networks standardise them by; None for uint8.
        splits: `SPLITS`, and `calibration` where there is one.
        duplicates: identical images in two parts or in two classes.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self._path = path
        self.splits: tuple[str, ...] = (*SPLITS, *([CALIBRATION] if CALIBRATION in file else []))
        self._check()
        self.name = str(file.attrs["name"])
        self.source = str(file.attrs["source"])
        self.split_seed = int(file.attrs["split_seed"])
        self.checksum = str(file.attrs["checksum"])
        self.class_names: list[str] = [str(name) for name in file["class_names"].asstr()[:]]
        self.duplicates = Duplicates.from_json(str(file.attrs.get("duplicates", Duplicates().as_json())))
        self.image_shape: tuple[int, ...] = tuple(map(int, file["train/images"].shape[1:]))
        self.image_dtype = str(file["train/images"].dtype)
        self.standardisation: Standardisation | None = None
        if self.image_dtype != "uint8":
            self.standardisation = Standardisation(self._read("train/mean"), self._read("train/deviation"))

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def images(self, split: str) -> NDArray[Any]:
        """A copy of all images of a split, (n, *image_shape); `image_array` needs no memory.

        Raises:
            ArtefactError: the file is damaged there.
        """
        return self._read(f"{one_of('split', split, self.splits)}/images")

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of a split, int64 (n,).

        Raises:
            ArtefactError: the file is damaged there.
        """
        return self._read(f"{one_of('split', split, self.splits)}/labels")

    def training_weights(self) -> NDArray[np.float32] | None:
        """How much each image of `train` counts in training, float32 (n,) of mean 1; None if all count alike.

        Raises:
            ArtefactError: the file is damaged there.
        """
        return self._read("train/weights") if "train/weights" in self._file else None

    def image_array(self, split: str) -> NDArray[Any]:
        """The images of a split where they lie, (n, *image_shape), to read parts of.

        A read-only map of the file: only the pages that are read take memory, in the system's cache, which all
        processes of a machine share and which gives way when memory is short. What a process holds itself is the
        parts that it copies, batches for example, whatever the size of the file. The map outlives the open file and
        its deletion. Chunked or compressed images, which this package does not write, cannot be mapped: they come as
        the open file's `h5py.Dataset`, of which each part is read when it is asked for.
        """
        return map_array(self._file[f"{one_of('split', split, self.splits)}/images"])

    def _read(self, key: str) -> np.ndarray:
        try:
            return self._file[key][:]
        except OSError as error:
            raise self._fault(f"{key}: {error}", "readable data") from error

    def _check(self) -> None:
        missing = [name for name in _ATTRIBUTES if name not in self._file.attrs]
        arrays = ["class_names", *(f"{split}/{name}" for split in self.splits for name in ("images", "labels"))]
        images = self._file.get("train/images")
        if isinstance(images, h5py.Dataset) and images.dtype == np.float32:
            arrays += [f"train/{name}" for name in _STANDARDISATION]
        missing += [name for name in arrays if not isinstance(self._file.get(name), h5py.Dataset)]
        if missing:
            raise self._fault(f"no {', no '.join(missing)}", "a whole dataset file")
        for split in self.splits:
            images, labels = self._file[f"{split}/images"], self._file[f"{split}/labels"]
            found = f"{split}: images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}"
            are_images = images.dtype == np.uint8 and images.ndim == 4
            if (
                not (are_images or (images.dtype == np.float32 and images.ndim > 1))
                or labels.dtype != np.int64
                or labels.shape != images.shape[:1]
            ):
                raise self._fault(
                    found, "images uint8 (n, height, width, channels) or float32 (n, ...), labels int64 (n,)"
                )

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
    path = file_path("path", path)
    with open_hdf5(path, _SCHEMA, _SCHEMA_VERSION) as file:
        yield Dataset(file, path)


def write_dataset(
    path: str | Path,
    images: LabelledImages,
    splits: Mapping[str, NDArray[np.int64]],
    *,
    name: str,
    source: str,
    split_seed: int,
    finish: Callable[[h5py.File, Duplicates], None] = lambda file, duplicates: None,
    tell_near: Callable[[NearDuplicates], None] = lambda near: None,
) -> str:
    """Write images and labels split by split, a few images in memory at a time; give the checksum.

    Args:
        path: the HDF5 file to write.
        images: the images and labels.
        splits: for each of train, valid and test, and calibration if there is one, the indices of its images, in the
            order to write.
        name: the dataset's name.
        source: where the images came from.
        split_seed: the seed that `splits` was made with.
        finish: is called with the file and what was found before it appears; what it raises leaves no file.
        tell_near: is called with the near-duplicates that are found once the file is there.

    Raises:
        UnreadableImagesError: images cannot be read; all of them are named, and no file is left.
        DatasetError: the source is damaged.
        StorageError: the file cannot be written.
    """
    digest = hashlib.sha256("\0".join(images.class_names).encode("utf-8"))
    faults: dict[int, str] = {}
    contents: dict[str, list[NDArray[np.uint64]]] = {split: [np.empty(0, np.uint64)] for split in splits}
    seen: dict[str, list[NDArray[np.float32]]] = {split: [] for split in splits}
    progress = _Progress(name, sum(map(len, splits.values())))
    with create_hdf5(path, _SCHEMA, _SCHEMA_VERSION) as file:
        file.create_dataset("class_names", data=list(images.class_names), dtype=h5py.string_dtype("utf-8"))
        for split, indices in splits.items():
            labels = images.labels[indices]
            group = file.create_group(split)
            group.create_dataset("labels", data=labels)
            stored = group.create_dataset("images", (len(indices), *images.image_shape), images.image_dtype)
            dtype = "" if stored.dtype == np.uint8 else str(stored.dtype)
            digest.update(f"\0{split}{stored.shape}{dtype}".encode())
            digest.update(labels.astype("<i8").tobytes())
            if split == "train" and images.weights is not None:
                weights = images.weights[indices]
                weights = (weights / weights.mean()).astype(np.float32)
                group.create_dataset("weights", data=weights)
                digest.update(weights.astype("<f4").tobytes())
            step = images.images_a_read or _images_a_read(images.image_shape)
            for start in range(0, len(indices), step):
                chosen = indices[start : start + step]
                try:
                    batch = np.ascontiguousarray(images.read(chosen))
                except UnreadableImagesError as error:
                    faults.update(error.faults)
                    batch = None
                progress.add(len(chosen))
                if batch is not None and not faults:
                    stored[start : start + len(batch)] = batch
                    digest.update(batch.data)
                    contents[split].append(contents_of(batch))
                    seen[split].append(outlines(batch))
        if faults:
            raise UnreadableImagesError(faults)
        if images.image_dtype != "uint8":
            scale = standardisation_of(file["train/images"], _images_a_read(images.image_shape))
            for each in _STANDARDISATION:
                file["train"].create_dataset(each, data=getattr(scale, each))
        checksum = digest.hexdigest()
        for key, value in zip(_ATTRIBUTES, (name, source, split_seed, checksum), strict=True):
            file.attrs[key] = value
        checksums = {split: np.concatenate(contents[split]) for split in splits}
        duplicates = find_duplicates(images, splits, checksums)
        if duplicates:
            file.attrs["duplicates"] = duplicates.as_json()
        finish(file, duplicates)
    with open_dataset(path) as data:
        stored_images = {split: data.image_array(split) for split in SPLITS}
        found = {split: np.concatenate(seen[split]) for split in SPLITS}
        tell_near(find_near_duplicates(images, splits, checksums, found, stored_images))
    return checksum


def _images_a_read(image_shape: tuple[int, ...]) -> int:
    return max(1, min(_MAX_IMAGES_A_READ, _MAX_BYTES_A_READ // int(np.prod(image_shape))))


class _Progress:
    """Tells every few seconds how many images have been read."""

    def __init__(self, name: str, n_images: int) -> None:
        self._name, self._n_images, self._n_read = name, n_images, 0
        self._told_at = time.monotonic()

    def add(self, n_images: int) -> None:
        self._n_read += n_images
        if time.monotonic() - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            told = (self._name, self._n_read, self._n_images)
            _LOG.info("%s: %d of %d images read", *told, extra={"progress": True})
