"""Section 3.3.1: how much of the library to keep."""

from __future__ import annotations

import pandas as pd

from ensembleflow.io import write_csv
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.drawing import BLUE, GREY, LIGHT, Look, drawn_figure, legend_above, plain_number, say_empty
from ensembleflow.report.paper.page import figure_provenance, what_differs, write_page
from ensembleflow.report.paper.sources import read_sources

__all__ = ["make_pruning"]

_CAPTION = """SMOBF within the budget {budget} (of all models' median cost) on the best X % of the library by validation
{metric}, from the models' cached predictions. Lines are the seeds, dots their mean; the dashed line is the paper's
20 %. Left: error on the test images (1 - accuracy in any case). Right:
time of one selection, its checks included. In the paper (section 3.3.1):
above 20 % accuracy is not reduced, below 15 % it is in some experiments; it prints no numbers. {differs}"""

_COLUMNS = ["study", "seed", "keep_fraction", "n_models", "n_members", "cost_seconds", "valid_loss", "valid_error"]
_COLUMNS += ["test_error", "selection_seconds"]
_HEIGHT_INCHES, _PAPERS_FRACTION = 2.6, 0.2
_SEED: Look = {"color": LIGHT, "linewidth": 0.8, "label": "a seed"}
_MEAN: Look = {"color": BLUE, "marker": "o", "markersize": 3.6, "label": "mean of the seeds"}
_PAPER: Look = {"color": GREY, "linestyle": (0, (4, 2)), "linewidth": 0.8, "label": "kept in the paper"}


def make_pruning(run: PaperRun) -> None:
    """Write `pruning.csv` (one row per study and fraction), its page and its figure.

    Raises:
        ArtefactError: a study's `pruning.csv` is damaged.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "pruning")
    tables = [
        study.table("selection/pruning.csv", _COLUMNS[2:]).assign(study=study.name, seed=study.seed)
        for study in sources.studies
    ]
    table = pd.concat(tables)[_COLUMNS] if tables else pd.DataFrame(columns=_COLUMNS)
    write_csv(run.output("pruning", "csv"), table)
    means = table.groupby("keep_fraction")[["n_models", "n_members", "test_error", "selection_seconds"]].mean()
    paths = run.output("pruning", "png"), run.output("pruning", "svg")
    with drawn_figure(run.report, _HEIGHT_INCHES, *paths, figure_provenance(run, sources)) as figure:
        panels = figure.subplots(1, 2)
        shown = {"test_error": ("test error (%)", 100.0), "selection_seconds": ("time of a selection (ms)", 1000.0)}
        for axes, (column, (label, factor)) in zip(panels, shown.items(), strict=True):
            for _, own in table.groupby("study", sort=False):
                axes.plot(100 * own.keep_fraction, factor * own[column], **_SEED)
            axes.plot(100 * means.index, factor * means[column], **_MEAN)
            axes.axvline(100 * _PAPERS_FRACTION, **_PAPER)
            axes.set(xlabel="kept of the library (%)", ylabel=label)
            if table.empty:
                say_empty(axes, "no finished study")
                continue
            axes.set_xscale("log")
            axes.set_xticks(100 * means.index, [plain_number(100 * share) for share in means.index], minor=False)
            axes.minorticks_off()
        legend_above(figure, [panels[0].plot([], [], **look)[0] for look in (_SEED, _MEAN, _PAPER)])
    readable = pd.DataFrame(
        {
            "kept (%)": 100 * means.index,
            "models": means.n_models.to_numpy(),
            "members": means.n_members.to_numpy(),
            "test error (%)": 100 * means.test_error.to_numpy(),
            "selection (ms)": 1000 * means.selection_seconds.to_numpy(),
        }
    )
    caption = _CAPTION.format(
        budget=run.paper.pruning_budget, metric=run.search.metric, differs=what_differs(run, sources)
    )
    write_page(run, sources, readable, title="Section 3.3.1: pruning the library", caption=caption)
