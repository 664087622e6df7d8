"""What a folder or a table of images holds: classes, sizes, kinds, copies, files that cannot be read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.duplicates import contents_of, find_duplicates
from ensembleflow.datasets.image_file import read_image_kind
from ensembleflow.datasets.image_folder import read_image_folder
from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.datasets.split import stratified_part
from ensembleflow.datasets.table import read_table
from ensembleflow.errors import DatasetError
from ensembleflow.first_config.image_size import suitable_image_size

__all__ = ["MOST_IMAGES", "Fingerprint", "Look", "look_at_images"]

_LOG = logging.getLogger(__name__)

MOST_IMAGES = 10_000
"""Images that are opened at most."""

# Pixels that are decoded at most: half a minute to a minute of one core.
_MOST_PIXELS = 4_000_000_000
_IMAGES_A_READ = 64
_IMAGES_A_LINE = 2000
_KEPT_PIXELS = 512
_TABLES = (".csv", ".parquet", ".pq")
_MAX_EXAMPLES = 3

Source = Literal["image_folder", "table"]


@dataclass(frozen=True)
class Fingerprint:
    """What was found.

    Attributes:
        path: the folder or table, as typed.
        source: the config's `dataset.source` that reads it.
        class_counts: images of each class, as listed, whether they can be read or not.
        parts: images of each part that the source itself sets apart; none where it is not split.
        n_groups: groups that a table names; None without.
        n_opened: images of which size and kind were looked at: a fair sample of each class, or all.
        n_decoded: images that were decoded and compared, the first of these.
        sides: smallest, median and largest of the images' longer sides, pixels.
        widths_and_heights: smallest and largest width and height, ((width, height), (width, height)).
        stretched: median ratio of an image's longer to its shorter side.
        kinds: images by kind: `grey`, `RGB`, `palette`, `with transparency`, `16 bits` and others.
        has_colour: whether any decoded image has.
        unreadable: files that cannot be read, each with the reason.
        n_copies: decoded images that are identical to an earlier one.
        n_contradicting: decoded images that are identical to one of another class, both of a pair.
        copies: the first pairs, by name.
        image_size: side in pixels in which the images were compared, which suits them and the machine.
    """

    path: str
    source: Source
    class_counts: Mapping[str, int]
    parts: Mapping[str, int]
    n_groups: int | None
    n_opened: int
    n_decoded: int
    sides: tuple[int, int, int]
    widths_and_heights: tuple[tuple[int, int], tuple[int, int]]
    stretched: float
    kinds: Mapping[str, int]
    has_colour: bool
    image_size: int
    unreadable: tuple[str, ...] = ()
    n_copies: int = 0
    n_contradicting: int = 0
    copies: tuple[str, ...] = ()

    @property
    def n_images(self) -> int:
        """All images, as listed."""
        return sum(self.class_counts.values())

    @property
    def smallest_class(self) -> str:
        """The class with the fewest images, the first by name of several."""
        return min(self.class_counts, key=lambda name: (self.class_counts[name], name))

    @property
    def largest_class(self) -> str:
        """The class with the most images, the first by name of several."""
        return min(self.class_counts, key=lambda name: (-self.class_counts[name], name))

    @property
    def imbalance(self) -> float:
        """Images of the largest class by those of the smallest."""
        return self.class_counts[self.largest_class] / max(1, self.class_counts[self.smallest_class])


@dataclass(frozen=True)
class Look:
    """A fingerprint, and of the images what is needed to try a split and a network.

    Attributes:
        fingerprint: what was found.
        images: those that can be read, as far as is known.
        contents: a checksum of each image's pixels; None where not all were decoded.
        pixels: some of the images, uint8 (n, image_size, image_size, 3).
    """

    fingerprint: Fingerprint
    images: LabelledImages
    contents: NDArray[np.uint64] | None
    pixels: NDArray[np.uint8]


@dataclass
class _Decoded:
    places: list[int] = field(default_factory=list)
    contents: list[NDArray[np.uint64]] = field(default_factory=list)
    pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    has_colour: bool = False


def look_at_images(
    path: str | Path,
    largest_size: int,
    threads: int = 1,
    most_images: int = MOST_IMAGES,
    image_size: int | None = None,
) -> Look:
    """List a folder's or a table's images, open and decode them, or a sample of each class where there are very many.

    Args:
        path: a folder of class folders, one of such folders for each part, or a table (CSV or Parquet).
        largest_size: side in pixels that the images may have at most in training.
        threads: images decoded side by side.
        most_images: images that are opened at most.
        image_size: side in pixels, instead of the one that suits.

    Raises:
        DatasetError: no such folder or table, fewer than two classes, or none of the images can be read.
    """
    path, source = Path(path), _source(Path(path))
    listed = _listed(path, source, 8, threads)
    n_classes = len(listed.class_names)
    shuffled = np.random.default_rng(0).permutation(len(listed.labels))
    n_opened = min(len(shuffled), max(most_images, n_classes))
    opened = stratified_part(listed.labels, shuffled, n_opened)
    folder = path if source == "image_folder" else path.parent
    sizes, kinds = _headers([folder / listed.name(index) for index in opened.tolist()])
    image_size = image_size or suitable_image_size(sizes, largest_size)
    if not len(sizes):
        sizes = np.full((1, 2), image_size)
    sides = sizes.max(axis=1)
    n_decoded = min(n_opened, max(1000, n_classes, int(_MOST_PIXELS / max(1.0, sizes.prod(axis=1).mean()))))
    images = _listed(path, source, image_size, threads)
    decoded = _decode(images, opened[:n_decoded])
    if not decoded.places:
        raise UnreadableImagesError(decoded.faults)
    places, contents = np.array(decoded.places), np.concatenate(decoded.contents)
    copies = _copies(images, places, contents)
    none: NDArray[np.int64] = np.empty(0, np.int64)
    compared = find_duplicates(
        images,
        {"train": places, "valid": none, "test": none},
        {"train": contents, "valid": contents[:0], "test": contents[:0]},
    )
    fingerprint = Fingerprint(
        path=str(path),
        source=source,
        class_counts=dict(zip(images.class_names, np.bincount(images.labels).tolist(), strict=True)),
        parts={part: len(indices) for part, indices in images.own_split.items()},
        n_groups=None if images.groups is None else len(np.unique(images.groups)),
        n_opened=n_opened,
        n_decoded=n_decoded,
        sides=(int(sides.min()), int(np.median(sides)), int(sides.max())),
        widths_and_heights=(_pair(sizes.min(axis=0)), _pair(sizes.max(axis=0))),
        stretched=float(np.median(sides / np.maximum(1, sizes.min(axis=1)))),
        kinds=kinds,
        has_colour=decoded.has_colour,
        image_size=image_size,
        unreadable=tuple(sorted(decoded.faults.values())),
        n_copies=len(copies),
        n_contradicting=compared.n_contradicting,
        copies=tuple(f"{images.name(one)} = {images.name(other)}" for one, other in copies[:_MAX_EXAMPLES]),
    )
    known = contents[np.argsort(places)] if n_decoded == len(images.labels) else None
    kept = images.without(decoded.faults) if decoded.faults else images
    return Look(fingerprint, kept, known, np.concatenate(decoded.pixels)[:_KEPT_PIXELS])


def _source(path: Path) -> Source:
    if path.is_file() and path.suffix.lower() not in _TABLES:
        raise DatasetError(
            "a file is no folder of images",
            where=path,
            expected="a folder with one sub-folder of images per class, or a table of images (.csv or .parquet)",
            hint="docs/own-images.md says how a config names arrays and IDX files",
        )
    return "table" if path.is_file() else "image_folder"


def _listed(path: Path, source: Source, image_size: int, threads: int) -> LabelledImages:
    read = read_table if source == "table" else read_image_folder
    return read(path, image_size, threads)


def _headers(files: list[Path]) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Widths and heights, int64 (n, 2), of the files that tell them, and how many there are of each kind."""
    sizes, kinds = [], Counter[str]()
    for number, file in enumerate(files, 1):
        try:
            width, height, kind = read_image_kind(file)
        except Exception:  # whatever Pillow raises at a file that is no image; decoding tells why
            continue
        sizes.append((width, height))
        kinds[kind] += 1
        if number % _IMAGES_A_LINE == 0:
            _LOG.info("sizes: %d of %d images", number, len(files), extra={"progress": True})
    return np.array(sizes, np.int64).reshape(-1, 2), dict(kinds.most_common())


def _decode(images: LabelledImages, chosen: NDArray[np.int64]) -> _Decoded:
    decoded, n_kept = _Decoded(), 0
    for start in range(0, len(chosen), _IMAGES_A_READ):
        block = chosen[start : start + _IMAGES_A_READ]
        try:
            pixels = images.read(block)
        except UnreadableImagesError as error:
            decoded.faults |= error.faults
            block = np.array([index for index in block.tolist() if index not in error.faults], np.int64)
            if not len(block):
                continue
            pixels = images.read(block)
        decoded.places += block.tolist()
        decoded.contents.append(contents_of(pixels))
        decoded.has_colour |= bool(np.any(pixels != pixels[..., :1]))
        if n_kept < _KEPT_PIXELS:
            decoded.pixels.append(pixels)
            n_kept += len(pixels)
        if (start // _IMAGES_A_READ) % (_IMAGES_A_LINE // _IMAGES_A_READ) == 0 and start:
            _LOG.info("decoded: %d of %d images", start, len(chosen), extra={"progress": True})
    return decoded


def _copies(images: LabelledImages, places: NDArray[np.int64], contents: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """For each image that is identical to an earlier one of the source: both, by their indices."""
    order = np.argsort(places)
    places, contents = places[order], contents[order]
    _, first, groups = np.unique(contents, return_index=True, return_inverse=True)
    firsts = places[first[groups.reshape(-1)]]
    return [(int(one), int(other)) for one, other in zip(firsts, places, strict=True) if one != other]


def _pair(values: NDArray[np.int64]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
