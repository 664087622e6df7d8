"""The layers of a network, those of networks within it too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

__all__ = ["all_layers"]


def all_layers(model: keras.Model) -> Iterator[Any]:
    """Each layer of a network in its order, and instead of a network within it that one's layers."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from all_layers(layer)
        else:
            yield layer
