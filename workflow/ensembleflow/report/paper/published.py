"""The paper's own numbers (`published.yaml`)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["published"]


def published(item: str) -> Any:
    """What the paper prints for `table_1` … `table_4`, as it stands in `published.yaml`."""
    return _all()[item]


@cache
def _all() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return values
