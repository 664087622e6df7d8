"""Reading and checking the config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ensembleflow import arguments
from ensembleflow.config.faults import refused
from ensembleflow.config.models import Config
from ensembleflow.errors import ConfigError

__all__ = ["canonical_json", "load_config", "parse_config"]


def canonical_json(block: BaseModel | Mapping[str, Any], **extra: Any) -> str:
    """One text for one meaning: defaults written out, keys sorted, whole numbers without a fraction.

    Two blocks that mean the same give the same text, and swapping two values gives another one. Rules
    carry this text as their only parameter, so that Snakemake's rerun triggers see exactly the edits
    that matter.
    """
    values = block.model_dump(mode="json") if isinstance(block, BaseModel) else dict(block)
    return json.dumps(_whole({**values, **extra}), sort_keys=True, separators=(",", ":"), allow_nan=False)


def load_config(paths: Sequence[str | Path]) -> Config:
    """Read YAML files, later ones overriding earlier ones key by key.

    Raises:
        ConfigError: a file is missing or no YAML, sets a key twice, or the merged config is refused.
    """
    merged: dict[str, Any] = {}
    paths = arguments.paths("paths", paths)
    for path in paths:
        merged = _merge(merged, _read_yaml(path))
    return parse_config(merged, paths)


def parse_config(values: Mapping[str, Any], paths: Sequence[str | Path] = ()) -> Config:
    """Check merged config values; `paths` are the files to look up where a bad key stands.

    Raises:
        ConfigError: an unknown key, a key set twice in one file, a value of the wrong type or range, or an
            impossible combination. All faults are named in one message, with file and line.
    """
    for path in paths:
        _refuse_repeated_keys(Path(path))
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


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "the config file does not exist",
            where=path,
            found="no such file",
            expected="a YAML file",
            hint=f"its path is relative to {Path.cwd()}",
        ) from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(
            "the config file is no YAML",
            where=f"{path}{line}",
            found=error.problem,
            expected="`key: value` lines, indented by spaces",
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError("the config file cannot be read", where=path, found=error, expected="a text file") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            "the config file is not a mapping",
            where=path,
            found=f"a {type(values).__name__}",
            expected="`key: value` lines",
        )
    return values


def _refuse_repeated_keys(path: Path) -> None:
    """YAML readers keep the last of two equal keys without a word, which hides a slip of the hand."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen:  # an alias, maybe of its own parent
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                name = str(key.value)
                if name in lines:
                    raise ConfigError(
                        "the config file sets a key twice",
                        where=f"{path}:{line}: {name}",
                        found=f"the same key on line {lines[name]}",
                        expected="each key once",
                        hint="remove one of the two lines",
                    )
                lines[name] = line
                nodes.append(value)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
