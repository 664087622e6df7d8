"""Reading config files and `--config` as they are written: what YAML 1.1 would take for another number stays text."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ensembleflow.errors import ConfigError

__all__ = ["compose_file", "merged", "read_command_line", "read_file", "read_values", "refuse_repeated_keys"]


class _WrittenLoader(yaml.SafeLoader):
    """Reads numbers in decimal digits only.

    YAML 1.1 takes `4:00:00` for 14,400 (base 60), `010` for 8, `1_000` for 1,000, `2026-01-01` for a date, and `1e-5`
    for a text. Here the first four are texts, which the config's classes refuse or understand, and the last a number.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class it overrides
        first: [
            (tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "float", "timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_WrittenLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_WrittenLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_values(paths: Sequence[str | Path], command_line: Sequence[str] = ()) -> dict[str, Any]:
    """Read YAML files, later ones overriding earlier ones key by key, and what the command line sets besides.

    Args:
        paths: the files, in the order in which they override each other.
        command_line: what `--config` was given: texts `key=value`.

    Raises:
        ConfigError: a file cannot be read, or is no mapping.
    """
    values: dict[str, Any] = {}
    for each in [*map(read_file, paths), read_command_line(command_line)]:
        values = merged(values, each)
    return values


def read_file(path: str | Path) -> dict[str, Any]:
    """The keys and values of one file, as written.

    Raises:
        ConfigError: it is missing, cannot be read, is no YAML, or is no mapping.
    """
    text = _read_text(Path(path))
    try:
        values = _load(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(
            "the config file is no YAML",
            where=f"{path}{line}",
            found=error.problem,
            expected="`key: value` lines, indented by spaces",
        ) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
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


def read_command_line(entries: Sequence[str]) -> dict[str, Any]:
    """The keys and values of `--config`: `seed=1`, `search={n_trials: 8}`."""
    values: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        try:
            value = yaml.load(text, Loader=_WrittenLoader)
        except (ValueError, yaml.YAMLError):
            value = text
        values = merged(values, {key: value})
    return values


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in place of its own, block by block."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def compose_file(path: str | Path) -> tuple[yaml.Node | None, Any]:
    """A file's tree of nodes, and what makes a value of one; no tree where it cannot be read."""
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=_WrittenLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        root = None
    return root, lambda node: _WrittenLoader("").construct_document(node)


def refuse_repeated_keys(path: str | Path) -> None:
    """YAML readers keep the last of two equal keys without a word, which hides a slip of the hand.

    Raises:
        ConfigError: a mapping in the file has a key twice.
    """
    root, _ = compose_file(path)
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


def _load(text: str) -> Any:
    try:
        return json.loads(text)  # which may be indented by tabs, as YAML may not
    except ValueError:
        return yaml.load(text, Loader=_WrittenLoader)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            "the config file does not exist",
            where=path,
            found="no such file",
            expected="a YAML file",
            hint=f"its path is relative to {Path.cwd()}",
        ) from None
    except OSError as error:
        raise ConfigError("the config file cannot be read", where=path, found=error, expected="a text file") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            "the config file cannot be read",
            where=f"{path}:{line}",
            found=f"byte 0x{content[error.start]:02x}, which is not UTF-8",
            expected="a text file in UTF-8",
            hint=f"if it is Latin-1: iconv -f latin1 -t utf-8 {shlex.quote(str(path))} > new.yaml",
        ) from None
