"""The pages for those who change the code name files and folders that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PLACES = [REPOSITORY, REPOSITORY / "workflow", REPOSITORY / "workflow/ensembleflow"]
# Results have other endings: csv, json, h5, html.
SOURCE = re.compile(r"[\w./*-]+\.(?:py|smk|md|toml|cff|lock|j2)")
FOLDER = re.compile(r"(?:\.github|benchmarks|config|docs|envs|profiles|rules|tests|workflow)(?:/[\w.*-]+)*/?")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_that_a_page_names_exists(page: str) -> None:
    quoted = set(re.findall(r"`([^`\s]+)`", (REPOSITORY / page).read_text(encoding="utf-8")))
    named = {text for text in quoted if SOURCE.fullmatch(text) or FOLDER.fullmatch(text)}
    assert len(named) > 10
    assert sorted(text for text in named if not any(any(place.glob(text)) for place in PLACES)) == []
