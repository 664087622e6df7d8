"""Checking folders before any work starts."""

from __future__ import annotations

import os
from pathlib import Path

from ensembleflow.errors import StorageError

__all__ = ["is_utf8", "require_cache_folder", "require_writable"]


def require_writable(folder: str | Path) -> None:
    """Refuse a results folder that cannot be made or written.

    Raises:
        StorageError: it, or the nearest folder above it that exists, is no folder or not writable.
    """
    nearest = Path(folder).absolute()
    # A link that leads nowhere is there, though what it names is not: nothing can be made below it.
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return
    found, hint = f"{nearest} is not a folder", "set results_dir in the config to a folder of yours"
    if nearest.is_dir():
        found, hint = f"{nearest} is not writable", f"{hint}, or mend its permissions"
    elif nearest.is_symlink() and not nearest.exists():
        found = f"{nearest} is a link to {nearest.readlink()}, which does not exist"
        hint = "make that folder (was it purged?), or remove the link"
    raise StorageError("the results folder cannot be written", where=Path(folder).absolute(), found=found, hint=hint)


def require_cache_folder(folder: str | Path) -> None:
    """Refuse a cache folder of Snakemake's, which makes it at its start, that cannot be made or written.

    Raises:
        StorageError: it cannot.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        found = None if os.access(folder, os.W_OK | os.X_OK) else "it is not writable"
    except OSError as error:
        found = error.strerror
    if found:
        raise StorageError(
            "Snakemake has no folder for its cache",
            where=folder,
            found=found,
            expected="a home, or another folder, that this user may write into",
            hint="export XDG_CACHE_HOME=FOLDER, and run the same command again",
        )


def is_utf8(path: str | Path) -> bool:
    """Whether a path can be written down: Linux allows any bytes in it, Snakemake and HDF5 only text."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
