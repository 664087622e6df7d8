"""What a served ensemble is called, takes and gives: the names of its tensors, wherever it is served."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = [
    "CONFIDENCE",
    "DATATYPES",
    "DISAGREEMENT",
    "INPUT",
    "MEMBER_PROBABILITIES",
    "OUTPUTS",
    "OUTPUT_DATATYPES",
    "PROBABILITIES",
    "STAGE",
    "InputName",
    "OutputName",
    "Signature",
    "most_images",
]

InputName = Literal["images"]
OutputName = Literal["probabilities", "member_probabilities", "disagreement", "confidence", "stage"]
(INPUT,) = get_args(InputName)
OUTPUTS = PROBABILITIES, MEMBER_PROBABILITIES, DISAGREEMENT, CONFIDENCE, STAGE = get_args(OutputName)

OUTPUT_DATATYPES = {name: "INT32" if name == STAGE else "FP32" for name in OUTPUTS}
"""What each output comes as."""

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
"""What the protocol calls the types of images."""

_BYTES = {"uint8": 1, "float32": 4}
_MAX_IMAGES, _MAX_IMAGES_BYTES = 1024, 32 * 2**20


@dataclass(frozen=True)
class Signature:
    """What a model is called and takes.

    Attributes:
        model_name: its name in the protocol.
        model_version: its version in the protocol.
        image_shape: (height, width, channels), or of other samples their shape.
        max_images: the most images of one request.
        image_dtype: `uint8` or `float32`.
    """

    model_name: str
    model_version: str
    image_shape: tuple[int, ...]
    max_images: int
    image_dtype: str = "uint8"

    @property
    def datatype(self) -> str:
        """What the protocol calls the images' type."""
        return DATATYPES[self.image_dtype]

    @property
    def layout(self) -> str:
        """What Triton calls the images' axes."""
        return "FORMAT_NHWC" if len(self.image_shape) == 3 else "FORMAT_NONE"


def most_images(image_shape: tuple[int, ...], image_dtype: str = "uint8") -> int:
    """The most images of one request, unless somebody says otherwise: 1,024, or what 32 MB hold."""
    n_bytes = math.prod(image_shape) * _BYTES[image_dtype]
    return max(1, min(_MAX_IMAGES, _MAX_IMAGES_BYTES // n_bytes))
