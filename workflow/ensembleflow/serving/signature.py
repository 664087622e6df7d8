"""What a served ensemble is called, takes and gives: the names of its tensors, wherever it is served."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = [
    "DISAGREEMENT",
    "INPUT",
    "MEMBER_PROBABILITIES",
    "OUTPUTS",
    "PROBABILITIES",
    "InputName",
    "OutputName",
    "Signature",
    "most_images",
]

InputName = Literal["images"]
OutputName = Literal["probabilities", "member_probabilities", "disagreement"]
(INPUT,) = get_args(InputName)
OUTPUTS = PROBABILITIES, MEMBER_PROBABILITIES, DISAGREEMENT = get_args(OutputName)

_MAX_IMAGES, _MAX_IMAGES_BYTES = 1024, 32 * 2**20


@dataclass(frozen=True)
class Signature:
    """What a model is called and takes.

    Attributes:
        model_name: its name in the protocol.
        model_version: its version in the protocol.
        image_shape: (height, width, channels).
        max_images: the most images of one request.
    """

    model_name: str
    model_version: str
    image_shape: tuple[int, int, int]
    max_images: int


def most_images(image_shape: tuple[int, int, int]) -> int:
    """The most images of one request, unless somebody says otherwise: 1,024, or what 32 MB hold."""
    return max(1, min(_MAX_IMAGES, _MAX_IMAGES_BYTES // math.prod(image_shape)))
