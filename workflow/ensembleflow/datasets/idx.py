"""The four IDX files in which MNIST and its successors come, plain or packed by gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import psutil
from numpy.typing import NDArray

from ensembleflow.datasets.array_store import CLASS_NAMES_FILE, StoredArray, in_memory, read_lines
from ensembleflow.datasets.arrays import labelled_arrays
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.datasets.some import some
from ensembleflow.errors import DatasetError

__all__ = ["is_idx_file", "read_idx"]

_PARTS = ("train", "t10k")
_IMAGES, _LABELS = ("images", 3), ("labels", 1)
# As published, and as some archives unpack them.
_NAMES = "{part}-{kind}-idx{dimensions}-ubyte", "{part}-{kind}.idx{dimensions}-ubyte"
_EXPECTED = "the files {train,t10k}-{images-idx3,labels-idx1}-ubyte, each plain or .gz"
_TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_UINT8 = 0x08
_GZIP_LARGEST_RATIO = 1032
_BLOCK_BYTES = 2**24


def is_idx_file(name: str) -> bool:
    """Whether a folder's file is one of those that are read."""
    return name == CLASS_NAMES_FILE or name.removesuffix(".gz") in {
        each.format(part=part, kind=kind, dimensions=dimensions)
        for each in _NAMES
        for part in _PARTS
        for kind, dimensions in (_IMAGES, _LABELS)
    }


def read_idx(path: str | Path) -> LabelledImages:
    """Open a folder of the four IDX files of MNIST's kind: grey images with labels from 0, or from 1.

    The files `t10k-…` stay the test. Class names are the lines of `class_names.txt` beside the files, else the labels.
    Plain files are mapped, so that they may be larger than the memory; packed ones are unpacked into it.

    Raises:
        DatasetError: a file is missing, cut, damaged, of another type or number of dimensions, or needs more memory
            than the machine has; images and labels do not belong together, or labels have gaps.
    """
    folder = Path(path)
    files = _files(folder)
    images, labels = ([_read_array(file, kind[1]) for file in files[kind[0]]] for kind in (_IMAGES, _LABELS))
    names = folder / CLASS_NAMES_FILE
    class_names = read_lines(names) if names.exists() else None
    source = labelled_arrays(images, labels, class_names)
    if class_names is None:
        _check_no_gaps(folder, source.class_names)
    return source


def _files(folder: Path) -> dict[str, list[Path]]:
    """The files of images and those of labels, first those to train with."""
    try:
        present = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise DatasetError(
            "IDX files are missing",
            where=f"dataset.path: {folder}",
            found=error.strerror,
            expected=f"a folder with {_EXPECTED}",
            hint=None if folder.is_absolute() or folder.exists() else f"the path is relative to {Path.cwd()}",
        ) from None
    files: dict[str, list[Path]] = {}
    missing = []
    for kind, dimensions in (_IMAGES, _LABELS):
        for part in _PARTS:
            names = [name.format(part=part, kind=kind, dimensions=dimensions) for name in _NAMES]
            name = next((each for plain in names for each in (plain, f"{plain}.gz") if each in present), None)
            if name is None:
                missing.append(names[0])
            else:
                files.setdefault(kind, []).append(folder / name)
    if missing:
        raise DatasetError(
            "IDX files are missing",
            where=f"dataset.path: {folder}",
            found=f"no {', no '.join(missing)}",
            expected=_EXPECTED,
        )
    return files


def _read_array(file: Path, dimensions: int) -> StoredArray:
    try:
        packed = file.suffix == ".gz"
        with gzip.open(file) if packed else open(file, "rb") as opened:
            shape = _shape(cast("BinaryIO", opened), dimensions)
            n_bytes = math.prod(shape)
            if packed:
                _check_fits(file, shape)
                values = _unpacked(cast("BinaryIO", opened), n_bytes)
            else:
                offset = opened.tell()
                _check_size(file.stat().st_size - offset, shape)
                values = np.memmap(file, np.uint8, "r", offset, shape) if n_bytes else np.empty(0, np.uint8)
    except (OSError, EOFError, ValueError, zlib.error, MemoryError) as error:
        found = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DatasetError(
            "an IDX file cannot be read",
            where=f"dataset.path: {file}",
            found=found,
            expected=f"an IDX file of unsigned bytes in {dimensions} dimension{'s' * (dimensions > 1)}",
            hint=None if isinstance(error, PermissionError) else "copy or download the file again",
        ) from None
    return in_memory(str(file), values.reshape(shape))


def _shape(file: BinaryIO, dimensions: int) -> tuple[int, ...]:
    """Read the header: two zeros, the type's code, the number of dimensions, and each one's size."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise ValueError(f"no IDX file; it begins with {magic!r}")
    if magic[2] != _UINT8:
        raise ValueError(f"values of type {_TYPES[magic[2]]} (code 0x{magic[2]:02X})")
    if magic[3] != dimensions:
        raise ValueError(f"an array of {magic[3]} dimension{'s' * (magic[3] != 1)}")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ValueError("a file that ends within its header")
    return struct.unpack(f">{dimensions}I", sizes)


def _check_size(n_bytes: int, shape: tuple[int, ...]) -> None:
    if n_bytes != math.prod(shape):
        raise ValueError(f"{n_bytes:,} bytes where the header tells {_product(shape)}")


def _check_fits(file: Path, shape: tuple[int, ...]) -> None:
    """Believe a packed file's header only as far as file and machine allow."""
    n_bytes = math.prod(shape)
    if n_bytes > _GZIP_LARGEST_RATIO * file.stat().st_size:
        raise ValueError(f"{file.stat().st_size:,} packed bytes where the header tells {_product(shape)}")
    if n_bytes > psutil.virtual_memory().available:
        raise ValueError(f"{_product(shape)}, more than the memory holds; unpacked by gunzip, it needs none")


def _unpacked(file: BinaryIO, n_bytes: int) -> NDArray[Any]:
    values = np.empty(n_bytes, np.uint8)
    filled = 0
    while filled < n_bytes:
        # A damaged file ends with EOFError, as one that is cut does.
        block = file.read(min(_BLOCK_BYTES, n_bytes - filled))
        if not block:
            raise ValueError(f"{filled:,} bytes where the header tells {n_bytes:,}")
        values[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
        filled += len(block)
    if file.read(1):  # reading on to the end also checks gzip's own sum
        raise ValueError(f"more bytes than the {n_bytes:,} that the header tells")
    return values


def _product(shape: tuple[int, ...]) -> str:
    sizes = " × ".join(f"{size:,}" for size in shape)
    return f"{sizes} = {math.prod(shape):,}" if len(shape) > 1 else sizes


def _check_no_gaps(folder: Path, class_names: tuple[str, ...]) -> None:
    """Without names, a label that does not occur is taken for a slip, not for a class that nobody has images of."""
    labels = sorted(map(int, class_names))
    gaps = sorted(set(range(min(labels[0], 1), labels[-1])) - set(labels))
    if gaps:
        raise DatasetError(
            "labels have gaps",
            where=f"dataset.path: {folder}",
            found=f"{len(labels)} labels from {labels[0]} to {labels[-1]}, none of them {some(gaps)}",
            expected="every label from 0, or from 1, to the highest",
            hint="number the classes anew, without gaps",
        )
