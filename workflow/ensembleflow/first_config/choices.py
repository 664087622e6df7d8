"""What suits the images and the machine, each with its reason. docs/first-config.md has the rules as a table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensembleflow.config import Config, parse_config
from ensembleflow.first_config.fingerprint import Fingerprint
from ensembleflow.first_config.machine import Machine

__all__ = ["Choice", "Dataset", "choose_dataset", "choose_space", "config_of", "counted", "is_unbalanced"]

_UNBALANCED = 3.0
_WANTED_IMAGES = 500
_FEW_IMAGES = 1000
_FRACTION_STEP = 0.05
_LEAST_OF_A_CLASS = 5
_TINY = 16
_WIDE, _MANY_CLASSES = 48, 50
_FEW_A_CLASS, _FINE_TUNED_SIZE = 100, 32


@dataclass(frozen=True)
class Choice:
    """A key of the config, its value and the reason.

    Attributes:
        key: with its blocks, `search.space.stage_filters`.
        value: as YAML takes it.
        reason: one sentence, without a full stop.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Dataset:
    """The block `dataset`, and how many images its parts have.

    Attributes:
        choices: the block's keys.
        n_train: images to train with.
        n_valid: images to validate with.
        n_test: images of the test.
    """

    choices: tuple[Choice, ...]
    n_train: int
    n_valid: int
    n_test: int


def counted(n: int, one: str, more: str) -> str:
    """A number with what it counts: `1 image`, `2,000 images`."""
    return f"{n:,} {one if n == 1 else more}"


def is_unbalanced(fingerprint: Fingerprint) -> bool:
    """Whether the largest class has three times as many images as the smallest, or more."""
    return fingerprint.imbalance >= _UNBALANCED


def choose_dataset(fingerprint: Fingerprint, size_asked: bool = False) -> Dataset:
    """The block `dataset`: name, source, size, split, what becomes of copies and of files that cannot be read.

    Args:
        fingerprint: what was found.
        size_asked: whether a person chose its `image_size`.
    """
    found = fingerprint
    kind = "a table of images" if found.source == "table" else "a folder for each class"
    if found.source == "image_folder" and found.parts:
        kind = f"folders of {' and '.join(found.parts)}, each with a folder for each class"
    absolute = Path(found.path).is_absolute()
    where = "the images" if absolute else "relative to the folder in which you type snakemake"
    choices = [
        Choice("dataset.name", _dataset_name(found), "names the results: letters, digits and _"),
        Choice("dataset.source", found.source, kind),
        Choice("dataset.path", found.path, where),
        Choice("dataset.image_size", found.image_size, "as asked for" if size_asked else _reason_of_size(found)),
    ]
    left = found.n_images - sum(found.parts.get(part, 0) for part in ("valid", "test"))
    # The classes' shares are the same in what is left, as far as that is known.
    smallest = int(found.class_counts[found.smallest_class] * left / max(1, found.n_images))
    fraction = _fraction(left, smallest)
    sizes = {}
    for part, use in (
        ("valid", "to stop trials, rank networks and choose ensembles"),
        ("test", "that nothing is chosen by: the error to report"),
    ):
        if part in found.parts:
            sizes[part] = found.parts[part]
            continue
        sizes[part] = round(left * fraction)
        of = " of the images that are in no part yet" if found.parts else ""
        choices.append(Choice(f"dataset.{part}_fraction", fraction, f"about {sizes[part]:,} images{of}, {use}"))
    if found.unreadable:
        reason = f"{counted(len(found.unreadable), 'image', 'images')} cannot be read; `refuse` would make nothing"
        choices.append(Choice("dataset.unreadable_images", "skip", reason))
    if found.n_copies:
        told = counted(found.n_copies, "image is", "images are")
        reason = f"{told} identical to another one: copies stay in one part, or errors would be too low"
        choices.append(Choice("dataset.duplicates", "together", reason))
    n_parts = sum(size for part, size in sizes.items() if part not in found.parts)
    return Dataset(tuple(choices), max(1, left - n_parts), max(1, sizes["valid"]), max(1, sizes["test"]))


def choose_space(fingerprint: Fingerprint, machine: Machine) -> list[Choice]:
    """The keys of `search` that do not depend on time: family, metric, class weights and the hyperparameter space."""
    found, size = fingerprint, fingerprint.image_size
    family = "residual networks, trained from random weights"
    if size >= _FINE_TUNED_SIZE and found.n_images / len(found.class_counts) < _FEW_A_CLASS:
        family += "; with so few images a class, fine-tuning published weights may do better: docs/own-networks.md"
    choices = [Choice("search.family", "resnet", family)]
    if is_unbalanced(found):
        ratio = f"the largest class has {found.imbalance:,.1f} times as many images as the smallest"
        choices += [
            Choice("search.metric", "macro_f1_error", f"{ratio}: so each class counts alike"),
            Choice("search.class_weights", "balanced", "so that training does not pass over the small classes"),
        ]
    else:
        reason = "the classes are of like size, and cross-entropy tells networks apart on few images too"
        choices.append(Choice("search.metric", "cross_entropy", reason))
    if size < _TINY:
        return choices  # the default's space is made for such images
    wide = size > _WIDE or len(found.class_counts) >= _MANY_CLASSES
    stem, stage = ([16, 32], [16, 32]) if wide and machine.gpus else ([12, 24], [12, 24]) if wide else ([12, 20],) * 2
    why = "many classes" if len(found.class_counts) >= _MANY_CLASSES else f"{size}x{size} pixels"
    measured = "as in config/fashion_mnist.yaml"
    space = {
        "stem_filters": (stem, f"{why} want more filters than the default's 8x8 digits"),
        "stage_filters": (stage, "doubled from stage to stage"),
        "learning_rate": (
            {"low": 0.002, "high": 0.006, "log": True},
            f"{measured}, whose results are in docs/results.md",
        ),
        "batch_size": ([24, 48], measured),
        "activation": (["relu"], measured),
        "max_translation": (
            [0.02, 0.06],
            "a share of the side; on 28x28 pixels larger shifts were measured to cost accuracy",
        ),
        "max_zoom": ([0.03, 0.1], measured),
        "max_rotation_degrees": ([0, 6], f"{measured}; raise it where your images have no upright"),
    }
    if not found.has_colour:
        space["max_channel_shift"] = ([0.0, 0.0], "all images are grey: nothing is to be coloured")
    return choices + [Choice(f"search.space.{key}", value, reason) for key, (value, reason) in space.items()]


def config_of(choices: Iterable[Choice]) -> Config:
    """The config that the choices make, over the defaults.

    Raises:
        ConfigError: it is refused, as for a path with a `$` in it that is no variable.
    """
    values: dict[str, Any] = {}
    for choice in choices:
        *blocks, name = choice.key.split(".")
        inner = values
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[name] = choice.value
    return parse_config(values)


def _dataset_name(found: Fingerprint) -> str:
    name = Path(found.path).resolve()
    text = name.stem if found.source == "table" else name.name
    return re.sub("[^A-Za-z0-9_]+", "_", text).strip("_") or "images"


def _reason_of_size(found: Fingerprint) -> str:
    low, median, high = found.sides
    size = found.image_size
    if low == high == size and found.widths_and_heights == ((size, size), (size, size)):
        return "the size that all images have"
    if abs(median - size) <= 4:
        return f"the median of the images' longer sides, {low} to {high} pixels, to a multiple of 8"
    if median < size:
        return f"the least that the networks take; the images' longer sides are {low} to {high} pixels"
    return (
        f"the images' longer sides are {low} to {high} pixels (median {median}), but twice the side is four times the "
        "work; raise it if you cannot tell the classes apart at this size"
    )


def _fraction(n_images: int, smallest_class: int) -> float:
    """The share of validation, and of test: 500 images, between a tenth and three tenths; a fifth of few images."""
    if n_images < _FEW_IMAGES:
        fraction = 0.2
    else:
        steps = math.ceil(_WANTED_IMAGES / n_images / _FRACTION_STEP)
        fraction = min(0.3, max(0.1, steps * _FRACTION_STEP))
        if smallest_class * fraction < _LEAST_OF_A_CLASS:
            fraction = max(fraction, 0.2)
    return round(fraction, 2)
