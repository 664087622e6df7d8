"""The one exported function of a model.

It makes the validation metrics during the search, the cached predictions, the measured cost and the
served answers, so that all of them are the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import ArtefactError
from ensembleflow.models.engines.loaded import LoadedEngine

if TYPE_CHECKING:
    import keras

__all__ = ["ExportedModel", "export_model", "load_exported", "model_function", "prediction_batch_size"]

# 27 images of 224 x 224 x 3: their activations fit where a training batch's do.
_BATCH_VALUES = 2**22


def export_model(model: keras.Model, path: str | Path, image_dtype: str = "uint8") -> None:
    """Write a model's exported function as a TensorFlow SavedModel with the endpoint `serve`.

    The endpoint takes images (batch, height, width, channels), or samples of another shape, of the type `image_dtype`,
    `uint8` or `float32`, and returns float32 probabilities (batch, classes).
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]  # tracked, so that they are saved
    module.serve = _traced(model, image_dtype)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


def model_function(model: keras.Model, image_dtype: str = "uint8") -> ExportedModel:
    """The function that `export_model` writes, in memory."""
    return ExportedModel(_traced(model, image_dtype), sum(int(w.nbytes) for w in model.get_weights()))


def _traced(model: keras.Model, image_dtype: str) -> Any:
    import tensorflow as tf

    # Not model.predict: on GPUs that chooses XLA by itself and answers differently.
    return tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), image_dtype, name="images")],
        autograph=False,
        jit_compile=False,
    )


class ExportedModel(LoadedEngine):
    """An exported function, loaded.

    Attributes:
        parameter_bytes: size of the weights in bytes.
    """

    def __init__(self, function: Callable[[Any], Any], parameter_bytes: int, owner: Any = None) -> None:
        self._function = function
        self._owner = owner  # keeps the SavedModel's variables alive
        self.parameter_bytes = parameter_bytes

    def answer(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Class probabilities of one batch."""
        return np.asarray(self._function(images))


def load_exported(path: str | Path) -> ExportedModel:
    """Load an exported function.

    Raises:
        ArtefactError: the folder is missing or holds no such function.
    """
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
        function = loaded.serve
    except (OSError, ValueError, AttributeError) as error:
        raise ArtefactError(
            "an exported model cannot be read", where=path, found=str(error).splitlines()[0], expected="a SavedModel"
        ) from error
    parameter_bytes = sum(variable.shape.num_elements() * variable.dtype.size for variable in loaded.weights)
    return ExportedModel(function, int(parameter_bytes), loaded)


def prediction_batch_size(image_shape: tuple[int, ...]) -> int:
    """Images a call for predictions whose speed is not measured: 256, fewer where images are large."""
    return max(1, min(256, _BATCH_VALUES // math.prod(image_shape)))
