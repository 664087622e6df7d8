"""Tests of one folder share processes, runs and clusters: they stay together when tests run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.xdist_group(item.path.relative_to(TESTS).parts[0]))
