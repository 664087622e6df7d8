"""Everything written is written aside and renamed, so that a reader never sees half a file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ensembleflow.errors import StorageError

__all__ = ["atomic_directory", "atomic_path", "link_or_copy", "write_csv", "write_json"]


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
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename not in (None, str(path.parent), str(aside)):
            raise
        raise StorageError("a file could not be written", where=path, found=_reason(error), hint=_WRITE_HINT) from error
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
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(aside, path)
            shutil.rmtree(old)
        else:
            os.replace(aside, path)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise StorageError(
            "a folder could not be written", where=path, found=_reason(error), hint=_WRITE_HINT
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name where the file system allows it, else copy it.

    Files of this project are replaced, never changed in place, so a shared inode is safe.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


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


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
