"""The config's keys as a list: what each is called, what it takes, what it means."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import MinLen
from pydantic.fields import FieldInfo

from ensembleflow.config.base import Block
from ensembleflow.config.budget import Budget
from ensembleflow.config.models import Config
from ensembleflow.config.ranges import Range
from ensembleflow.config.times import MINUTES_IN_WORDS, minutes_of

__all__ = ["Key", "all_keys", "find_key"]

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Key:
    """One key of the config.

    Attributes:
        path: the names from the top level to this key.
        field: pydantic's description of it.
        block: the block that it holds, or holds a list of; None for a plain value.
        is_list: whether it holds a list of blocks.
    """

    path: tuple[str, ...]
    field: FieldInfo
    block: type[Block] | None
    is_list: bool

    @property
    def name(self) -> str:
        """The key as text, `search.space.l2` or `allocation.devices.name`."""
        return ".".join(self.path)

    @property
    def description(self) -> str:
        """What the key means."""
        return self.field.description or ""

    @property
    def takes(self) -> str:
        """The values that it takes, in words."""
        if self.block is not None:
            return "a list of blocks" if self.is_list else "a block of keys and values"
        words = _in_words(self.field.annotation, self.field.metadata)
        # Where null stands for what other keys imply, the field itself always holds a number.
        return f"{words} or null" if self.field.default is None and not words.endswith("null") else words


def all_keys(block: type[Block] = Config, path: tuple[str, ...] = ()) -> Iterator[Key]:
    """All keys in the order of their definition, each block before its own keys."""
    for name, field in block.model_fields.items():
        inner, is_list = _block_of(field.annotation)
        yield Key((*path, name), field, inner, is_list)
        if inner is not None:
            yield from all_keys(inner, (*path, name))


def find_key(path: tuple[str, ...]) -> Key | None:
    """The key of that path, or None."""
    return next((key for key in all_keys() if key.path == path), None)


def _block_of(annotation: Any) -> tuple[type[Block] | None, bool]:
    is_list = get_origin(annotation) is list
    inner = get_args(annotation)[0] if is_list else annotation
    return (inner, is_list) if isinstance(inner, type) and issubclass(inner, Block) else (None, False)


def _in_words(annotation: Any, constraints: Sequence[Any] = (), *, many: bool = False) -> str:
    if annotation == Budget:
        return "seconds (`320`) or multiples (`4x`)" if many else "seconds (`320`) or a multiple (`4x`)"
    if isinstance(annotation, type) and issubclass(annotation, Range):
        return annotation.takes()
    origin, arguments = get_origin(annotation), get_args(annotation)
    bounds = " and ".join(filter(None, map(_bound, constraints)))
    if any(getattr(each, "func", None) is minutes_of for each in constraints):
        return f"{MINUTES_IN_WORDS} {bounds}"
    if origin is Annotated:
        return _in_words(arguments[0], arguments[1:], many=many)
    if origin is Literal:
        return f"{'' if many else 'one of '}{', '.join(f'`{choice}`' for choice in arguments)}"
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(each, () if each is type(None) else constraints) for each in arguments)
    if origin is list:
        filled = "a non-empty list" if any(isinstance(each, MinLen) for each in constraints) else "a list"
        return f"{filled} of {_in_words(arguments[0], many=True)}"
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(_in_words(each) for each in arguments)}"
    if origin is dict:
        return f"a mapping from {_in_words(arguments[0], many=True)} to {_in_words(arguments[1], many=True)}"
    one, more = {
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        bool: ("`true` or `false`", "`true` or `false`"),
        str: ("text", "texts"),
        type(None): ("null", "nulls"),
        Any: ("a range or choices", "ranges or choices"),
    }[annotation]
    return f"{more if many else one} {bounds}".rstrip()


def _bound(constraint: Any) -> str:
    if isinstance(constraint, FieldInfo):
        return " and ".join(filter(None, map(_bound, constraint.metadata)))
    if getattr(constraint, "pattern", None):
        return f"matching `{constraint.pattern}`"
    return " and ".join(f"{sign} {getattr(constraint, n):g}" for n, sign in _BOUNDS.items() if hasattr(constraint, n))
