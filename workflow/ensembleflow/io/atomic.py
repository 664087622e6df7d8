"""Everything written is written aside and renamed, so that a reader never sees half a file."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensembleflow.errors import EnsembleflowError, StorageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "atomic_directory",
    "atomic_path",
    "disk_fault",
    "link_or_copy",
    "link_or_copy_folder",
    "write_csv",
    "write_json",
]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes `path`'s place when the block ends well.

    The new file keeps `path`'s suffix, and is flushed to the disk before it is renamed.

    Raises:
        StorageError: the disk is full or the folder cannot be written. `path` is then as it was.
    """
    path = Path(path)
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        aside = Path(name)
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o666 & ~umask)
        os.replace(aside, path)
    except Exception as error:
        another = isinstance(error, FileNotFoundError) and error.filename not in (None, str(path.parent), str(aside))
        found = None if another else _reason(error)
        if found is None:
            raise
        raise StorageError("a file could not be written", where=path, found=found, hint=_WRITE_HINT) from error
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes `path`'s place when the block ends well.

    Raises:
        StorageError: the disk is full or the folder cannot be written. `path` is then as it was.
    """
    path = Path(path)
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        aside.chmod(0o755)
        yield aside
        _take_place(aside, path)
    except Exception as error:
        found = None if isinstance(error, FileNotFoundError) else _reason(error)
        if found is None:
            raise
        raise StorageError("a folder could not be written", where=path, found=found, hint=_WRITE_HINT) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _take_place(aside: Path, path: Path) -> None:
    """Rename a folder, moving away what stands there; another process may be doing the same at the same time."""
    while True:
        try:
            return os.replace(aside, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
        with suppress(FileNotFoundError):
            os.replace(path, old / path.name)
        shutil.rmtree(old)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name where the file system allows it, else copy it.

    Files of this project are replaced, never changed in place, so a shared inode is safe.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def link_or_copy_folder(source: str | Path, target: str | Path) -> None:
    """Fill a folder with all files of another one, by `link_or_copy`; folders are made as needed."""
    for parent, _, names in os.walk(source):
        for name in names:
            file = Path(parent, name)
            copy = Path(target) / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, copy)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV; floats with all their digits, missing values as empty fields."""
    with atomic_path(path) as aside:
        table.to_csv(aside, index=False, lineterminator="\n")


_WRITE_HINT = "free some space or mend the folder's permissions, then run the same command again"
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def disk_fault(error: Exception) -> str | None:
    """What the disk refused, in the system's words; None for an error of another kind.

    TensorFlow and HDF5 raise errors of their own, whose text holds those words.
    """
    if isinstance(error, EnsembleflowError):
        return None
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno in _DISK_FAULTS else None
    return next((text for text in map(os.strerror, _DISK_FAULTS) if text in str(error)), None)


def _reason(error: Exception) -> str | None:
    """Why a path could not be written; None if the error is not about that."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else str(error)
    return disk_fault(error)
