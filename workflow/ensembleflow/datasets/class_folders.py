"""What lies in a folder with one sub-folder of images per class, or with such a folder for each part."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ensembleflow.datasets.dataset_file import SPLITS
from ensembleflow.datasets.image_file import is_image_name

__all__ = ["PART_NAMES", "ClassFolder", "list_class_folders", "list_parts", "why_no_parts"]

PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What folders of parts, and parts in a table, are called, in any case, and the part that each is."""


@dataclass(frozen=True)
class ClassFolder:
    """One class's folder, of one part where the images are split already.

    Attributes:
        name: the class's name.
        images: its files that are named like an image, by name; a link that leads nowhere is among them, for it is an
            image that cannot be read.
        others: what else lies there, but hidden entries, by name; a folder's name ends with `/`.
        changed_ns: when an entry was last added, removed or renamed, or the folder moved, nanoseconds since 1970.
        path: the folder.
        part: train, valid or test; None where the images are not split.
    """

    name: str
    images: list[os.DirEntry[str]]
    others: list[str]
    changed_ns: int
    path: str
    part: str | None = None


def list_class_folders(folder: Path) -> list[ClassFolder]:
    """The classes' folders by name, links followed, hidden ones left out; of split images part by part.

    Raises:
        OSError: the folder or a class's folder cannot be listed.
    """
    parts = list_parts(folder)
    if not parts:
        return [_class_folder(entry, None) for entry in _folders(folder)]
    return [
        _class_folder(entry, part, max(path.stat().st_ctime_ns, path.lstat().st_ctime_ns))
        for part, path in parts.items()
        for entry in _folders(path)
    ]


def list_parts(folder: Path) -> dict[str, Path]:
    """The folders of the parts that images are split into already; none where the sub-folders are classes.

    They are parts if all are called so, one of them train, and hold folders but no image: `train` may be a class, too.

    Raises:
        OSError: a folder cannot be listed.
    """
    entries = _folders(folder)
    parts = {PART_NAMES.get(entry.name.lower()): Path(entry.path) for entry in entries}
    if len(parts) < 2 or len(parts) < len(entries) or None in parts or "train" not in parts:
        return {}
    if not all(_holds_folders_only(path) for path in parts.values()):
        return {}
    return {part: parts[part] for part in SPLITS if part in parts}


def why_no_parts(folder: Path) -> list[str]:
    """What keeps folders that are called like parts, two or more, and hold folders from being read as parts.

    Nothing where they are parts, and where none of them holds a folder with an image: then they are classes.

    Raises:
        OSError: a folder cannot be listed.
    """
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if entry.name[0] != "."), key=_name)
    named = [entry for entry in visible if entry.name.lower() in PART_NAMES]
    folders = [entry for entry in named if entry.is_dir()]
    if len(folders) < 2 or not any(_holds_folders_of_images(Path(entry.path)) for entry in folders):
        return []
    reasons = [f"{entry.name} is no folder" for entry in named if not entry.is_dir()]
    parts = [PART_NAMES[entry.name.lower()] for entry in folders]
    reasons += [f"two folders are {part}" for part in dict.fromkeys(parts) if parts.count(part) > 1]
    reasons += [] if "train" in parts else ["there is no train"]
    reasons += [f"{entry.name} is none" for entry in visible if entry.is_dir() and entry not in named]
    for entry in folders:
        with os.scandir(entry.path) as entries:
            inner = sorted((each for each in entries if each.name[0] != "."), key=_name)
        images = [each.name for each in inner if not each.is_dir() and is_image_name(each.name)]
        reasons += [f"{entry.name}/{images[0]} lies beside the classes"] if images else []
        reasons += [] if any(each.is_dir() for each in inner) else [f"{entry.name} holds no folder"]
    return reasons


def _holds_folders_of_images(folder: Path) -> bool:
    for entry in _folders(folder):
        with os.scandir(entry.path) as entries:
            if any(is_image_name(each.name) for each in entries):
                return True
    return False


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if entry.name[0] != "." and entry.is_dir()), key=_name)


def _holds_folders_only(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        kinds = [entry.is_dir() for entry in entries if entry.name[0] != "." and not _is_other_file(entry)]
    return bool(kinds) and all(kinds)


def _is_other_file(entry: os.DirEntry[str]) -> bool:
    return not entry.is_dir() and not is_image_name(entry.name)


def _class_folder(entry: os.DirEntry[str], part: str | None, part_changed_ns: int = 0) -> ClassFolder:
    images, others = [], []
    with os.scandir(entry.path) as entries:
        for each in entries:
            if each.name[0] == ".":
                continue
            if is_image_name(each.name) and _is_no_other_thing(each):
                images.append(each)
            else:
                others.append(f"{each.name}/" if Path(each.path).is_dir() else each.name)
    changed_ns = max(entry.stat().st_ctime_ns, part_changed_ns)
    if entry.is_symlink():
        changed_ns = max(changed_ns, entry.stat(follow_symlinks=False).st_ctime_ns)
    return ClassFolder(entry.name, sorted(images, key=_name), sorted(others), changed_ns, entry.path, part)


def _is_no_other_thing(entry: os.DirEntry[str]) -> bool:
    """A folder is no image, and a pipe would be waited for; a link that leads nowhere is told as an image."""
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:  # a loop of links
        return True


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name
