"""The image files that a user names, by themselves or by their folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ensembleflow.datasets.image_file import is_image_name

__all__ = ["ARRAY_SUFFIX", "FoundFiles", "find_image_files", "shown_name"]

ARRAY_SUFFIX = ".npy"


@dataclass(frozen=True)
class FoundFiles:
    """What paths lead to.

    Attributes:
        files: those that were named, and the folders' image files by name, in the paths' order.
        left_out: other files of the folders, but hidden ones.
        faults: folders without an image, and what could not be listed, each with its reason.
    """

    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def find_image_files(paths: Sequence[str | Path], image_dtype: str = "uint8") -> FoundFiles:
    """Search folders, with the folders in them, for files that are named like an image; links are followed.

    Where `image_dtype` is `float32`, which no image file holds, for `.npy` files instead.
    """
    found = FoundFiles()
    is_wanted, wanted = is_image_name, "an image"
    if image_dtype != "uint8":
        is_wanted, wanted = _is_array_name, f"*{ARRAY_SUFFIX}"
    for path in map(str, paths):
        if not Path(path).is_dir():
            found.files.append(path)
            continue
        n_before = len(found.files), len(found.faults)
        for file in _files_below(path, found.faults):
            (found.files if is_wanted(file) else found.left_out).append(file)
        if n_before == (len(found.files), len(found.faults)):
            found.faults.append(f"{shown_name(path)}: no file in it is named like {wanted}")
    return found


def shown_name(path: str | Path) -> str:
    """A path as text that can be printed, whatever bytes its name has."""
    return os.fsencode(path).decode(errors="replace")


def _is_array_name(name: str) -> bool:
    return Path(name).suffix.lower() == ARRAY_SUFFIX


def _files_below(folder: str, faults: list[str]) -> Iterator[str]:
    def note(error: OSError) -> None:
        faults.append(f"{shown_name(error.filename)}: {error.strerror}")

    seen = set()
    for place, folders, names in os.walk(folder, onerror=note, followlinks=True):
        if os.path.realpath(place) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(names):
            path = Path(place, name)
            # A pipe would be waited for; a link that leads nowhere is told as an image that cannot be read.
            if name[0] != "." and (path.is_file() or not path.exists()):
                yield str(path)
