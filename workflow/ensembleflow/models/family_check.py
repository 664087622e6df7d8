"""Whether a family does all that the workflow asks of it, tried before anything is trained."""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensembleflow.config import Range, Values
from ensembleflow.datasets.standardisation import Standardisation
from ensembleflow.errors import ArtefactError, FamilyError
from ensembleflow.models.augmentation import augmentation_of
from ensembleflow.models.export import export_model, load_exported
from ensembleflow.models.family import Family
from ensembleflow.models.family_input import check_takes
from ensembleflow.models.hyperparameters import FamilyHyperparameters
from ensembleflow.models.layers import layers_and_networks
from ensembleflow.models.model_file import load_model, save_model, uncompiled
from ensembleflow.models.training import Trainer

if TYPE_CHECKING:
    import keras

__all__ = ["CheckedPoint", "check_family", "points_of"]

logger = logging.getLogger("ensembleflow.search")

_N_IMAGES = 3
_SCALE = "scale the images within the network, by keras.layers.Rescaling(1 / 255) for example"
# What the same network's answers may differ by, computed for other batches or once loaded again.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CheckedPoint:
    """A point of the space whose network was built, trained, saved and exported.

    Attributes:
        hyperparameters: the family's own values.
        parameters: weights of the network, trained or not.
    """

    hyperparameters: dict[str, Any]
    parameters: int


def points_of(space: Mapping[str, Values]) -> list[dict[str, Any]]:
    """The lowest and the highest values of all ranges, each with as many choices as are needed to have seen all."""
    n_points = max([2, *(len(values) for values in space.values() if not isinstance(values, Range))])
    return [
        {
            name: (values.high if place % 2 else values.low)
            if isinstance(values, Range)
            else values[place % len(values)]
            for name, values in space.items()
        }
        for place in range(n_points)
    ]


def check_family(
    family: Family,
    space: Mapping[str, Values],
    training: FamilyHyperparameters,
    image_shape: tuple[int, ...],
    n_classes: int,
    precision: str = "float32",
    standardisation: Standardisation | None = None,
) -> list[CheckedPoint]:
    """Build, train for a step, save, load and export the networks of a few points of the space.

    Args:
        family: whose file was loaded.
        space: of its own hyperparameters.
        training: what the trials train with; its network's values are replaced by each point's.
        image_shape: (height, width, channels) in pixels, or of other samples their shape.
        n_classes: number of classes.
        precision: Keras's dtype policy.
        standardisation: of float samples; None for uint8.

    Raises:
        FamilyError: something cannot be done; the message lists every point's first fault.
    """
    check_takes(family.name, family.input_ranks, image_shape, family.path)
    points, faults = points_of(space), []
    checked = []
    for number, values in enumerate(points):
        logger.info("family %s: network %d of %d is tried", family.name, number + 1, len(points))
        hyperparameters = replace(training, network=values)
        try:
            checked.append(_check_point(family, hyperparameters, image_shape, n_classes, precision, standardisation))
        except FamilyError as error:
            faults.append((values, error))
    if not faults:
        return checked
    first = faults[0][1]
    if len(faults) < len(points) or len({str(error) for _, error in faults}) > 1:
        first.found = "; and ".join(_at(values, error, whole=error.what != first.what) for values, error in faults[:5])
    raise first


def _at(values: Mapping[str, Any], error: FamilyError, *, whole: bool) -> str:
    told = f"{error.what}: {error.found}" if whole else error.found
    at = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
    return f"{told} (at {at})" if at else str(told)


def _check_point(
    family: Family,
    hyperparameters: FamilyHyperparameters,
    image_shape: tuple[int, ...],
    n_classes: int,
    precision: str,
    standardisation: Standardisation | None,
) -> CheckedPoint:
    import keras

    where = f"{family.path}: build"
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    if standardisation is None:
        images = rng.integers(0, 256, (_N_IMAGES, *image_shape), dtype=np.uint8)
    else:
        drawn = standardisation.mean + standardisation.deviation * rng.normal(size=(_N_IMAGES, *image_shape))
        images = drawn.astype(np.float32)
    labels = rng.integers(0, n_classes, _N_IMAGES)
    model = family.build(hyperparameters, image_shape, n_classes, precision=precision, standardisation=standardisation)
    if lambdas := [layer.name for layer in layers_and_networks(model) if isinstance(layer, keras.layers.Lambda)]:
        raise FamilyError(
            "a family's network has a Lambda layer",
            where=where,
            found=", ".join(lambdas),
            hint="Lambda layers hold code, which Keras does not load from a file in safe mode: use layers of Keras, or "
            "a class of your own that keras.saving.register_keras_serializable registers",
        )
    answers = _answers(model, images)
    _check_probabilities(answers, where)
    alone = np.concatenate([_answers(model, images[place : place + 1]) for place in range(_N_IMAGES)])
    if (off := float(np.abs(alone - answers).max())) > _TOLERANCE:
        raise FamilyError(
            "a family's network answers otherwise for an image alone than among others",
            where=where,
            found=f"probabilities that differ by {off:.2g}",
            expected="answers that depend on the image only, and are not random",
        )
    _check_training(family, replace(hyperparameters, batch_size=_N_IMAGES), model, images, labels, standardisation)
    trained = _answers(model, images)
    with tempfile.TemporaryDirectory() as folder:
        _check_files(family, model, images, trained, Path(folder))
    return CheckedPoint(dict(hyperparameters.network), model.count_params())


def _answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images, training=False), dtype=np.float32)


def _check_probabilities(answers: np.ndarray, where: str) -> None:
    sums = answers.sum(axis=1)
    if not np.isfinite(answers).all() or answers.min() < 0 or np.abs(sums - 1).max() > _TOLERANCE:
        raise FamilyError(
            "a family's network does not answer probabilities",
            where=where,
            found=f"values from {answers.min():.3g} to {answers.max():.3g} that sum to {_span(sums)}",
            expected="values from 0 to 1 that sum to 1 for each image",
            hint=_SCALE if not np.isfinite(answers).all() else 'give the last layer activation="softmax"',
        )


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


def _check_training(
    family: Family,
    hyperparameters: FamilyHyperparameters,
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    standardisation: Standardisation | None,
) -> None:
    where = f"{family.path}: build"
    if not model.trainable_variables:
        raise FamilyError("a family's network has nothing to train", where=where, found="no weight that is trainable")
    try:
        augmentation = augmentation_of(images.shape[1:], standardisation, family.augmentation)
        phases = family.phases(hyperparameters, model)
        trainer = Trainer(
            model, hyperparameters, 1, phases=phases, augmentation=augmentation, image_dtype=str(images.dtype)
        )
        epochs = itertools.accumulate(phase.epochs or 0 for phase in phases[:-1])
        for epoch in (1, *(last + 1 for last in epochs)):
            trainer.begin_epoch(epoch)
            result = trainer.train_epoch(images, labels, (0, 0, epoch))
    except (ValueError, TypeError) as error:
        raise FamilyError(
            "a family's network cannot be trained", where=where, found=str(error).strip().splitlines()[0][:400]
        ) from error
    if not math.isfinite(result.loss):
        raise FamilyError(
            "a family's network cannot be trained",
            where=where,
            found=f"a loss of {result.loss} at its first step",
            hint=_SCALE,
        )


def _check_files(family: Family, model: keras.Model, images: np.ndarray, answers: np.ndarray, folder: Path) -> None:
    """Save and load, then export and load, and compare the answers."""
    where = f"{family.path}: build"
    try:
        save_model(uncompiled(model), folder / "network.keras")
        again = load_model(folder / "network.keras")
    except (ArtefactError, NotImplementedError, TypeError, ValueError) as error:
        found = error.found if isinstance(error, ArtefactError) else str(error).strip().splitlines()[0]
        own = {
            type(each).__name__
            for each in layers_and_networks(model)
            if type(each).__module__ == family.module.__name__
        }
        if own:
            found = f"{found} (layers of its own: {', '.join(sorted(own))})"
        raise FamilyError(
            "a family's network cannot be saved and loaded",
            where=where,
            found=found,
            hint="a layer of your own has to be registered (keras.saving.register_keras_serializable) and to have "
            "get_config",
        ) from None
    export_model(model, folder / "exported", str(images.dtype))
    loaded_answers = load_exported(folder / "exported").predict(images, len(images))
    off = max(float(np.abs(each - answers).max()) for each in (_answers(again, images), loaded_answers))
    if off > _TOLERANCE:
        raise FamilyError(
            "a family's network answers otherwise once it is saved and loaded",
            where=where,
            found=f"probabilities that differ by {off:.2g}",
            hint="a layer of your own has to save everything that it computes with: as weights, or in get_config",
        )
