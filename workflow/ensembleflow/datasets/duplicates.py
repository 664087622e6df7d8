"""Images that are identical pixel for pixel, in the size in which networks see them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.labelled_images import LabelledImages, UnreadableImagesError
from ensembleflow.datasets.some import some
from ensembleflow.errors import DatasetError

__all__ = ["Duplicates", "contents_of", "find_duplicates", "image_contents", "refuse_duplicates"]

_IMAGES_A_READ = 256
_MAX_EXAMPLES = 10


@dataclass(frozen=True)
class Duplicates:
    """Identical images that make a measured error lower than it is, or a class's images contradict another's.

    Attributes:
        n_test: images of the test that are also among those to train or validate with.
        n_valid: images of the validation that are also among those to train with; where images were set aside for
            calibration, those of them too that are also among what is left of the validation.
        n_contradicting: images of any part that are also in another class.
        leaked: the first ten pairs of two parts, by name.
        contradicting: the first ten pairs of two classes, by name.
    """

    n_test: int = 0
    n_valid: int = 0
    n_contradicting: int = 0
    leaked: tuple[str, ...] = ()
    contradicting: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.n_test or self.n_valid or self.n_contradicting)

    def as_json(self) -> str:
        """The text of a dataset file's attribute `duplicates`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Duplicates:
        """What `as_json` has written."""
        values: dict[str, Any] = json.loads(text)
        leaked, contradicting = tuple(values.pop("leaked")), tuple(values.pop("contradicting"))
        return cls(**values, leaked=leaked, contradicting=contradicting)


def contents_of(batch: NDArray[Any]) -> NDArray[np.uint64]:
    """A checksum of each image's pixels, uint64 (n,), of images (n, ...)."""
    checksums = [hashlib.blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(batch)]
    return np.frombuffer(b"".join(checksums), np.uint64)


def image_contents(images: LabelledImages) -> NDArray[np.uint64]:
    """A checksum of each image's pixels: reads all of them.

    Raises:
        UnreadableImagesError: images cannot be read; all of them are named.
    """
    step, n_images = images.images_a_read or _IMAGES_A_READ, len(images.labels)
    places = np.arange(n_images, dtype=np.int64)
    contents, faults = [np.empty(0, np.uint64)], {}
    for start in range(0, n_images, step):
        try:
            contents.append(contents_of(images.read(places[start : start + step])))
        except UnreadableImagesError as error:
            faults.update(error.faults)
    if faults:
        raise UnreadableImagesError(faults)
    return np.concatenate(contents)


def find_duplicates(
    images: LabelledImages, splits: Mapping[str, NDArray[np.int64]], contents: Mapping[str, NDArray[np.uint64]]
) -> Duplicates:
    """Count the copies of images that stand in two parts or in two classes.

    Args:
        images: the images' labels and names.
        splits: for each of train, valid and test, and calibration if there is one, the indices of its images.
        contents: for each of them the checksums of its images' pixels, in the same order.
    """
    order = [name for name in ("train", "valid", "calibration", "test") if name in splits]
    indices = np.concatenate([splits[name] for name in order])
    parts = np.repeat(np.arange(len(order)), [len(splits[name]) for name in order])
    _, first, groups = np.unique(
        np.concatenate([contents[name] for name in order]), return_index=True, return_inverse=True
    )
    # The first of each group stands in its earliest part; another part or class is told by comparison with it.
    first = first[groups.reshape(-1)]
    leaked = parts != parts[first]
    labels = images.labels[indices]
    lowest = np.full(len(indices), np.iinfo(np.int64).max)
    np.minimum.at(lowest, first, labels)
    highest = np.full(len(indices), -1)
    np.maximum.at(highest, first, labels)
    contradicting = lowest[first] != highest[first]

    def pairs(which: NDArray[np.bool_]) -> tuple[str, ...]:
        places = np.flatnonzero(which)[:_MAX_EXAMPLES]
        names = [(images.name(int(indices[first[place]])), images.name(int(indices[place]))) for place in places]
        return tuple(f"{one} = {other}" for one, other in names)

    return Duplicates(
        n_test=int(np.sum(leaked & (parts == order.index("test")))),
        n_valid=int(np.sum(leaked & (parts > order.index("train")) & (parts < order.index("test")))),
        n_contradicting=int(contradicting.sum()),
        leaked=pairs(leaked),
        contradicting=pairs(labels != labels[first]),
    )


def refuse_duplicates(duplicates: Duplicates, path: str | None) -> None:
    """Refuse images that stand in two parts or classes.

    Raises:
        DatasetError: there are some; the first of them are named.
    """
    if duplicates:
        raise DatasetError(
            "identical images stand in two parts or two classes",
            where=f"dataset.path: {path}" if path is not None else "dataset",
            found=f"{duplicates.n_test} test images and {duplicates.n_valid} validation images that are trained with, "
            f"{duplicates.n_contradicting} images of two classes: "
            f"{some([*dict.fromkeys((*duplicates.leaked, *duplicates.contradicting))])}",
            hint="remove the copies, or set dataset.duplicates to together (copies stay in one part) or tell",
        )
