"""Keras files: saved aside and renamed, loaded in safe mode, named by their weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensembleflow.errors import ArtefactError
from ensembleflow.io import atomic_path

if TYPE_CHECKING:
    import keras

__all__ = ["load_model", "save_model", "uncompiled", "weights_sha256"]


def save_model(model: keras.Model, path: str | Path) -> None:
    """Save as a `.keras` file; a compiled model keeps its optimizer's state.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as aside:
        model.save(aside)


def uncompiled(model: keras.Model) -> keras.Model:
    """A network of the same layers without the optimizer, whose state is twice the weights' size."""
    import keras

    return keras.Model(model.input, model.output, name=model.name)


def load_model(path: str | Path) -> keras.Model:
    """Load a `.keras` file in safe mode.

    Raises:
        ArtefactError: it is missing or cannot be read.
    """
    import keras

    import ensembleflow.models.kernels  # noqa: F401 - registers the layers

    try:
        return keras.saving.load_model(path, safe_mode=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError("a model's file cannot be read", where=path, found=str(error).splitlines()[0]) from error


def weights_sha256(model: keras.Model) -> str:
    """SHA-256 over the weights' types, shapes and values, in the model's order."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
