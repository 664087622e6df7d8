"""What pydantic refuses, told in the user's words: file and line, key, found, expected, hint."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ensembleflow.config.base import NOT_DECIMAL
from ensembleflow.config.files import compose_file
from ensembleflow.config.keys import Key, all_keys, find_key
from ensembleflow.config.renamed import RENAMED
from ensembleflow.config.storage_url import without_password, without_passwords
from ensembleflow.errors import ConfigError

__all__ = ["refused"]

_LONGEST_FOUND = 80
_MANUAL = "every key is described in config/README.md"
_Location = tuple[str | int, ...]


@dataclass(frozen=True)
class _Fault:
    where: str
    found: str
    expected: str
    hint: str


def refused(error: ValidationError, paths: Sequence[str | Path]) -> ConfigError:
    """One error that names all faults; `paths` are the files to look up where a bad key stands."""
    items = error.errors(include_url=False)
    faults = [_fault(item, paths) for item in items]
    renamed = all(_is_renamed(item) for item in items)
    if len(faults) == 1:
        return ConfigError("a config key has a new name" if renamed else "the config is refused", **vars(faults[0]))
    lines = [f"{each.where}: found {each.found}; expected {each.expected}; hint: {each.hint}" for each in faults]
    return ConfigError(
        "config keys have new names" if renamed else f"the config is refused for {len(lines)} reasons",
        where="\n            ".join(lines),
        hint=_MANUAL,
    )


def _fault(item: Any, paths: Sequence[str | Path]) -> _Fault:
    loc: _Location = item["loc"]
    names = tuple(part for part in loc if isinstance(part, str))
    if _is_renamed(item):
        return _renamed_key(loc, item["input"], paths)
    if item["type"] in ("extra_forbidden", "invalid_key"):
        parent = names[:-1] if item["type"] == "extra_forbidden" else names
        return _unknown_key(loc, parent, paths)
    key = find_key(names)
    if item["type"] == "value_error":
        text = str(item["ctx"]["error"])
        if key is None or key.block is not None:
            return _impossible_combination(loc, names, item["input"], text, paths)
        return _Fault(
            _where(loc, item["input"], paths), _as_yaml(item["input"]), text.removeprefix("must be "), _meaning(key)
        )
    if key is None:
        return _Fault(_where(loc, item["input"], paths), _as_yaml(item["input"]), "keys and values", _MANUAL)
    if item["type"] == "missing" and isinstance(loc[-1], int):
        loc = loc[:-1]  # a range of one number lacks its second: the range is what is wrong
    elif item["type"] == "missing":
        return _Fault(f"{_file_and_line(loc, paths)}: {_text(loc)}", "nothing", key.takes, _meaning(key))
    expected, hint = key.takes, _meaning(key)
    if key.block is not None:
        expected = "a block of keys and values"
        hint = "leave the key out to keep its defaults"
    elif item["type"] == NOT_DECIMAL and any(map(str.isdigit, str(item["input"]))):
        expected = f"{expected}, in decimal digits"
    elif item["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        hint = _did_you_mean(str(item["input"]), choices) or hint
    return _Fault(_where(loc, item["input"], paths), _as_yaml(item["input"]), expected, hint)


def _is_renamed(item: Any) -> bool:
    return item["type"] == "extra_forbidden" and item["loc"] in RENAMED


def _renamed_key(loc: _Location, value: Any, paths: Sequence[str | Path]) -> _Fault:
    former, new = _text(loc), RENAMED[tuple(map(str, loc))]
    hint = f"write {new[-1]} in place of {loc[-1]}: its values mean the same"
    return _Fault(_where(loc, value, paths), f"`{former}`, its former name", f"`{'.'.join(new)}`", hint)


def _unknown_key(loc: _Location, parent: tuple[str, ...], paths: Sequence[str | Path]) -> _Fault:
    unknown = str(loc[-1])
    siblings = [key.path[-1] for key in all_keys() if key.path[:-1] == parent]
    elsewhere = [key.name for key in all_keys() if key.path[-1] == unknown]
    hint = _did_you_mean(unknown, siblings)
    if elsewhere and hint is None:
        hint = f"did you mean {' or '.join(f'`{name}`' for name in elsewhere)}?"
    return _Fault(
        f"{_file_and_line(loc, paths)}: {_text(loc)}",
        "an unknown key",
        f"one of {', '.join(sorted(siblings))}",
        hint or _MANUAL,
    )


def _did_you_mean(word: str, choices: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(word.lower(), choices, n=1)
    return f"did you mean `{near[0]}`?" if near else None


def _impossible_combination(
    loc: _Location, block: tuple[str, ...], values: Any, text: str, paths: Sequence[str | Path]
) -> _Fault:
    """A fault of several keys, which the validator's message names in backticks."""
    named = [tuple(name.split(".")) for name in re.findall(r"`([\w.]+)`", text)]
    keys = [key for key in (find_key((*block, *name)) for name in named) if key is not None]
    found = ", ".join(f"{key.name} {_as_yaml(_value_of(key, values, len(block)))}" for key in keys)
    places = [_find((*loc, *key.path[len(block) :]), paths) for key in keys]
    lines = dict.fromkeys(f"{place[0]}:{place[1]}" for place in places if place is not None)
    where = ", ".join(lines) or _file_and_line(loc, paths)
    names = " or ".join(f"`{key.name}`" for key in keys)
    told = ", ".join(key.name for key in keys) or _text(loc)
    return _Fault(f"{where}: {told}", found, text.removeprefix("must be "), f"change {names}" if names else _MANUAL)


def _value_of(key: Key, values: Any, depth: int) -> Any:
    for name in key.path[depth:]:
        values = values.get(name) if isinstance(values, Mapping) else getattr(values, name, None)
    return key.field.get_default(call_default_factory=True) if values is None else values


def _meaning(key: Key) -> str:
    return f"`{key.name}`: {key.description}"


def _text(loc: _Location) -> str:
    return without_password(".".join(map(str, loc))) or "(top level)"


def _as_yaml(value: Any) -> str:
    def plain(other: Any) -> Any:
        return other.model_dump(mode="json") if isinstance(other, BaseModel) else str(other)

    text = json.dumps(without_passwords(value), default=plain, ensure_ascii=False)
    return text if len(text) <= _LONGEST_FOUND else f"{text[:_LONGEST_FOUND]}…"


def _where(loc: _Location, value: Any, paths: Sequence[str | Path]) -> str:
    """`file:line: key` of a value, or the command line where no file gives that value."""
    place = _find(loc, paths)
    given_elsewhere = paths and (
        place is None or (isinstance(value, str | int | float) and str(place[2]) != str(value))
    )
    return f"{'command line (--config)' if given_elsewhere else _file_and_line(loc, paths)}: {_text(loc)}"


def _file_and_line(loc: _Location, paths: Sequence[str | Path]) -> str:
    """`file:line` of the last file that sets the key, or of its nearest block that a file sets."""
    for depth in range(len(loc), 0, -1):
        place = _find(loc[:depth], paths)
        if place is not None:
            return f"{place[0]}:{place[1]}"
    return str(paths[-1]) if paths else "config"


def _find(loc: _Location, paths: Sequence[str | Path]) -> tuple[str, int, Any] | None:
    """File, line and scalar value of a key in the last file that sets it."""
    for path in reversed(list(paths)):
        node, value_of = compose_file(path)
        line = 1
        for part in loc:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        else:
            return str(path), line, value_of(node) if isinstance(node, yaml.ScalarNode) else None
    return None


def _child(node: Any, part: str | int) -> tuple[int, yaml.Node] | None:
    """Line and value node of a mapping's key or a list's item."""
    if isinstance(node, yaml.MappingNode):
        pairs = [(key, value) for key, value in node.value if key.value == str(part)]
        return (pairs[-1][0].start_mark.line + 1, pairs[-1][1]) if pairs else None
    if isinstance(node, yaml.ScalarNode) and part == 0:  # one value where a list of one is meant
        return node.start_mark.line + 1, node
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None
