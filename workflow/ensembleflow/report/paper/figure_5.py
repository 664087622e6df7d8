"""Figures 5 and 6: SMOBF against forward greedy, cost against error, of one study."""

from __future__ import annotations

import pandas as pd

from ensembleflow.io import read_csv, write_csv
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.drawing import drawn_figure, say_empty
from ensembleflow.report.error_against_cost import plot_error_against_cost
from ensembleflow.report.paper.page import figure_provenance, what_differs, write_page
from ensembleflow.report.paper.sources import read_sources

__all__ = ["make_figure_5"]

_CAPTION = """Ensembles of one study: SMOBF's, chosen for each budget (`B=4x`), and forward greedy's, the baseline, of
each size (`#3`), by their cost and their error (1 - accuracy in any case). Left and low is better; the
grey band is the Pareto front by validation
loss. In the paper: figures 5 (CIFAR100) and 6 (microfossils), with the axes exchanged; it prints no numbers of them.
{differs}"""

_COLUMNS = ["method", "budgets", "n_members", "cost_seconds", "valid_error", "test_error", "chosen", "on_pareto_front"]
_EMPTY_INCHES = 2.0


def make_figure_5(run: PaperRun) -> None:
    """Write `figure_5.csv` (one row per method and set of members), its page and its figure.

    Raises:
        ArtefactError: an artefact of the study is damaged.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "figure_5")
    table_csv, png, svg = (run.output("figure_5", suffix) for suffix in ("csv", "png", "svg"))
    if sources.studies:
        selection = sources.studies[0].folder / "selection"
        plot_error_against_cost(
            selection / "ensembles.csv",
            selection / "pareto.csv",
            run.report,
            run.selection.loss,
            run.library.cost.n_images,
            table_csv,
            png,
            svg,
            figure_provenance(run, sources),
        )
    else:
        write_csv(table_csv, pd.DataFrame(columns=_COLUMNS))
        with drawn_figure(run.report, _EMPTY_INCHES, png, svg, figure_provenance(run, sources)) as figure:
            say_empty(figure.subplots(), "no finished study")
    chosen = read_csv(table_csv, _COLUMNS, dtype={"budgets": str})[_COLUMNS]
    caption = _CAPTION.format(differs=what_differs(run, sources))
    write_page(run, sources, chosen, title="Figures 5 and 6: SMOBF against forward greedy", caption=caption)
