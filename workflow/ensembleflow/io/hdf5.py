"""HDF5 files that say which schema they follow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ensembleflow.errors import ArtefactError
from ensembleflow.io.atomic import atomic_path
from ensembleflow.io.read import remake_hint

__all__ = ["create_hdf5", "map_array", "open_hdf5"]


@contextmanager
def create_hdf5(path: str | Path, schema: str, schema_version: int) -> Iterator[h5py.File]:
    """Write an HDF5 file aside and rename it. The same content gives the same bytes.

    Args:
        path: where the file appears when the block ends well.
        schema: what the file is (`dataset`, `predictions`), a root attribute.
        schema_version: raised whenever a reader of the older layout would misread the file.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    # libver and track_order stay at their defaults: h5py then writes no timestamps (track_times is off).
    with atomic_path(path) as aside, _DiskFile(aside, "w+") as disk:
        try:
            with h5py.File(disk, "w") as file:
                file.attrs["schema"] = schema
                file.attrs["schema_version"] = schema_version
                yield file
        finally:
            if disk.error is not None:
                raise disk.error


class _DiskFile(io.FileIO):
    """A file that remembers that the disk is full instead of telling HDF5, which then crashes as it closes."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        size = rest.nbytes
        while rest.nbytes and self.error is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.error = error
        return size


@contextmanager
def open_hdf5(path: str | Path, schema: str, schema_version: int) -> Iterator[h5py.File]:
    """Open an HDF5 artefact for reading, without file locks (they fail on some cluster file systems).

    Raises:
        ArtefactError: it is missing, truncated, or follows another schema or schema version.
    """
    path = Path(path)
    if not path.exists():
        raise ArtefactError("an artefact is missing", where=path, hint=remake_hint(path))
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise ArtefactError(
            "an artefact is truncated or damaged",
            where=path,
            found=error,
            expected="an HDF5 file",
            hint=remake_hint(path),
        ) from None
    with file:
        found = (file.attrs.get("schema"), file.attrs.get("schema_version"))
        if found != (schema, schema_version):
            raise ArtefactError(
                "an artefact follows another schema",
                where=path,
                found=f"{found[0]} version {found[1]}",
                expected=f"{schema} version {schema_version}",
                hint=remake_hint(path),
            )
        yield file


def map_array(stored: h5py.Dataset) -> Any:
    """A stored array where it lies, to read parts of: a read-only map that outlives the open file.

    Only the pages that are read take memory, in the system's cache, which all processes of a machine share. A chunked
    or compressed array cannot be mapped: it comes as the `h5py.Dataset` that it is.
    """
    offset = stored.id.get_offset()
    if offset is None or 0 in stored.shape:
        return stored
    return np.memmap(stored.file.filename, stored.dtype, "r", offset, stored.shape)
