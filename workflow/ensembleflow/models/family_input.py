"""Which samples a family's networks take, as its file says: how many axes, and on what scale float values."""

from __future__ import annotations

import math
import types
from collections.abc import Collection
from pathlib import Path

from ensembleflow.errors import FamilyError

__all__ = ["RANKS_OF_IMAGES", "check_takes", "read_float_scale", "read_input_ranks"]

RANKS_OF_IMAGES = frozenset({3})
"""Axes of an image: height, width and channels."""

_MANUAL = "docs/own-networks.md has an example"


def read_input_ranks(module: types.ModuleType) -> frozenset[int]:
    """`INPUT_RANKS` of a family's file: how many axes a sample may have; those of images where it says nothing.

    Raises:
        FamilyError: it is something else than numbers of axes.
    """
    ranks = getattr(module, "INPUT_RANKS", RANKS_OF_IMAGES)
    if not isinstance(ranks, Collection) or not ranks or not all(type(each) is int and each > 0 for each in ranks):
        raise FamilyError(
            "a family says something else than what it takes",
            where=f"{module.__file__}: INPUT_RANKS",
            found=repr(ranks)[:200],
            expected="numbers of axes of a sample, such as {1} for (features,) and {2} for (steps, channels)",
            hint=_MANUAL,
        )
    return frozenset(ranks)


def read_float_scale(module: types.ModuleType) -> tuple[float, float]:
    """`FLOAT_SCALE` of a family's file: mean and standard deviation that float values are brought to, 0 and 1 without.

    Raises:
        FamilyError: it is something else than two such numbers.
    """
    scale = getattr(module, "FLOAT_SCALE", (0.0, 1.0))
    try:
        mean, deviation = map(float, scale)
        if not (math.isfinite(mean) and 0 < deviation < math.inf):
            raise ValueError
    except (TypeError, ValueError):
        raise FamilyError(
            "a family says something else than what it takes",
            where=f"{module.__file__}: FLOAT_SCALE",
            found=repr(scale)[:200],
            expected="(mean, standard deviation), such as (127.5, 63.75)",
            hint=_MANUAL,
        ) from None
    return mean, deviation


def check_takes(family: str, ranks: Collection[int], image_shape: tuple[int, ...], where: str | Path) -> None:
    """Refuse samples that a family's networks do not take.

    Args:
        family: its name.
        ranks: how many axes it takes.
        image_shape: the samples' shape.
        where: what says so, for the message.

    Raises:
        FamilyError: samples have another number of axes.
    """
    if len(image_shape) in ranks:
        return
    taken = " or ".join(map(str, sorted(ranks)))
    raise FamilyError(
        "a family does not take samples of this shape",
        where=where,
        found=f"samples of shape {image_shape}: {len(image_shape)} axes",
        expected=f"{taken}, which {family} takes" + (" (images)" if set(ranks) == RANKS_OF_IMAGES else ""),
        hint=f"choose a family of which the file says INPUT_RANKS = {{{len(image_shape)}}} (docs/own-networks.md)",
    )
