"""The surroundings of a Python process that this one starts."""

from __future__ import annotations

import os
from pathlib import Path

import ensembleflow

__all__ = ["child_environment"]


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment variables, in which a child finds this very package, with `changes`."""
    path = [str(Path(ensembleflow.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **changes}
