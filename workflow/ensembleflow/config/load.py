"""Reading and checking the config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ensembleflow.config.models import Config
from ensembleflow.errors import ConfigError

__all__ = ["canonical_json", "load_config", "parse_config"]


def canonical_json(block: BaseModel | Mapping[str, Any], **extra: Any) -> str:
    """One text for one meaning: defaults written out, keys sorted, numbers normalised by their type.

    Two blocks that mean the same give the same text, and swapping two values gives another one. Rules
    carry this text as their only parameter, so that Snakemake's rerun triggers see exactly the edits
    that matter.
    """
    values = block.model_dump(mode="json") if isinstance(block, BaseModel) else dict(block)
    return json.dumps({**values, **extra}, sort_keys=True, separators=(",", ":"))


def load_config(paths: Sequence[str | Path]) -> Config:
    """Read YAML files, later ones overriding earlier ones key by key.

    Raises:
        ConfigError: a file is missing or no YAML, or the merged config is refused.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merge(merged, _read_yaml(Path(path)))
    return parse_config(merged, paths)


def parse_config(values: Mapping[str, Any], paths: Sequence[str | Path] = ()) -> Config:
    """Check merged config values; `paths` are the files to look up where a bad key stands.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or range, or an impossible combination.
            All faults are named in one message.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = [_fault(item, paths) for item in error.errors(include_url=False)]
    raise ConfigError(
        "the config is refused" if len(faults) == 1 else f"the config is refused for {len(faults)} reasons",
        where="\n            ".join(faults),
        hint="every key is described in config/README.md",
    )


def _fault(item: Any, paths: Sequence[str | Path]) -> str:
    loc = tuple(part for part in item["loc"] if isinstance(part, int) or not part.startswith("function-"))
    key = ".".join(map(str, loc)) or "(top level)"
    if item["type"] == "extra_forbidden":
        found, expected = "an unknown key", f"one of: {', '.join(_known_keys(loc[:-1]))}"
    else:
        is_block = isinstance(item["input"], Mapping) or isinstance(item["input"], BaseModel)
        found = "this combination" if is_block else f"{item['input']!r}"
        expected = item["msg"].removeprefix("Value error, ").replace("Input should be", "a value that is")
    return f"{_locate(loc, paths)}: {key}: found {found}; expected {expected}"


def _known_keys(loc: tuple[str | int, ...]) -> list[str]:
    node: Any = Config
    for part in loc:
        if isinstance(part, int):
            continue
        annotation: Any = node.model_fields[part].annotation
        arguments = getattr(annotation, "__args__", ())
        node = next((a for a in (annotation, *arguments) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if node is None:
            return []
    return sorted(node.model_fields)


def _locate(loc: tuple[str | int, ...], paths: Sequence[str | Path]) -> str:
    """`file:line` of the last file that sets the key, or of its nearest block that a file sets."""
    for depth in range(len(loc), 0, -1):
        for path in reversed(list(paths)):
            line = _line_of(Path(path), loc[:depth])
            if line is not None:
                return f"{path}:{line}"
    return str(paths[-1]) if paths else "config"


def _line_of(path: Path, loc: tuple[str | int, ...]) -> int | None:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return None
    line = None
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                return None
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return None
    return line


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("the config file does not exist", where=path) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError("the config file cannot be read", where=path, found=error) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError("the config file is not a mapping", where=path, found=type(values).__name__, expected="keys and values")
    return values


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
