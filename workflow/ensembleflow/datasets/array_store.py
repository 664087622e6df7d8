"""Named arrays in an `.npz` file, an HDF5 file or a folder of `.npy` files, read a part at a time."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ensembleflow.errors import DatasetError

__all__ = [
    "CLASS_NAMES_FILE",
    "EXPECTED_CONTAINER",
    "StoredArray",
    "in_memory",
    "is_array_file",
    "open_arrays",
    "read_lines",
]

EXPECTED_CONTAINER = "an .npz, .h5 or .hdf5 file, or a folder of .npy files"
CLASS_NAMES_FILE = "class_names.txt"
_BLOCK_BYTES = 2**25


@dataclass(frozen=True)
class StoredArray:
    """An array on the disk.

    Attributes:
        where: the file and the array's name in it.
        shape: its shape.
        dtype: its type; `object` for HDF5's texts of any length.
        rows: gives rows `start` to `stop` (excluded).
        block_rows: how many rows to read at once.
        in_blocks: whether reading one row takes as long as reading its block.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: Callable[[int, int], NDArray[Any]]
    block_rows: int
    in_blocks: bool = False

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return _row_bytes(self.shape, self.dtype)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All rows, one block after the other."""
        for start in range(0, len(self), self.block_rows):
            yield self.rows(start, min(start + self.block_rows, len(self)))

    def take(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these indices, in their order; each block that holds any of them is read once."""
        taken = np.empty((len(indices), *self.shape[1:]), self.dtype)
        order = np.argsort(indices, kind="stable")
        ascending = indices[order]
        step = self.block_rows if self.in_blocks else len(self)
        for start in range(0, len(self), step):
            low, high = np.searchsorted(ascending, [start, start + step])
            if low < high:
                taken[order[low:high]] = self.rows(start, min(start + step, len(self)))[ascending[low:high] - start]
        return taken


def open_arrays(path: str | Path) -> dict[str, Callable[[], StoredArray]]:
    """What opens each array of a file or folder, by the array's name.

    A folder's `.npy` files, and HDF5 datasets that are neither chunked nor compressed, are mapped: whatever their
    size, only what is asked for is read. Other HDF5 datasets are read block by block, and an `.npz` file's array as a
    whole when it is opened. `class_names.txt` in a folder, a name a line, is an array of texts.

    Raises:
        DatasetError: nothing is there, or it is of another kind or truncated; when an array is opened or read: it is
            damaged, or holds pickled Python objects.
    """
    path = Path(path)
    with _told(str(path)):
        exists = path.exists()
    if not exists:
        hint = None if path.is_absolute() else f"the path is relative to {Path.cwd()}"
        where = f"dataset.path: {path}"
        raise DatasetError("the arrays are missing", where=where, expected=EXPECTED_CONTAINER, hint=hint)
    with _told(str(path)):
        if path.is_dir():
            return _open_folder(path)
        if path.suffix.lower() == ".npz":
            return _open_npz(path)
        if path.suffix.lower() in (".h5", ".hdf5"):
            return _open_hdf5(path)
    raise DatasetError(
        "arrays cannot be read",
        where=f"dataset.path: {path}",
        found=f"a file named *{path.suffix}",
        expected=EXPECTED_CONTAINER,
    )


def in_memory(where: str, array: NDArray[Any]) -> StoredArray:
    """An array in the memory, or mapped, as one that is read from `where`."""
    rows = max(1, _BLOCK_BYTES // max(1, _row_bytes(array.shape, array.dtype)))
    return StoredArray(where, array.shape, array.dtype, lambda start, stop: array[start:stop], rows)


def _row_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize


def _check_first_bytes(path: Path, expected: bytes, kind: str) -> None:
    """NumPy takes a file of any other kind for a pickle."""
    with open(path, "rb") as file:
        found = file.read(16)
    if not found.startswith(expected):
        raise ValueError(f"no {kind} file; it begins with {found!r}")


def _open_folder(folder: Path) -> dict[str, Callable[[], StoredArray]]:
    arrays: dict[str, Callable[[], StoredArray]] = {
        file.stem: partial(_npy_array, file) for file in sorted(folder.glob("*.npy"))
    }
    names = folder / CLASS_NAMES_FILE
    return {**arrays, "class_names": partial(read_lines, names)} if names.exists() else arrays


def _npy_array(file: Path) -> StoredArray:
    with _told(str(file)):
        _check_first_bytes(file, b"\x93NUMPY", ".npy")
        return in_memory(str(file), np.load(file, mmap_mode="r", allow_pickle=False))


def is_array_file(name: str) -> bool:
    """Whether a folder's file is one of those that are read."""
    return name.endswith(".npy") or name == CLASS_NAMES_FILE


def read_lines(file: Path) -> StoredArray:
    """A text file's lines as an array of texts, without the blanks around each.

    Raises:
        DatasetError: it cannot be read, or is not in UTF-8.
    """
    with _told(str(file)):
        lines = file.read_text(encoding="utf-8-sig").rstrip().split("\n")
        return in_memory(str(file), np.array([line.strip() for line in lines], dtype=np.str_))


def _open_npz(path: Path) -> dict[str, Callable[[], StoredArray]]:
    _check_first_bytes(path, b"PK", ".npz")
    # NumPy would leave a damaged file open that it has opened itself.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {key: partial(_npz_array, path, key) for key in arrays.files}


def _npz_array(path: Path, key: str) -> StoredArray:
    with _told(f"{path}: {key}"), open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return in_memory(f"{path}: {key}", arrays[key])


def _open_hdf5(path: Path) -> dict[str, Callable[[], StoredArray]]:
    with h5py.File(path, "r", locking=False) as file:
        keys = {key for key in file if isinstance(file.get(key), h5py.Dataset)}
        file.visititems(lambda key, each: keys.add(key) if isinstance(each, h5py.Dataset) else None)
        return {key: partial(_hdf5_array, path, key) for key in sorted(keys)}


def _hdf5_array(path: Path, key: str) -> StoredArray:
    where = f"{path}: {key}"
    with _told(where), h5py.File(path, "r", locking=False) as file:
        stored = file[key]
        if stored.shape is None:
            raise ValueError("an array without a shape")
        shape, dtype, chunks = stored.shape, stored.dtype, stored.chunks
        text = h5py.check_string_dtype(dtype) is not None
        plain = not text and not dtype.hasobject and h5py.check_dtype(enum=dtype) is None
        offset = stored.id.get_offset() if plain else None
    if offset is not None:
        return in_memory(where, np.memmap(path, dtype, "r", offset, shape))

    def rows(start: int, stop: int) -> NDArray[Any]:
        with _told(where), h5py.File(path, "r", locking=False) as file:
            return (file[key].asstr() if text else file[key])[start:stop]

    # Whole chunks: HDF5 reads and decompresses a chunk for a single row of it.
    chunk_rows = chunks[0] if chunks else 1
    n_chunks = max(1, _BLOCK_BYTES // max(1, chunk_rows * _row_bytes(shape, dtype)))
    return StoredArray(where, shape, dtype, rows, n_chunks * chunk_rows, in_blocks=True)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Tell a damaged file in one message."""
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(str(getattr(error, "filename", None) or where), error) from None


def _unreadable(where: str, error: Exception) -> DatasetError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    pickled = "pickle" in reason or "Python objects" in reason
    return DatasetError(
        "arrays cannot be read: they hold pickled Python objects" if pickled else "arrays cannot be read",
        where=f"dataset.path: {where}",
        found=reason,
        expected="plain numbers or texts" if pickled else EXPECTED_CONTAINER,
        hint="such a file can run any code when it is opened, and is not; save the array again with a plain type, for "
        "example images.astype('uint8')"
        if pickled
        else "the file may be incomplete: copy or download it again",
    )
