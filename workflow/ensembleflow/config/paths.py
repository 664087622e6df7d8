"""Paths as people write them: with `~`, with variables, with a slash at the end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

__all__ = ["PathText", "ResultsFolder", "expanded", "expansions"]

_VARIABLE = re.compile(r"\$(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[^{}]*)\})")


def expanded(text: str) -> str:
    """A path with a leading `~` or `~user` and with `$VARIABLE` and `${VARIABLE}` replaced, without needless slashes.

    Raises:
        ValueError: a variable is not set or empty, a home is not known, or the text has a line break or the like.
    """

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match["name"] or match["braced"] or "", "")
        if not value:
            raise ValueError(f"must be a path whose variables are set: {match[0]} is not, or is empty")
        return value

    path = os.path.expanduser(_VARIABLE.sub(value_of, text))  # noqa: PTH111 - which fails where no home is known
    if path.startswith("~") and text.startswith("~"):
        raise ValueError(f"must be a path whose home is known: {path.partition('/')[0]} is not")
    if any(ord(each) < ord(" ") for each in path):
        raise ValueError("must be a path without line breaks, tabs and other control characters")
    # Snakemake warns of each `//` and `./` in each file's name.
    return str(PurePath(re.sub("^//+", "/", path)))


def _results_folder(path: str) -> str:
    if "{" in path or "}" in path:
        raise ValueError("must be a path without braces: Snakemake takes them for wildcards")
    return str(Path.cwd()) if path == "." else path


PathText = Annotated[str, Field(min_length=1), AfterValidator(expanded)]
"""A path of the config."""

ResultsFolder = Annotated[PathText, AfterValidator(_results_folder)]
"""A path that Snakemake makes its outputs' names of."""


def expansions(values: Mapping[str, Any], config: BaseModel | Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """One line for each path that the config means otherwise than it is written: `results_dir: ~/out is /home/ann/out`.

    Args:
        values: as they are written.
        config: as they are meant.
        prefix: the block's name and a dot.
    """
    meant = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    for key, value in values.items():
        result = meant.get(key)
        if isinstance(value, Mapping) and isinstance(result, Mapping):
            yield from expansions(value, result, f"{prefix}{key}.")
        elif isinstance(value, str) and isinstance(result, str) and result != value and ("~" in value or "$" in value):
            yield f"{prefix}{key}: {value} is {result}"
