"""Where an export may be written: beside nothing else, and over nothing but an earlier export."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ensembleflow.datasets.some import some
from ensembleflow.errors import BundleError, StorageError

__all__ = ["EXPORT_FILE", "require_free"]

EXPORT_FILE = "export.json"
"""What an export says of itself; `files` lists its other files."""


def require_free(output: Path, bundle: Path) -> None:
    """Refuse a folder that holds anything but an earlier export, which may be replaced.

    Args:
        output: where the export is to be written.
        bundle: what is exported.

    Raises:
        BundleError: `output` lies in the bundle, which must hold its own files only.
        StorageError: something else is there.
    """
    if output.resolve().is_relative_to(bundle.resolve()):
        raise BundleError("an export cannot lie in its bundle", where=output, hint="choose another --output")
    if not os.path.lexists(output):
        return
    foreign = sorted(_foreign(output)) if output.is_dir() else ["no folder"]
    if foreign:
        raise StorageError(
            "the output holds something else",
            where=output,
            found=some(foreign),
            expected="no such folder, an empty one, or an earlier export without further files",
            hint="choose another --output, or move what is there away",
        )


def _foreign(folder: Path) -> set[str]:
    """The files of a folder that no export wrote."""
    there = {
        Path(parent, name).relative_to(folder).as_posix() for parent, _, names in os.walk(folder) for name in names
    }
    try:
        written = {EXPORT_FILE, *json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return there
    return there - written
