"""Numbers of any type as float32, in the same way for training and for prediction."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensembleflow.datasets.array_store import StoredArray
from ensembleflow.errors import DatasetError

__all__ = ["as_float32", "tell_float_values"]

_LOG = logging.getLogger(__name__)

# Whole numbers up to here are float32 numbers.
_LARGEST_EXACT = 2**24


def as_float32(values: NDArray[Any], where: str, first: int = 0) -> NDArray[np.float32]:
    """Samples of whole numbers or floats as float32, the nearest that there is.

    Args:
        values: (n, ...).
        where: what they were read from, for the message.
        first: the number of the first of them, for the message.

    Raises:
        DatasetError: a value is no number, or beyond what float32 holds; the first such sample is named.
    """
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32, copy=False)
    bad = ~np.isfinite(converted)
    if bad.any():
        place = int(np.flatnonzero(bad.reshape(len(values), -1).any(axis=1))[0])
        raise DatasetError(
            "images hold values that are no numbers",
            where=where,
            found=f"NaN, infinity or a number beyond those of float32, first in image {first + place}",
            expected="numbers from -3.4e38 to 3.4e38",
            hint="numpy.nan_to_num(images), or leave these images out",
        )
    return converted


def tell_float_values(images: StoredArray) -> None:
    """Read an array once through, block by block, and log how its values are kept.

    Raises:
        DatasetError: as `as_float32`.
    """
    where, lowest, highest = f"dataset.path: {images.where}", np.inf, -np.inf
    for number, block in enumerate(images.blocks()):
        as_float32(block, where, number * images.block_rows)
        lowest, highest = min(lowest, block.min()), max(highest, block.max())
    told = (where, images.dtype, f"{lowest:g}", f"{highest:g}")
    _LOG.info("%s: %s from %s to %s, kept as float32, which networks get standardised by channel", *told)
    if images.dtype.kind in "ui" and max(abs(int(lowest)), abs(int(highest))) > _LARGEST_EXACT:
        _LOG.warning("%s: %s up to %s are rounded to float32, which holds 7 digits", where, images.dtype, told[3])
