"""One small study, run once from images to report; tests look at it, or work in copies of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clone import Clone


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which nothing has run. Not to be changed."""
    return Clone.of_repository(tmp_path_factory.mktemp("untouched") / "ensembleflow")


@pytest.fixture(scope="session")
def finished(untouched: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which everything has run, the search on one core. Not to be changed but for its config file."""
    clone = untouched.copy_to(tmp_path_factory.mktemp("finished") / "ensembleflow")
    clone.run("library", cores=1)
    clone.run()
    return clone


@pytest.fixture
def fresh_copy(untouched: Clone, tmp_path: Path) -> Clone:
    """A clone of one's own in which nothing has run."""
    return untouched.copy_to(tmp_path / "ensembleflow")


@pytest.fixture
def finished_copy(finished: Clone, tmp_path: Path) -> Clone:
    """A clone of one's own in which everything has run."""
    return finished.copy_to(tmp_path / "ensembleflow")
