"""What the pages quote of a run of `snakemake paper` is what that run found."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ensembleflow.planning.paper_plan import FIGURES, ITEMS
from ensembleflow.report.paper.numbers import KEYS, collect_numbers, wrong_quotes

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUN = DOCS / "paper"
# Each quotes at least as many numbers.
QUOTING = {"paper-again.md": 20}


@pytest.fixture(scope="module")
def numbers() -> dict[str, float | int]:
    return json.loads((RUN / "numbers.json").read_text(encoding="utf-8"))["numbers"]


@pytest.mark.parametrize("page", [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name)
def test_a_page_quotes_the_runs_numbers(page: Path, numbers: dict[str, float | int]) -> None:
    assert wrong_quotes(page.read_text(encoding="utf-8"), numbers) == []


@pytest.mark.parametrize("page", QUOTING)
def test_the_pages_about_the_run_do_quote_it(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8").count("<!-- =") >= QUOTING[page]


def test_the_items_in_the_docs_are_all_of_that_one_run(numbers: dict[str, float | int]) -> None:
    collected: dict[str, float | int] = {}
    for item in ITEMS:
        assert (RUN / f"{item}.md").exists()
        assert (RUN / f"{item}.svg").exists() is (item in FIGURES)
        collected |= collect_numbers(item, pd.read_csv(RUN / f"{item}.csv", dtype=dict.fromkeys(KEYS[item], str)))
    assert collected == numbers
