"""One complete made-up study with its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensembleflow.report import make_report
from support.complete_study import write_study


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a complete study. Not to be changed."""
    folder = tmp_path_factory.mktemp("report") / "results"
    write_study(folder)
    return folder


@pytest.fixture(scope="session")
def page(results: Path) -> Path:
    """The study's page, beside its artefacts."""
    make_report(results, results / "report.html")
    return results / "report.html"
