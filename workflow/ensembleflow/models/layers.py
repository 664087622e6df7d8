"""The layers of a network, those of networks within it too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

__all__ = ["all_layers", "layers_and_networks", "layers_by_names"]


def all_layers(model: keras.Model) -> Iterator[Any]:
    """Each layer of a network in its order, and instead of a network within it that one's layers."""
    return (layer for layer, _ in layers_by_names(model))


def layers_and_networks(model: keras.Model) -> Iterator[Any]:
    """Each layer of a network in its order, the networks within it among them, each before its own layers."""
    return (layer for layer, _ in _walk(model, frozenset()))


def layers_by_names(model: keras.Model) -> Iterator[tuple[Any, frozenset[str]]]:
    """Each of `all_layers` with its name and those of the networks that it is within, but for the whole."""
    return ((layer, names) for layer, names in _walk(model, frozenset()) if not hasattr(layer, "layers"))


def _walk(model: keras.Model, around: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    for layer in model.layers:
        names = around | {layer.name}
        yield layer, names
        if hasattr(layer, "layers"):
            yield from _walk(layer, names)
