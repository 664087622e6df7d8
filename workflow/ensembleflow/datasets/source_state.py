"""Whether a dataset's file was made of the files that now lie at `dataset.path`.

Times of files say little: a folder that was moved in place, unpacked or copied keeps old ones, and a copied project has
new ones. So the dataset's file remembers the names and sizes of what it was made of, and a checksum of each file. What
the operating system has written, renamed or moved since (a file's change time, which no program sets) is compared by
content; of very much a sample is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets.array_store import is_array_file
from ensembleflow.datasets.class_folders import list_class_folders, list_parts
from ensembleflow.datasets.idx import is_idx_file
from ensembleflow.errors import DatasetError
from ensembleflow.io.folder import is_utf8

__all__ = [
    "SourceFiles",
    "file_checksum",
    "find_source_files",
    "is_remembered",
    "source_inputs",
    "source_state",
    "write_source_files",
]

_GROUP = "source_files"
_NOT_READ = 0
_WHOLE_BYTES, _BLOCKS = 2**26, 64
# What is read anew when Snakemake looks at the dataset: a second or so.
_MAX_FILES, _MAX_BYTES = 1000, 2**28


@dataclass(frozen=True)
class SourceFiles:
    """The files that a dataset is read from, in a fixed order.

    Attributes:
        paths: each file's path.
        sizes: int64 (n_files,), bytes.
        changed_ns: int64 (n_files,), when each file or its class's folder was last written, renamed or moved.
        listing: checksum of all names and sizes.
        folder_changed_ns: the same time of the folder itself.
        path_changed_ns: the same time of the folder and of those on the way to it that the config names.
    """

    paths: list[str]
    sizes: NDArray[np.int64]
    changed_ns: NDArray[np.int64]
    listing: str
    folder_changed_ns: int
    path_changed_ns: int

    @property
    def state(self) -> str:
        """Another text whenever anything was written, renamed or moved, even if it is the same as before."""
        newest = max(self.folder_changed_ns, self.path_changed_ns, int(self.changed_ns.max(initial=0)))
        digest = hashlib.blake2b(f"{self.listing} {newest}".encode(), digest_size=8)
        digest.update(self.changed_ns.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Remembered:
    """What a dataset's file says of the files that it was made of; no listing in files of earlier versions."""

    made_ns: int
    listing: str | None
    checksums: NDArray[np.uint64]


def source_state(config: DatasetConfig, dataset: str | Path, recorded: str | None) -> str | None:
    """A text that stays the same as long as the dataset's file holds what lies at `dataset.path`.

    Args:
        config: the config's dataset block.
        dataset: the dataset's file, which need not exist.
        recorded: the text of the run that made the dataset's file; None where it had none, as in earlier versions.

    Returns:
        `recorded`, where nothing has changed or nothing can be told; else a text that differs from it.
    """
    files = find_source_files(config)
    remembered = _read(Path(dataset))
    if files is None:
        return recorded
    if remembered is None:
        return files.state
    if remembered.listing is None:
        up_to_date = _seems_up_to_date(config, Path(dataset), files, remembered.made_ns)
    else:
        up_to_date = _unchanged(files, remembered)
    return recorded if up_to_date else files.state


def source_inputs(config: DatasetConfig, dataset: str | Path) -> list[Path]:
    """What the images are read from, as inputs of a rule: of a folder of images it and its classes' folders."""
    if config.source in ("digits", "synthetic") or config.path is None:
        return []
    path = Path(config.path)
    if path.is_dir() and os.access(path, os.R_OK | os.X_OK):
        if config.source in ("arrays", "idx"):
            return _array_files(path, config.source)
        # A class whose name is no text is refused by name, once the folder is read.
        parts = []
        with suppress(OSError):  # told when the images are read
            parts = [*list_parts(path).values()]
        classes = [
            each
            for folder in parts or [path]
            for each in folder.iterdir()
            if each.is_dir() and each.name[0] != "." and is_utf8(each)
        ]
        return [path, *parts, *sorted(classes)]
    # A plan needs no images. But what was made from images that are gone must not be deleted to be made again.
    return [path] if path.exists() or Path(dataset).exists() else []


def is_remembered(dataset: str | Path) -> bool:
    """Whether the dataset's file tells what it was made of, so that times of files need not count."""
    remembered = _read(Path(dataset))
    return remembered is not None and remembered.listing is not None


def find_source_files(config: DatasetConfig) -> SourceFiles | None:
    """The files of a folder or table of images, arrays or IDX files; None for others, or if they cannot be listed."""
    if config.path is None or config.source not in ("image_folder", "table", "arrays", "idx"):
        return None
    path = Path(config.path)
    try:
        names, paths, sizes, changed = hashlib.blake2b(digest_size=16), [], [], []
        if config.source == "table":
            names.update(path.read_bytes())
            entries = _table_images(path)
        else:
            entries = _images(path) if config.source == "image_folder" else _arrays(path, config.source)
        for name, each, size, changed_ns in entries:
            names.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
            paths.append(each)
            sizes.append(size)
            changed.append(changed_ns)
        on_the_way = [part for part in (path, *path.parents) if part.name]
        return SourceFiles(
            paths=paths,
            sizes=np.array(sizes, np.int64),
            changed_ns=np.array(changed, np.int64),
            listing=names.hexdigest(),
            folder_changed_ns=_changed_ns(path),
            path_changed_ns=max(map(_changed_ns, on_the_way), default=0),
        )
    except OSError:
        return None


def write_source_files(file: h5py.File, files: SourceFiles, checksums: NDArray[np.uint64]) -> None:
    """Remember in a dataset's file what it was made of; a checksum of 0 marks a file that was not read."""
    group = file.create_group(_GROUP)
    # Files that changed while they were read are not the ones remembered: the next run reads them again.
    group.attrs["listing"] = files.listing if len(checksums) == len(files.paths) else ""
    group.create_dataset("checksums", data=checksums)


def file_checksum(path: str | Path) -> int:
    """A checksum of a file's content, never 0; of one above 64 MB that of 64 blocks of 1 MB; 1 if it cannot be read."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _WHOLE_BYTES:
                digest.update(file.read())
            else:
                block = _WHOLE_BYTES // _BLOCKS
                for start in np.linspace(0, size - block, _BLOCKS).astype(np.int64).tolist():
                    file.seek(start)
                    digest.update(file.read(block))
    except (OSError, ValueError):  # a name that no file can have
        return 1
    return max(2, int.from_bytes(digest.digest(), "big"))


def _images(folder: Path) -> Iterator[tuple[str, str, int, int]]:
    for each in list_class_folders(folder):
        for entry in each.images:
            try:
                status = entry.stat()
            except OSError:  # a link that leads nowhere
                status = entry.stat(follow_symlinks=False)
            changed_ns = max(status.st_ctime_ns, each.changed_ns)
            if entry.is_symlink():
                changed_ns = max(changed_ns, entry.stat(follow_symlinks=False).st_ctime_ns)
            name = "/".join(filter(None, [each.part, each.name, entry.name]))
            yield name, entry.path, status.st_size, changed_ns


def _table_images(path: Path) -> Iterator[tuple[str, str, int, int]]:
    from ensembleflow.datasets.table import image_paths, read_table_rows

    images: list[str] = []
    with suppress(DatasetError):  # a faulty table has no images, and is told when they are to be read
        images = image_paths(path, read_table_rows(path))
    folders: dict[str, int] = {}
    for each in images:
        folder = each.rpartition("/")[0]
        if folder not in folders:
            # Any folder on the way may be moved, or a link be led elsewhere.
            on_the_way = [part for part in (Path(folder), *Path(folder).parents) if part.name]
            folders[folder] = max(map(_changed_or_0_ns, on_the_way), default=0)
        try:
            status, own = Path(each).stat(), Path(each).lstat()
            size, changed_ns = status.st_size, max(status.st_ctime_ns, own.st_ctime_ns)
        except (OSError, ValueError):  # missing, or a name that no file can have
            size, changed_ns = -1, 0
        yield each, each, size, max(changed_ns, folders[folder])


def _changed_or_0_ns(path: Path) -> int:
    try:
        return _changed_ns(path)
    except OSError:
        return 0


def _arrays(path: Path, source: str) -> Iterator[tuple[str, str, int, int]]:
    for each in _array_files(path, source):
        yield ("" if each == path else each.name), str(each), each.stat().st_size, _changed_ns(each)


def _array_files(path: Path, source: str) -> list[Path]:
    read = is_idx_file if source == "idx" else is_array_file
    return sorted(each for each in path.iterdir() if read(each.name)) if path.is_dir() else [path]


def _changed_ns(path: Path) -> int:
    return max(path.stat().st_ctime_ns, path.lstat().st_ctime_ns)


def _read(dataset: Path) -> _Remembered | None:
    """None where there is no such file, or it cannot be read: it will be made anyway."""
    with suppress(OSError, KeyError), h5py.File(dataset, "r", locking=False) as file:
        made_ns = dataset.stat().st_mtime_ns
        if _GROUP not in file:
            return _Remembered(made_ns, None, np.empty(0, np.uint64))
        group = file[_GROUP]
        return _Remembered(made_ns, str(group.attrs["listing"]), group["checksums"][:])
    return None


def _unchanged(files: SourceFiles, remembered: _Remembered) -> bool:
    if files.listing != remembered.listing:
        return False
    changed = files.changed_ns
    doubtful = np.flatnonzero(changed >= remembered.made_ns)
    if files.path_changed_ns >= remembered.made_ns:
        doubtful = np.arange(len(changed))
    doubtful = doubtful[remembered.checksums[doubtful] != _NOT_READ]
    room = _MAX_BYTES
    for index in _sample(doubtful, changed).tolist():
        if file_checksum(files.paths[index]) != remembered.checksums[index]:
            return False
        room -= min(int(files.sizes[index]), _WHOLE_BYTES)
        if room < 0:
            break
    return True


def _sample(doubtful: NDArray[np.int64], changed_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """All files in doubt, or those changed last and others evenly spaced."""
    if len(doubtful) <= _MAX_FILES:
        return doubtful
    last = doubtful[np.argsort(changed_ns[doubtful], kind="stable")[-_MAX_FILES // 2 :]]
    spaced = doubtful[np.linspace(0, len(doubtful) - 1, _MAX_FILES // 2).astype(np.int64)]
    return np.unique(np.concatenate([last, spaced]))


def _seems_up_to_date(config: DatasetConfig, dataset: Path, files: SourceFiles, made_ns: int) -> bool:
    """Of a dataset of an earlier version: whether nothing but a hidden change can speak against it.

    Its plan then stays as it was, and it is not made again. Once it is made again for another reason, it remembers.
    """
    folder = Path(str(config.path))
    if config.source != "image_folder":
        return all(Path(path).stat().st_mtime_ns <= made_ns for path in files.paths)
    classes = list_class_folders(folder)
    if any(each.stat().st_mtime_ns > made_ns for each in (folder, *(folder / each.name for each in classes))):
        return False
    with h5py.File(dataset, "r", locking=False) as file:
        labels = np.concatenate([file[f"{split}/labels"][:] for split in ("train", "valid", "test")])
        size = file["train/images"].shape[1]
        named = dict(zip(file["class_names"].asstr()[:], np.bincount(labels), strict=False))
    counts = {each.name: len(each.images) for each in classes}
    skipping = config.unreadable_images == "skip"
    same = named.keys() == counts.keys() and all(
        named[name] == n or (skipping and named[name] < n) for name, n in counts.items()
    )
    return bool(same and size == config.image_size)
