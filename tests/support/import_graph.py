"""Which modules of the package a module imports, at its head or within a function, read from its source."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from support.clone import REPOSITORY

WORKFLOW = REPOSITORY / "workflow"
PACKAGE = WORKFLOW / "ensembleflow"


def source_of(module: str) -> Path | None:
    """The file of `ensembleflow.selection.smobf`; None for a name that is no module."""
    path = WORKFLOW.joinpath(*module.split("."))
    if path.is_dir():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else None


def defining(package: Path, name: str) -> Path:
    """The file that a package's `__init__` takes a name from."""
    for node in ast.walk(ast.parse(package.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            source = source_of(str(node.module))
            assert source is not None
            return defining(source, name) if source.name == "__init__.py" else source
    return package


@functools.cache
def imports(path: Path) -> frozenset[Path]:
    """The package's files that one file imports by itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {source_of(alias.name) for alias in node.names if alias.name.startswith("ensembleflow")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ensembleflow"):
            source = source_of(str(node.module))
            for alias in node.names:
                submodule = source_of(f"{node.module}.{alias.name}")
                if submodule is None and source is not None and source.name == "__init__.py":
                    submodule = defining(source, alias.name)
                found.add(submodule or source)
    return frozenset(path for path in found if path is not None)


def reached(path: Path) -> set[str]:
    """All of the package's files that a file needs, itself too where it belongs to the package, relative to it."""
    seen, waiting = {path}, [path]
    while waiting:
        new = imports(waiting.pop()) - seen
        seen |= new
        waiting += new
    return {str(file.relative_to(PACKAGE)) for file in seen if file.is_relative_to(PACKAGE)}
