"""The config's file: each key under the reason for its value."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from ensembleflow.first_config.choices import Choice

__all__ = ["config_text"]

_WIDTH = 110


def config_text(choices: Sequence[Choice], head: Sequence[str]) -> str:
    """A YAML file of the choices, blocks in the order in which they first come.

    Args:
        choices: distinct keys.
        head: paragraphs of the comment at the top; one that begins with two blanks is not wrapped.
    """
    tree: dict[str, Any] = {}
    for choice in choices:
        *blocks, name = choice.key.split(".")
        inner = tree
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[name] = choice
    lines = [line for paragraph in head for line in _comment(paragraph, "")]
    for name, inner in tree.items():
        lines += ["", *_lines(name, inner, "")]
    return "\n".join(lines) + "\n"


def _lines(name: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, Choice):
        lines = _comment(value.reason, indent)
        if isinstance(value.value, list) and value.value and isinstance(value.value[0], dict):
            return [*lines, f"{indent}{name}:", *(f"{indent}  - {_flow(each)}" for each in value.value)]
        return [*lines, f"{indent}{name}: {_flow(value.value)}"]
    return [f"{indent}{name}:", *(line for key, each in value.items() for line in _lines(key, each, indent + "  "))]


def _comment(text: str, indent: str) -> list[str]:
    if text.startswith("  ") or not text:
        return [f"{indent}# {text}".rstrip()]
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
    )


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=sys.maxsize, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
