"""A training's state in one file: weights, their average, and the optimizer's variables, as plain arrays.

A `.keras` file would hold the same, but making one takes as long as a small network's epoch.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensembleflow.errors import ArtefactError
from ensembleflow.io import atomic_path

if TYPE_CHECKING:
    import keras

    from ensembleflow.models.training import Trainer

__all__ = ["restore_checkpoint", "save_checkpoint"]

_AVERAGE = "average"


def save_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Write a training's variables to an `.npz` file.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    arrays = {f"{place:04d}": variable.numpy() for place, variable in enumerate(_variables(trainer.model))}
    if trainer.average is not None:
        arrays[_AVERAGE] = trainer.average.values()
    with atomic_path(path) as aside, open(aside, "wb") as file:
        np.savez(file, **arrays)


def restore_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Set a training's variables to those of a file.

    Args:
        trainer: made by the same code from the same hyperparameters as the saved one.
        path: what `save_checkpoint` wrote.

    Raises:
        ArtefactError: the file is missing, damaged, of another network, or its average is missing or not finite.
    """
    variables = _variables(trainer.model)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = [arrays[name] for name in sorted(arrays.files) if name != _AVERAGE]
            average = arrays[_AVERAGE] if _AVERAGE in arrays.files else None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ArtefactError("a checkpoint cannot be read", where=path, found=str(error).partition("\n")[0]) from error
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise ArtefactError(
            "a checkpoint is of another network",
            where=path,
            found=f"{len(values)} arrays",
            expected=f"the {len(variables)} variables of the network and its optimizer",
        )
    if trainer.average is not None:
        if average is None:
            raise ArtefactError(
                "a checkpoint has no average of the weights",
                where=path,
                found="weights and optimizer alone",
                expected="an array `average`",
            )
        try:
            trainer.average.restore(average)
        except ValueError as error:
            raise ArtefactError(
                "the average of the weights in a checkpoint is damaged",
                where=path,
                found=str(error),
                expected="a finite value for each weight",
            ) from None
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _variables(model: keras.Model) -> list[keras.Variable]:
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", None)  # of a LossScaleOptimizer, whose own list leaves it out
    own = [*optimizer.variables, *(inner.variables if inner is not None else [])]
    return [*model.variables, *{id(variable): variable for variable in own}.values()]
