"""Making the page: the sections, put into one template with the drawing library inlined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ensembleflow.config import StudyName
from ensembleflow.io import atomic_path
from ensembleflow.report.page.allocation import allocation
from ensembleflow.report.page.blocks import MAX_ROWS
from ensembleflow.report.page.decision import decision
from ensembleflow.report.page.library import library
from ensembleflow.report.page.look import DARK, STYLED
from ensembleflow.report.page.mistakes import mistakes
from ensembleflow.report.page.provenance import provenance
from ensembleflow.report.page.search import search
from ensembleflow.report.page.selection import selection
from ensembleflow.report.page.study import Study, find_study

__all__ = ["make_report"]

_SECTIONS = (decision, mistakes, search, library, selection, allocation, provenance)


def make_report(results: str | Path, output: str | Path, study: str | None = None) -> None:
    """Write the report of one study as one self-contained page that opens offline.

    Everything is read from the artefacts by their public paths. What is not there yet is told in its place, with the
    command that makes it, and the other parts are shown. The same artefacts give the same bytes.

    Args:
        results: the folder of all artefacts.
        output: where the page is written; its links to tables start from there.
        study: the study's name; by default that of `run_config.yaml`, or the only one there is.

    Raises:
        ArtefactError: there is no such study, or several and none is named.
        StorageError: the page cannot be written.
    """
    found = find_study(Path(results), study, Path(output))
    environment = Environment(
        loader=PackageLoader("ensembleflow.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["figure_json"] = _figure_json
    page = environment.get_template("report.html.j2").render(
        study=found,
        title=_title(found),
        budgets=_budgets(found),
        sections=[make(found) for make in _SECTIONS],
        dark=DARK,
        styled=STYLED,
        max_rows=MAX_ROWS,
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )
    with atomic_path(output) as aside:
        aside.write_text(page, encoding="utf-8")


def _figure_json(plot: go.Figure) -> Markup:
    """A plot as JSON that can stand in a script element."""
    # Not orjson, where it happens to be installed: it writes some floats otherwise.
    spec = json.loads(str(plot.to_json(engine="json")))
    return Markup(json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c"))


def _title(study: Study) -> dict[str, str]:
    name = StudyName.parse(study.name)
    assert name is not None, "find_study takes no other folder"
    return {"dataset": name.dataset, "algorithm": name.algorithm, "seed": str(name.seed)}


def _budgets(study: Study) -> list[str]:
    """The budgets that can be chosen; none where that is not known yet."""
    folder = study.results / study.name / "selection"
    known: list[Any] = study.budgets if folder.is_dir() and any(folder.glob("budget-*.json")) else []
    return [budget for budget in known if (folder / f"budget-{budget}.json").exists()]
