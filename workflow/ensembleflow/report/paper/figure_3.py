"""Figures 3 and 4: the error within each budget against the tuning time, from one study's time stamps."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.lines import Line2D

from ensembleflow.config import n_kept
from ensembleflow.io import write_csv
from ensembleflow.planning.paper_plan import WHOLE_LIBRARY, PaperRun
from ensembleflow.report.drawing import GREY, Look, drawn_figure, legend_above, say_empty
from ensembleflow.report.paper.page import figure_provenance, what_differs, write_page
from ensembleflow.report.paper.sources import BEST_SINGLE, Study, read_sources
from ensembleflow.report.paper.whole_library import WholeLibrary, open_whole_library
from ensembleflow.selection.budget import budget_limits

__all__ = ["make_figure_3"]

_CAPTION = """Test error of one study against tuning time (the CSV has every seed's): at each snapshot the models that
were finished by then are ranked, the best {keep:.3g} % kept, and SMOBF selects from them within each budget; nothing is
trained again. A budget is the same number of seconds at every snapshot: multiples are of the median cost of the models
kept at the end, and these cost what they did in the study's own selection. Grey: the best single model by validation. A
trial that still ran at a snapshot has no model there, as a search broken off then would have had none of it. In the
paper: figures 3 (CIFAR100) and 4 (microfossils), of which it prints no numbers; its text reads 5 points of accuracy
from one to two models and 1 point from B=120 to B=320.
{differs}"""

_COLUMNS = ["study", "budget", "snapshot", "minutes", "n_trials", "n_kept", "n_members", "members", "cost_seconds"]
_COLUMNS += ["valid_loss", "valid_error", "test_error"]
_MARKERS = "osD^v<>P"
_HEIGHT_INCHES, _DARKEST, _LIGHTEST = 3.0, 0.0, 0.85


def make_figure_3(run: PaperRun) -> None:
    """Write `figure_3.csv` (a row a snapshot and budget), its page and its figure.

    Raises:
        ArtefactError: an artefact of the study is damaged, or its cache holds no classes.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "figure_3")
    rows: list[dict[str, Any]] = []
    for study in sources.studies:
        with open_whole_library(study) as library:
            rows += _replay(run, study, library)
    table = pd.DataFrame(rows, columns=_COLUMNS)
    write_csv(run.output("figure_3", "csv"), table)
    drawn = table[table.study == table.study.iloc[0]] if len(table) else table
    paths = run.output("figure_3", "png"), run.output("figure_3", "svg")
    with drawn_figure(run.report, _HEIGHT_INCHES, *paths, figure_provenance(run, sources)) as figure:
        axes = figure.subplots()
        budgets = [str(budget) for budget in run.selection.budgets]
        looks = {BEST_SINGLE: _single_look(), **_looks(budgets)}
        for budget, look in looks.items():
            own = drawn[(drawn.budget == budget) & drawn.test_error.notna()]
            axes.plot(own.minutes, 100.0 * own.test_error, **look)
        axes.set(xlabel="tuning time (minutes)", ylabel="test error (%)")
        if table.empty:
            say_empty(axes, "no finished study")
        else:
            legend_above(figure, [Line2D([], [], **look) for look in looks.values()])
    caption = _CAPTION.format(keep=100 * run.library.keep_fraction, differs=what_differs(run, sources))
    if len(drawn):
        errors = drawn.pivot_table(index=["minutes", "n_trials"], columns="budget", values="test_error", sort=False)
        drawn = (100.0 * errors).round(2).reset_index()
    write_page(run, sources, drawn, title="Figures 3 and 4: error against tuning time", caption=caption)


def _replay(run: PaperRun, study: Study, library: WholeLibrary) -> list[dict[str, Any]]:
    trials = study.table("search/trials.csv", ["slot", "model", "state", "ended_at"])
    ranked = study.table(f"{WHOLE_LIBRARY}/models.csv", ["rank", "model", "kept"])
    order = ranked.model[ranked.kept].tolist()  # of all models, kept are those that are any use
    kept_at_end = order[: n_kept(len(trials), run.library.keep_fraction)]
    at_end = [library.models.index(model) for model in kept_at_end]
    costs = {column: values[at_end] for column, values in library.costs.items()}
    accounts = study.json("search/accounting.json", ["started_at", "duration_seconds"])
    rows: list[dict[str, Any]] = []
    for share in sorted(run.paper.snapshots):
        seconds = share * float(accounts["duration_seconds"])
        finished = set(trials.model[trials.ended_at <= accounts["started_at"] + seconds])
        kept = [model for model in order if model in finished][: n_kept(len(finished), run.library.keep_fraction) or 1]
        row = {"study": study.name, "snapshot": share, "minutes": seconds / 60}
        row |= {"n_trials": len(finished), "n_kept": len(kept)}
        if kept:
            best = [library.models.index(kept[0])]
            errors = {f"{split}_error": library.error(best, split) for split in ("valid", "test")}
            rows.append(row | {"budget": BEST_SINGLE, "n_members": 1, "members": kept[0], **errors})
        for budget in run.selection.budgets:
            chosen = library.select(kept, budget_limits(str(budget), costs), run.selection)
            rows.append(row | {"budget": str(budget)} | (chosen or {"n_members": 0}))
    return rows


def _looks(budgets: list[str]) -> dict[str, Look]:
    """From light to dark by budget, so that the order is seen in grey as well."""
    colours = matplotlib.colormaps["cividis"]
    looks: dict[str, Look] = {}
    for place, budget in enumerate(budgets):
        shade = _LIGHTEST - (_LIGHTEST - _DARKEST) * place / max(1, len(budgets) - 1)
        marker = _MARKERS[place % len(_MARKERS)]
        looks[budget] = {"color": colours(shade), "marker": marker, "markersize": 3.6, "label": f"B={budget}"}
    return looks


def _single_look() -> Look:
    return {"color": GREY, "marker": "*", "markersize": 5.0, "linestyle": (0, (1, 1.5)), "label": "best single model"}
