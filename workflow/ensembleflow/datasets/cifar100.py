"""CIFAR100 from its standard Python archive, checked before anything in it is unpickled."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.errors import DatasetError

__all__ = ["CIFAR100_MD5", "read_cifar100"]

CIFAR100_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"  # as published beside the archive
_HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_FOLDER = "cifar-100-python"
_SIDE = 32


def read_cifar100(path: str | Path, *, md5: str = CIFAR100_MD5) -> LabelledImages:
    """Read `cifar-100-python.tar.gz`: 32×32 RGB images with their fine labels.

    The archive's own test images stay the test images.

    Args:
        path: the archive.
        md5: the checksum that the archive must have.

    Raises:
        DatasetError: the archive is missing, has another checksum, or lacks a part.
    """
    path = Path(path)
    _check_md5(path, md5)
    try:
        with tarfile.open(path, "r:*") as archive:
            train, test, meta = (_unpickle(archive, name, path) for name in ("train", "test", "meta"))
        images = np.concatenate([_images(train), _images(test)])
        labels = np.concatenate([np.asarray(part["fine_labels"], dtype=np.int64) for part in (train, test)])
        class_names = tuple(_text(name) for name in meta["fine_label_names"])
    except (KeyError, ValueError, OSError, EOFError, tarfile.TarError) as error:
        raise _damaged(path, error) from error
    if len(labels) != len(images) or labels.min() < 0 or labels.max() >= len(class_names):
        raise _damaged(path, f"{len(images)} images, {len(labels)} labels and {len(class_names)} class names")
    return LabelledImages(
        class_names=class_names,
        labels=labels,
        image_shape=(_SIDE, _SIDE, 3),
        read=images.__getitem__,
        own_split={"test": np.arange(len(train["fine_labels"]), len(labels), dtype=np.int64)},
    )


def _check_md5(path: Path, expected: str) -> None:
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DatasetError(
            "the CIFAR100 archive cannot be read",
            where=f"dataset.path: {path}",
            found=error.strerror,
            expected="the file cifar-100-python.tar.gz",
            hint=f"download the Python version from {_HOMEPAGE}",
        ) from None
    if found != expected:
        raise DatasetError(
            "the CIFAR100 archive has another checksum; nothing in it was opened",
            where=f"dataset.path: {path}",
            found=f"MD5 {found}",
            expected=f"MD5 {expected}",
            hint=f"download the Python version again from {_HOMEPAGE}",
        )


def _damaged(path: Path, found: object) -> DatasetError:
    return DatasetError(
        "the CIFAR100 archive lacks a part",
        where=f"dataset.path: {path}",
        found=found,
        expected=f"{_FOLDER}/train, test and meta with data, fine_labels and fine_label_names",
    )


def _images(part: dict[str, Any]) -> np.ndarray:
    """Rows of 1,024 red, 1,024 green and 1,024 blue values to uint8 (n, 32, 32, 3)."""
    rows = np.asarray(part["data"])
    if rows.dtype != np.uint8:
        raise ValueError(f"data of type {rows.dtype}, not uint8")
    return rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _unpickle(archive: tarfile.TarFile, name: str, path: Path) -> dict[str, Any]:
    file = archive.extractfile(f"{_FOLDER}/{name}")
    if file is None:
        raise KeyError(f"{_FOLDER}/{name} is not a file")
    try:
        values = _ArrayUnpickler(file).load()
    except pickle.UnpicklingError as error:
        raise _damaged(path, f"{name}: {error}") from error
    if not isinstance(values, dict):
        raise _damaged(path, f"{name} holds a {type(values).__name__}, not a dict")
    return {_text(key): value for key, value in values.items()}


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_FROM_BUFFER = np.empty(1).__reduce_ex__(5)[0]
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain containers and NumPy arrays, and calls nothing else."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is neither a NumPy array nor a plain container") from None
