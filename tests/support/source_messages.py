"""The first lines of all errors, and the warnings, that the package's source can tell, read from its syntax trees.

What is filled in when a message is told stands as `…`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT_CLASS = "EnsembleflowError"
_FORMAT = re.compile(r"%[-#0 +\d.]*[srdifeg]")


@dataclass(frozen=True)
class Message:
    """A message and where it is told.

    Attributes:
        text: its first line, or None where the source does not show it.
        place: file and line.
        told_by: the error's class, or `warning`.
    """

    text: str | None
    place: str
    told_by: str


def source_messages(package: Path) -> list[Message]:
    """Every error's and warning's text, in the order of files and lines."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    errors = _subclasses(classes)
    # A class with an __init__ of its own words the message itself, whatever it is raised with.
    worded = {each.name: each for each in classes if each.name in errors and _init(each) is not None}
    messages = []
    for path, tree in trees.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name, place = _name(call.func), f"{path.relative_to(package)}:{call.lineno}"
            if name in errors and name not in worded:
                messages += [Message(text, place, name) for text in _texts(_what(call), tree)]
            elif name == "warning":
                messages += [
                    Message(text and _FORMAT.sub("…", text), place, name) for text in _texts(_what(call), tree)
                ]
        for each in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name in worded):
            for call in (node for node in ast.walk(_init(each)) if isinstance(node, ast.Call)):
                if ast.unparse(call.func) == "super().__init__" and each.name != _ROOT_CLASS:
                    place = f"{path.relative_to(package)}:{call.lineno}"
                    messages += [Message(text, place, each.name) for text in _texts(_what(call), tree)]
    return messages


def _subclasses(classes: list[ast.ClassDef]) -> set[str]:
    found = {_ROOT_CLASS}
    while True:
        more = {each.name for each in classes if any(_name(base) in found for base in each.bases)}
        if more <= found:
            return found
        found |= more


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)


def _name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def _what(call: ast.Call) -> ast.expr | None:
    return call.args[0] if call.args else next((each.value for each in call.keywords if each.arg == "what"), None)


def _texts(node: ast.expr | None, tree: ast.Module) -> Iterator[str | None]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, tree)
        yield from _texts(node.orelse, tree)
    elif isinstance(node, ast.Name) and (calls := _calls_that_give(node, tree)):
        for call in calls:
            yield from _texts(_what(call), tree)
    else:
        yield None


def _calls_that_give(parameter: ast.Name, tree: ast.Module) -> list[ast.Call]:
    """The calls of the module's function whose first parameter, the message, this name is."""
    names = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and parameter in ast.walk(function)
        and function.args.args
        and function.args.args[0].arg == parameter.id
    }
    return [call for call in ast.walk(tree) if isinstance(call, ast.Call) and _name(call.func) in names]
