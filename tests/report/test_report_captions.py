"""The captions of Snakemake's report: rendered as Snakemake does, they are clean reStructuredText."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docutils.core import publish_parts
from jinja2 import Environment

from ensembleflow.config import Config

CAPTIONS = Path(__file__).resolve().parents[2] / "workflow" / "report"
FILES = [
    "learning_curves.svg",
    "library_distribution.png",
    "error_against_cost.svg",
    "selection_fronts.svg",
    "allocation.svg",
    "budgets.html",
]

OTHER = Config.model_validate(
    {"selection": {"local_search": True}, "library": {"predictions": {"every_class": False}}}
).model_dump(mode="json")


def rendered(name: str, config: dict[str, Any], files: list[str]) -> str:
    links = "\n\n" + "\n".join(f".. _{file}: javascript:app.showResultInfo('{file}')" for file in files) + "\n"
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        (CAPTIONS / name).read_text(encoding="utf-8") + links
    )
    text = template.render(
        snakemake=SimpleNamespace(config=config), categories={}, files=[SimpleNamespace(target=file) for file in files]
    )
    return publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]


@pytest.mark.parametrize("name", sorted(path.name for path in CAPTIONS.glob("*.rst")))
@pytest.mark.parametrize("config", [Config().model_dump(mode="json"), {}, OTHER], ids=["full", "empty", "other"])
def test_captions_are_clean_with_any_config(name: str, config: dict[str, Any]) -> None:
    for files in (FILES, []):
        html = rendered(name, config, files)
        assert "problematic" not in html
        assert "system-message" not in html
        assert "{{" not in html
        assert "{%" not in html


def test_captions_tell_what_is_drawn() -> None:
    for name in ("error_against_cost.rst", "selection_fronts.rst"):
        assert "the error disagree" in rendered(name, Config().model_dump(mode="json"), FILES)
        html = rendered(name, OTHER, FILES)
        assert "error" not in html.replace("error_against_cost", "")
        assert "ross-entropy o" in html
    assert "local search" in rendered("error_against_cost.rst", OTHER, FILES)


def test_the_front_page_links_to_every_figure_and_names_the_budgets() -> None:
    html = rendered("workflow.rst", Config().model_dump(mode="json"), FILES)
    for file in FILES:
        assert f"showResultInfo('{file}')" in html
    assert "1x, 2x, 4x, 8x" in html
    assert f"{Config().search.n_trials} networks" in html


@pytest.mark.parametrize(
    "name",
    ["learning_curves", "library_distribution", "error_against_cost", "selection_fronts", "allocation", "budgets"],
)
def test_every_caption_names_its_table(name: str) -> None:
    assert f"tables/{name}.csv" in rendered(f"{name}.rst", {}, [])
