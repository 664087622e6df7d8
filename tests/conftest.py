"""What the tests of several folders share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from selenium import webdriver

from support.exported_functions import IMAGE_SHAPE, Exported, export

REPOSITORY = Path(__file__).resolve().parents[1]

# Its default, 200 ms an example, fails tests of whatever shares a machine with other work.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _no_config_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is called in this process leaves its --configfile to the hints of later ones."""
    monkeypatch.setenv("ENSEMBLEFLOW_CONFIG_OPTIONS", "")  # so that it is taken back, whatever the test sets
    monkeypatch.delenv("ENSEMBLEFLOW_CONFIG_OPTIONS")


@pytest.fixture(scope="session")
def copy_repository() -> Callable[[Path], None]:
    """Fill a folder with what a clone of the repository would hold, and with edits that are not committed yet."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listing.stdout.split("\0") if name]

    def copy_to(folder: Path) -> None:
        for name in names:
            source = REPOSITORY / name
            if source.is_symlink() or source.exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, folder / name, follow_symlinks=False)

    return copy_to


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exported functions of three members, made once."""
    return export(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Images that the exported functions take."""
    return np.random.default_rng(1).integers(0, 256, (120, *IMAGE_SHAPE), dtype=np.uint8)


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """A headless Chromium; skipped without one, except in CI, where that is a failure."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        assert not os.environ.get("CI"), "chromium and chromedriver are needed"
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser
