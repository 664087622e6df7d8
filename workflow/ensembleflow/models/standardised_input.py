"""What float samples pass through before a network: its own constants, so that exported functions take raw values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ensembleflow.datasets.standardisation import Standardisation

if TYPE_CHECKING:
    import keras

__all__ = ["standardised", "with_standardised_input"]


def standardised(samples: Any, standardisation: Standardisation, mean: float = 0.0, deviation: float = 1.0) -> Any:
    """Keras's tensor of samples, brought to a mean and a standard deviation in each channel, in float32.

    The mean is taken off first: where it is many deviations away, one multiplication and addition would round the rest
    off.
    """
    from keras import layers

    off = (-standardisation.mean).tolist()
    scale = (deviation / standardisation.deviation).tolist()
    centred = layers.Rescaling(1.0, offset=off, dtype="float32", name="float_centre")(samples)
    return layers.Rescaling(scale, offset=mean, dtype="float32", name="float_scale")(centred)


def with_standardised_input(
    model: keras.Model, standardisation: Standardisation, mean: float, deviation: float
) -> keras.Model:
    """The same layers, not nested in another network, behind an input that is standardised."""
    import keras

    samples = keras.Input(model.input_shape[1:], dtype="float32", name="images")
    # Called by `call`, each layer is called by itself, and stands in the new network as it stood in the former.
    outputs = model.call(standardised(samples, standardisation, mean, deviation))
    return keras.Model(samples, outputs)
