"""What a residual network is made of, from its hyperparameters alone: known before anything is built or trained."""

from __future__ import annotations

from dataclasses import dataclass

from ensembleflow.models.hyperparameters import Hyperparameters
from ensembleflow.models.resnet import GROUP_WIDTH, LARGE_IMAGE_PIXELS

__all__ = ["NetworkSize", "network_size"]


@dataclass
class NetworkSize:
    """What one network is made of.

    Attributes:
        parameters: its weights, trained or not, as Keras counts them.
        kernels: those of convolutions and of the last layer, which L2 and weight decay act on.
        multiply_adds: multiplications with an addition each that these take for one image; normalisation,
            activations and sums of branches, some hundredths of it, are not counted.
    """

    parameters: int = 0
    kernels: int = 0
    multiply_adds: int = 0

    def _convolution(self, side: tuple[int, int], kernel: int, inputs: int, filters: int, groups: int = 1) -> None:
        """A convolution without bias, at each of side[0] x side[1] places."""
        weights = kernel * kernel * (inputs // groups) * filters
        self.parameters += weights
        self.kernels += weights
        self.multiply_adds += weights * side[0] * side[1]

    def _normalisation(self, channels: int) -> None:
        """Scale, shift, mean and variance of each channel."""
        self.parameters += 4 * channels


def network_size(hyperparameters: Hyperparameters, image_shape: tuple[int, ...], n_classes: int) -> NetworkSize:
    """Count the network that `build_resnet` would build, block by block as the papers draw them.

    Args:
        hyperparameters: the architecture's part of them is read.
        image_shape: (height, width, channels) in pixels.
        n_classes: number of classes.

    Source: He et al. 2016 (v1, v2) and Xie et al. 2017 (next), as in the paper's appendix A.2.
    """
    hp, size = hyperparameters, NetworkSize()
    height, width, channels = image_shape
    large = max(height, width) > LARGE_IMAGE_PIXELS
    side = _halved((height, width)) if large else (height, width)
    size._convolution(side, 7 if large else 3, channels, hp.stem_filters)
    inputs = hp.stem_filters
    if hp.block != "v2":
        size._normalisation(inputs)
    for stage in range(4):
        filters = hp.stage_filters * 2**stage
        for block in range(hp.stage_blocks[stage]):
            strided = stage > 0 and block == 0
            side_before, side = side, _halved(side) if strided else side
            if strided or inputs != filters:
                size._convolution(side, 1, inputs, filters)  # the shortcut's projection
            if hp.block == "v1":
                for channels_in in (inputs, filters):
                    size._convolution(side, 3, channels_in, filters)
                    size._normalisation(filters)
            elif hp.block == "v2":
                for channels_in in (inputs, filters):
                    size._normalisation(channels_in)
                    size._convolution(side, 3, channels_in, filters)
            else:
                groups = max(1, round(hp.stage_filters / GROUP_WIDTH))
                inner = groups * GROUP_WIDTH * 2**stage
                size._convolution(side_before, 1, inputs, inner)
                size._convolution(side, 3, inner, inner, groups)
                size._convolution(side, 1, inner, filters)
                for channels_out in (inner, inner, filters):
                    size._normalisation(channels_out)
            inputs = filters
    if hp.block == "v2":
        size._normalisation(inputs)
    size.parameters += inputs * n_classes + n_classes
    size.kernels += inputs * n_classes
    size.multiply_adds += inputs * n_classes
    return size


def _halved(side: tuple[int, int]) -> tuple[int, int]:
    """After a stride of 2 with padding `same`."""
    return -(-side[0] // 2), -(-side[1] // 2)
