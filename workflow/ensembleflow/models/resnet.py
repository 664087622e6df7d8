"""The residual networks of the paper's appendix A.2, in the `keras` API alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ensembleflow.datasets.standardisation import Standardisation
from ensembleflow.models.hyperparameters import Hyperparameters
from ensembleflow.models.precision import dtype_policy
from ensembleflow.models.standardised_input import standardised

if TYPE_CHECKING:
    import keras

__all__ = ["GROUP_WIDTH", "LARGE_IMAGE_PIXELS", "build_resnet"]

# Images with a longer side get the 7x7 stride-2 stem; the paper names 224 and 32 pixels.
LARGE_IMAGE_PIXELS = 64

# ResNeXt's first stage is 4 channels a group (Xie et al. 2017, Table 1); later stages double it.
GROUP_WIDTH = 4


def build_resnet(
    hyperparameters: Hyperparameters,
    image_shape: tuple[int, ...],
    n_classes: int,
    name: str = "resnet",
    precision: str = "float32",
    standardisation: Standardisation | None = None,
) -> keras.Model:
    """A residual network from images to class probabilities.

    Args:
        hyperparameters: the architecture's part of them is read.
        image_shape: (height, width, channels) in pixels.
        n_classes: number of classes.
        name: the model's name.
        precision: Keras's dtype policy of all layers but the last: `float32`, `mixed_float16`, `mixed_bfloat16`.
        standardisation: of float images, what they are standardised by; None for uint8.

    Returns:
        An uncompiled model: images of shape (batch, height, width, channels), uint8 from 0 to 255, or float32 of any
        values, to float32 probabilities of shape (batch, classes).
    """
    with dtype_policy(precision):
        return _build(hyperparameters, image_shape, n_classes, name, standardisation)


def _build(
    hyperparameters: Hyperparameters,
    image_shape: tuple[int, ...],
    n_classes: int,
    name: str,
    standardisation: Standardisation | None,
) -> keras.Model:
    import keras

    layers = keras.layers
    network = _Network(hyperparameters)
    if standardisation is None:
        images = keras.Input(shape=image_shape, dtype="uint8", name="images")
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(images)
    else:
        images = keras.Input(shape=image_shape, dtype="float32", name="images")
        x = standardised(images, standardisation)
    large = max(image_shape[:2]) > LARGE_IMAGE_PIXELS
    x = network.convolution(x, hyperparameters.stem_filters, kernel=7 if large else 3, stride=2 if large else 1)
    if hyperparameters.block != "v2":
        x = network.normalised_activation(x)
    residual = {"v1": network.block_v1, "v2": network.block_v2, "next": network.block_next}[hyperparameters.block]
    for stage, n_blocks in enumerate(hyperparameters.stage_blocks):
        for block in range(n_blocks):
            x = residual(x, stage, stride=2 if stage > 0 and block == 0 else 1)
    if hyperparameters.block == "v2":
        x = network.normalised_activation(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    probabilities = layers.Dense(
        n_classes, activation="softmax", kernel_regularizer=network.regularizer(), dtype="float32", name="probabilities"
    )(x)
    return keras.Model(images, probabilities, name=name)


class _Network:
    """Layers that share one set of hyperparameters."""

    def __init__(self, hyperparameters: Hyperparameters) -> None:
        self.hp = hyperparameters

    def regularizer(self) -> Any:
        import keras

        return keras.regularizers.L2(self.hp.l2) if self.hp.l2 > 0 else None

    def convolution(self, x: Any, filters: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Any:
        from keras.layers import Conv2D

        from ensembleflow.models.kernels import GroupedConv2D

        layer = Conv2D if groups == 1 else GroupedConv2D
        return layer(
            filters,
            kernel,
            strides=stride,
            padding="same",
            groups=groups,
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=self.regularizer(),
        )(x)

    def normalise(self, x: Any) -> Any:
        from ensembleflow.models.kernels import FusedBatchNormalization

        # Trials of a few hundred steps need the moving averages to settle: 0.99 would still hold the start.
        return FusedBatchNormalization(momentum=0.9)(x)

    def activation(self, x: Any) -> Any:
        import keras

        return keras.layers.Activation(self.hp.activation)(x)

    def normalised_activation(self, x: Any) -> Any:
        return self.activation(self.normalise(x))

    def shortcut(self, x: Any, filters: int, stride: int) -> Any:
        """The identity where shapes allow it, else a 1x1 projection (He et al. 2016, option B)."""
        if stride == 1 and x.shape[-1] == filters:
            return x
        return self.convolution(x, filters, kernel=1, stride=stride)

    def filters(self, stage: int) -> int:
        return int(self.hp.stage_filters * 2**stage)

    def block_v1(self, x: Any, stage: int, stride: int) -> Any:
        """Convolution, normalisation, activation; activation after the sum (He et al. 2016a)."""
        import keras

        filters = self.filters(stage)
        shortcut = self.shortcut(x, filters, stride)
        y = self.normalised_activation(self.convolution(x, filters, stride=stride))
        y = self.normalise(self.convolution(y, filters))
        return self.activation(keras.layers.Add()([y, shortcut]))

    def block_v2(self, x: Any, stage: int, stride: int) -> Any:
        """Pre-activation: normalisation and activation before each convolution (He et al. 2016b)."""
        import keras

        filters = self.filters(stage)
        y = self.normalised_activation(x)
        needs_projection = stride != 1 or x.shape[-1] != filters
        shortcut = self.shortcut(y if needs_projection else x, filters, stride)
        y = self.convolution(y, filters, stride=stride)
        y = self.convolution(self.normalised_activation(y), filters)
        return keras.layers.Add()([y, shortcut])

    def block_next(self, x: Any, stage: int, stride: int) -> Any:
        """Bottleneck with a grouped 3x3 convolution, constant cardinality (Xie et al. 2017)."""
        import keras

        filters = self.filters(stage)
        cardinality = max(1, round(self.hp.stage_filters / GROUP_WIDTH))
        width = cardinality * GROUP_WIDTH * 2**stage
        shortcut = self.shortcut(x, filters, stride)
        y = self.normalised_activation(self.convolution(x, width, kernel=1))
        y = self.normalised_activation(self.convolution(y, width, stride=stride, groups=cardinality))
        y = self.normalise(self.convolution(y, filters, kernel=1))
        return self.activation(keras.layers.Add()([y, shortcut]))
