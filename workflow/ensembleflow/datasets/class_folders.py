"""What lies in a folder with one sub-folder of images per class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ensembleflow.datasets.image_file import is_image_name

__all__ = ["ClassFolder", "list_class_folders"]


@dataclass(frozen=True)
class ClassFolder:
    """One class's folder.

    Attributes:
        name: the class's name.
        images: its files that are named like an image, by name; a link that leads nowhere is among them, for it is an
            image that cannot be read.
        others: what else lies there, but hidden entries, by name; a folder's name ends with `/`.
        changed_ns: when an entry was last added, removed or renamed, or the folder moved, nanoseconds since 1970.
    """

    name: str
    images: list[os.DirEntry[str]]
    others: list[str]
    changed_ns: int


def list_class_folders(folder: Path) -> list[ClassFolder]:
    """The classes' folders by name, links followed, hidden ones left out.

    Raises:
        OSError: the folder or a class's folder cannot be listed.
    """
    with os.scandir(folder) as entries:
        classes = sorted((entry for entry in entries if entry.name[0] != "." and entry.is_dir()), key=_name)
    return [_class_folder(entry) for entry in classes]


def _class_folder(entry: os.DirEntry[str]) -> ClassFolder:
    images, others = [], []
    with os.scandir(entry.path) as entries:
        for each in entries:
            if each.name[0] == ".":
                continue
            if is_image_name(each.name) and _is_no_other_thing(each):
                images.append(each)
            else:
                others.append(f"{each.name}/" if Path(each.path).is_dir() else each.name)
    changed_ns = entry.stat().st_ctime_ns
    if entry.is_symlink():
        changed_ns = max(changed_ns, entry.stat(follow_symlinks=False).st_ctime_ns)
    return ClassFolder(entry.name, sorted(images, key=_name), sorted(others), changed_ns)


def _is_no_other_thing(entry: os.DirEntry[str]) -> bool:
    """A folder is no image, and a pipe would be waited for; a link that leads nowhere is told as an image."""
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:  # a loop of links
        return True


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
