"""One complete made-up study with its page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))  # report_artefacts
sys.path.append(str(Path(__file__).resolve().parents[1] / "search"))  # trial_records

from complete_study import write_study
from ensembleflow.report import make_report


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
