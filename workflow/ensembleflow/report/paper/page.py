"""An item's page: what it shows, what differs from the paper, the table, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import ensembleflow
from ensembleflow.io import atomic_path
from ensembleflow.planning.paper_plan import FIGURES, PaperRun
from ensembleflow.report.paper.sources import Sources

__all__ = ["figure_provenance", "markdown_table", "what_differs", "write_page"]

_LONG_NUMBER = 1e4  # from here on four digits would need an exponent
_PAPERS_DATA = ("cifar100", "microfossils")


def write_page(run: PaperRun, sources: Sources, shown: pd.DataFrame, *, title: str, caption: str) -> None:
    """Write an item's page, `results/paper/{item}.md`.

    Args:
        run: says where.
        sources: what the item was drawn from; its notes end the page.
        shown: the table, its cells numbers or as they are to be read.
        title: of the page.
        caption: what is shown, and what differs from the paper.
    """
    missing = ["## Missing", "", *(f"- {note}" for note in sources.notes), ""] if sources.notes else []
    drawn = ", ".join(study.name for study in sources.studies) or "no study: nothing is there yet"
    lines = [
        *(f"# {title}", "", caption, ""),
        *([f"![{title}]({sources.item}.svg)", ""] if sources.item in FIGURES else []),
        *markdown_table(shown),
        "",
        *missing,
        f"Drawn by ensembleflow {ensembleflow.__version__} from {drawn}; the data are in `{sources.item}.csv`.",
    ]
    with atomic_path(run.output(sources.item, "md")) as aside:
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")


def markdown_table(table: pd.DataFrame) -> list[str]:
    """A table as lines of Markdown; what is missing is an empty cell."""
    if table.empty:
        return ["(nothing to show yet)"]
    cells: list[list[str]] = [
        ["" if pd.isna(value) else _cell(value) for value in row] for row in table.itertuples(index=False)
    ]
    rows: list[list[str]] = [[str(name) for name in table.columns], ["---"] * len(table.columns), *cells]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= _LONG_NUMBER else f"{value:.4g}"


def what_differs(run: PaperRun, sources: Sources) -> str:
    """A sentence on data, hardware and time, of what the studies' accounts tell."""
    data = "" if run.dataset in _PAPERS_DATA else f"the data ({run.dataset} instead of CIFAR100 and microfossils), "
    trials = f"{run.search.n_trials} trials of at most {run.search.max_epochs} epochs"
    told = "Errors are 1 - macro F1, as the paper's of microfossils. " if run.metric == "macro_f1_error" else ""
    text = f"{told}What differs from the paper: {data}the search ({trials})"
    accounts = [study.accounting for study in sources.studies if (study.folder / "search/accounting.json").exists()]
    if not accounts:
        return f"{text} and the hardware."
    workers = sorted({int(each["n_devices"]) for each in accounts})
    minutes = [float(each["duration_seconds"]) / 60 for each in accounts]
    taken = f"{min(minutes):.1f}" if max(minutes) - min(minutes) < 0.1 else f"{min(minutes):.1f} to {max(minutes):.1f}"
    return (
        f"{text}, the hardware ({' or '.join(map(str, workers))} workers of this machine instead of 6 Tesla V100) and "
        f"the time ({taken} minutes a search instead of up to six days)."
    )


def figure_provenance(run: PaperRun, sources: Sources) -> str:
    """What stands in a figure's metadata: the version, the studies, and the table that it draws."""
    studies = ", ".join(study.name for study in sources.studies) or "no study"
    return f"ensembleflow {ensembleflow.__version__}; {studies}; {Path(run.output(sources.item, 'csv')).name}"
