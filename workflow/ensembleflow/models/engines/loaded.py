"""What all engines have in common: a model that answers batches of images with class probabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LoadedEngine"]


class LoadedEngine(ABC):
    """A model, loaded by an engine, that predicts in float32."""

    def predict(
        self, images: npt.NDArray[Any], batch_size: int, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Class probabilities of shape (images, classes), float32.

        Args:
            images: at least one image (unless there is `out`), (images, ...), of the type that it was exported for.
            batch_size: images per call of the engine; the last call has what is left.
            out: where to write them, which saves a copy; float32 (images, classes).

        Returns:
            `out`, or a new array.

        Raises:
            ValueError: there is no image, or `out` has another shape.
        """
        for start in range(0, len(images), batch_size):
            answer = self.answer(images[start : start + batch_size])
            if out is None:
                out = np.empty((len(images), answer.shape[1]), np.float32)
            if out.shape != (len(images), answer.shape[1]):
                raise ValueError(f"probabilities of shape {(len(images), answer.shape[1])} do not fit into {out.shape}")
            out[start : start + batch_size] = answer
        if out is None:
            raise ValueError("there is no image to predict")
        return out

    @abstractmethod
    def answer(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Class probabilities of one batch, (images, classes); they may lie in memory that the next call overwrites."""
