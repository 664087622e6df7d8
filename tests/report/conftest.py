"""A headless Chromium, and one complete made-up study with its page."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))  # report_artefacts

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


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser that logs what it fetches and what goes wrong."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the report's tests need Chromium: apt-get install chromium chromium-driver")
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, Service(driver))
    yield chrome
    chrome.quit()
