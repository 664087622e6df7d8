"""Reading and checking the config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ensembleflow import arguments
from ensembleflow.config.faults import refused
from ensembleflow.config.files import read_values, refuse_repeated_keys
from ensembleflow.config.models import Config

__all__ = ["canonical_json", "load_config", "parse_config"]


def canonical_json(block: BaseModel | Mapping[str, Any], **extra: Any) -> str:
    """One text for one meaning: defaults written out, keys sorted, whole numbers without a fraction.

    Two blocks that mean the same give the same text, and swapping two values gives another one. Rules
    carry this text as their only parameter, so that Snakemake's rerun triggers see exactly the edits
    that matter.
    """
    values = block.model_dump(mode="json") if isinstance(block, BaseModel) else dict(block)
    return json.dumps(_whole({**values, **extra}), sort_keys=True, separators=(",", ":"), allow_nan=False)


def load_config(paths: Sequence[str | Path], command_line: Sequence[str] = ()) -> Config:
    """Read YAML files, later ones overriding earlier ones key by key, and `--config` (texts `key=value`) over them.

    Raises:
        ConfigError: a file is missing or no YAML, sets a key twice, or the merged config is refused.
    """
    paths = arguments.paths("paths", paths)
    return parse_config(read_values(paths, command_line), paths)


def parse_config(values: Mapping[str, Any], paths: Sequence[str | Path] = ()) -> Config:
    """Check merged config values; `paths` are the files to look up where a bad key stands.

    Raises:
        ConfigError: an unknown key, a key set twice in one file, a value of the wrong type or range, or an
            impossible combination. All faults are named in one message, with file and line.
    """
    for path in paths:
        refuse_repeated_keys(path)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise refused(error, paths) from None


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value
