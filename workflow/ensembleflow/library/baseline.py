"""The honest floor: what a person would try first on the same images, fitted and tested as the networks are."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.config import BaselineConfig
from ensembleflow.datasets import Dataset, open_dataset
from ensembleflow.datasets.shrunk_images import shrunk_images, shrunk_shape
from ensembleflow.datasets.split import stratified_part
from ensembleflow.datasets.standardisation import Standardisation
from ensembleflow.io import provenance, write_csv, write_json

__all__ = ["CLASSIFIER", "fit_baseline", "fitted_values", "n_affordable"]

CLASSIFIER = "SVC(C=10, gamma='scale')"
_C = 10.0
_RANK_OF_IMAGES = 4
_LEAST_SHARE = 0.1
_SPLITS = ("valid", "test")
_IMAGES_AT_ONCE = 256
_PREDICTED_AT_ONCE = 1000
_PROGRESS_SECONDS = 10

logger = logging.getLogger("ensembleflow.library")


def fit_baseline(
    dataset_path: str | Path, config: BaselineConfig, baseline_json: str | Path, answers_csv: str | Path
) -> None:
    """Fit scikit-learn's support vector machine to the training images and let it answer the others.

    It sees the pixels as shares of the full scale, float values standardised by channel; of larger images the means of
    squares of pixels, so that no side is above 32. Validation and test images are only answered: nothing is chosen by
    them. It gives classes and no probabilities, for a support vector machine has none of its own, so its cross-entropy
    is not known.

    The time grows with training images x (training + answered images) x (values per image + classes). Where that is
    more than the config allows, it learns from a part of the training images, drawn class by class in their proportions
    with the split's seed. Where that part would be below a tenth, or a class would have no image, it is left out: a
    floor made from so little would be too low to be honest.

    Args:
        dataset_path: the dataset that the networks are trained with.
        config: the classifier, and the most that it may take.
        baseline_json: where it is told what was fitted, or why nothing was: `classifier` null, with the `reason`; the
            images, and what it took.
        answers_csv: columns split, image (its place in the split), label and predicted; empty where nothing was fitted.

    Raises:
        ArtefactError: the dataset is missing or damaged.
        StorageError: an output cannot be written.
    """
    with open_dataset(dataset_path) as data:
        labels = {split: data.labels(split) for split in ("train", *_SPLITS)}
        facts = {"turned_off": config.classifier == "none", **_facts(data, labels)}
        n_images = n_affordable(
            facts["n_train_images"],
            len(labels["valid"]) + len(labels["test"]),
            facts["n_values"] + data.n_classes,
            config.max_giga_multiply_adds,
        )
        reason = _why_not(config, n_images, labels["train"])
        answers: dict[str, npt.NDArray[np.int64]] = {}
        if not reason:
            shuffled = np.random.default_rng(data.split_seed).permutation(len(labels["train"]))
            chosen = np.sort(stratified_part(labels["train"], shuffled, n_images))
            facts |= {"n_fitted_images": len(chosen)}
            answers, seconds = _answers(data, labels["train"], chosen)
            facts |= seconds
    if reason:
        logger.info("no baseline: %s", reason)
    tables = [
        pd.DataFrame({"split": split, "image": range(len(own)), "label": labels[split], "predicted": own})
        for split, own in answers.items()
    ]
    columns = ["split", "image", "label", "predicted"]
    write_csv(answers_csv, pd.concat(tables) if tables else pd.DataFrame(columns=columns))
    fitted = None if reason else CLASSIFIER
    write_json(baseline_json, {"classifier": fitted, **facts, "reason": reason, "provenance": provenance()})


def n_affordable(n_train: int, n_answered: int, n_terms: int, max_giga_multiply_adds: float) -> int:
    """The most training images n, up to all, whose n (n + answered) terms stay within the limit.

    A term is a multiplication for one pair of a training image and an image held against it: one for each value of an
    image, for the kernel, and one for each class, for the votes of the machines between two classes each.
    """
    most = max_giga_multiply_adds * 1e9 / n_terms
    n = int((math.sqrt(n_answered**2 + 4 * most) - n_answered) / 2)
    return min(n_train, n)


def fitted_values(images: npt.NDArray[Any], standardisation: Standardisation | None = None) -> npt.NDArray[np.float32]:
    """What the classifier sees: float32 (images, values), of images at most 32 rows and columns of them.

    Args:
        images: uint8 or float32 images (images, height, width, channels), of which rows and columns that fill no square
            are cut off; or float32 samples of other ranks, seen as they are.
        standardisation: of float32 samples; None for uint8, whose values are shares of the full scale.
    """
    n = len(images)
    if standardisation is not None:
        images = standardisation.apply(images)
    if images.ndim != _RANK_OF_IMAGES:
        return images.reshape(n, -1)
    pixels = shrunk_images(images)
    if standardisation is None:
        pixels /= 255
    return pixels.reshape(n, -1)


def _facts(data: Dataset, labels: dict[str, npt.NDArray[np.int64]]) -> dict[str, Any]:
    shape = list(data.image_shape)
    if len(shape) == _RANK_OF_IMAGES - 1:
        shape[:2] = shrunk_shape(*shape[:2])
    return {
        "n_train_images": len(labels["train"]),
        "n_fitted_images": 0,
        "image_shape": list(data.image_shape),
        "fitted_shape": shape,
        "n_values": math.prod(shape),
        "dataset_checksum": data.checksum,
    }


def _why_not(config: BaselineConfig, n_images: int, labels: npt.NDArray[np.int64]) -> str:
    if config.classifier == "none":
        return "library.baseline.classifier is none"
    if len(np.unique(labels)) < 2:
        return "the training images are of one class"
    if n_images < max(_LEAST_SHARE * len(labels), len(np.unique(labels))):
        return (
            f"the data are too large: {n_images:,} of {len(labels):,} training images are as many as "
            f"library.baseline.max_giga_multiply_adds ({config.max_giga_multiply_adds}) allows"
        )
    return ""


def _answers(
    data: Dataset, labels: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, float]]:
    """The classes predicted of each split's images, and what fitting and answering took."""
    from sklearn.svm import SVC  # slow to import

    train = data.image_array("train")
    pixels = np.concatenate(
        [
            fitted_values(train[chosen[start : start + _IMAGES_AT_ONCE]], data.standardisation)
            for start in _starts(chosen, _IMAGES_AT_ONCE)
        ]
    )
    told = f"baseline: {CLASSIFIER} on {len(chosen):,} of {len(labels):,} training images"
    logger.info("%s", told, extra={"progress": True})
    started = time.perf_counter()
    classifier = SVC(C=_C, gamma="scale", cache_size=500).fit(pixels, labels[chosen])
    fitted = time.perf_counter()
    answers, told_at = {}, fitted
    for split in _SPLITS:
        images = data.image_array(split)
        parts = [np.empty(0, dtype=np.int64)]
        for start in _starts(images, _PREDICTED_AT_ONCE):
            parts.append(
                classifier.predict(fitted_values(images[start : start + _PREDICTED_AT_ONCE], data.standardisation))
            )
            if time.perf_counter() - told_at >= _PROGRESS_SECONDS:
                told_at = time.perf_counter()
                logger.info("%s: answers %s, image %d", told, split, start, extra={"progress": True})
        answers[split] = np.concatenate(parts)
    return answers, {"fit_seconds": fitted - started, "answer_seconds": time.perf_counter() - fitted}


def _starts(items: Any, step: int) -> Iterator[int]:
    yield from range(0, len(items), step)
