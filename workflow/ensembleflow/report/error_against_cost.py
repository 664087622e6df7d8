"""The figure of the selection: what an ensemble costs and how often it errs, method by method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ensembleflow.config import ReportConfig
from ensembleflow.io import read_csv, write_csv
from ensembleflow.report.drawing import (
    BLUE,
    LIGHT,
    RED,
    YELLOW,
    YELLOW_TEXT,
    Look,
    as_bool,
    drawn_figure,
    legend_above,
    measure,
    scale_by_range,
)
from ensembleflow.report.labels import Label, place_labels

__all__ = ["plot_error_against_cost"]

_PANEL_HEIGHT_INCHES, _LEGEND_INCHES, _LABEL_POINTS = 2.5, 0.4, 6.8
_MAX_LABELS, _SIZES = 20, tuple(2**power for power in range(12))
_SPLITS = {"valid": "validation", "test": "test"}
_LOOKS: dict[str, Look] = {
    "smobf": {"marker": "o", "color": BLUE, "markersize": 5.0, "linestyle": "-", "label": "SMOBF"},
    "local_search": {"marker": "o", "color": BLUE, "markersize": 5.0, "linestyle": "-", "label": "SMOBF, local search"},
    "forward_greedy": {
        "marker": "s",
        "color": YELLOW,
        "markeredgecolor": YELLOW_TEXT,
        "markeredgewidth": 0.6,
        "markersize": 4.2,
        "linestyle": (0, (4, 2)),
        "label": "forward greedy",
    },
    "best_single": {
        "marker": "*",
        "color": RED,
        "markersize": 8.0,
        "linestyle": "none",
        "label": "best single model (#1)",
    },
}
_OTHER_WEIGHTS: Look = {"marker": "o", "markersize": 3.2, "markerfacecolor": "white", "markeredgecolor": BLUE}
_TEXT_COLORS = {"smobf": BLUE, "local_search": BLUE, "forward_greedy": YELLOW_TEXT}


def plot_error_against_cost(
    ensembles_csv: str | Path,
    pareto_csv: str | Path,
    config: ReportConfig,
    loss: str,
    n_images: int,
    table_csv: str | Path,
    figure_png: str | Path,
    figure_svg: str | Path,
    provenance: str | None = None,
) -> None:
    """Draw validation and test error of the selected ensembles against their cost (the paper's figures 5 and 6).

    `B=4x` is the budget and `#3` the number of members. SMOBF's ensembles are those chosen for each budget, after the
    local search if there is one; what its weights gave otherwise is drawn small. The Pareto front is the one of
    `pareto_csv`, that is of validation loss and cost; it is marked in both panels. Where only the true class's
    probabilities are cached there is no error, and the cross-entropy is drawn.

    Args:
        ensembles_csv: the study's `ensembles.csv`.
        pareto_csv: the study's `pareto.csv`.
        config: width and resolution of the figure.
        loss: the validation loss by which ensembles were selected, named in the legend.
        n_images: images that a cost counts (`library.cost.n_images`).
        table_csv: where the drawn table is written, one row per method and set of members.
        figure_png: where the PNG is written.
        figure_svg: where the SVG is written.
        provenance: for the figure's metadata.

    Raises:
        ArtefactError: a table is missing, damaged or lacks a column.
        StorageError: an output cannot be written.
    """
    drawn = [f"{split}_{metric}" for metric in dict.fromkeys(("error", loss)) for split in _SPLITS]
    columns = ["method", "budget", "budget_seconds", "n_members", "members", "cost_seconds", *drawn, "chosen"]
    ensembles = read_csv(ensembles_csv, columns, dtype={"budget": str})
    pareto = read_csv(pareto_csv, ["members"])
    table = _tidy(ensembles, pareto, drawn)
    write_csv(table_csv, table)
    metric = "error" if table.valid_error.notna().any() else loss

    height = 2 * _PANEL_HEIGHT_INCHES + _LEGEND_INCHES
    with drawn_figure(config, height, figure_png, figure_svg, provenance) as figure:
        panels = dict(zip(_SPLITS, figure.subplots(2, 1, sharex=True), strict=True))
        for split, panel in panels.items():
            _draw_split(panel, table, split, metric)
            panel.set(title=f"{_SPLITS[split]} images", ylabel=f"{_SPLITS[split]} {measure(metric).label}")
            scale_by_range(panel.xaxis, table.cost_seconds)
            panel.margins(x=0.06, y=0.12)
        panels["test"].set_xlabel(f"cost: seconds for {n_images:,} images")
        legend_above(figure, _legend(table, loss))
        _write_labels(figure, panels, table, metric)


def _tidy(ensembles: pd.DataFrame, pareto: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """One row for each method and set of members, with the budgets that led to it."""
    ensembles = ensembles.assign(chosen=as_bool(ensembles.chosen), set=ensembles.members.map(_member_set))
    rows = []
    for (method, _members), group in ensembles.groupby(["method", "set"], sort=True):
        named = group[group.chosen] if method == "smobf" and group.chosen.any() else group
        first = named.iloc[0]
        rows.append(
            {
                "method": method,
                "budgets": " ".join(named.sort_values("budget_seconds", kind="stable").budget.dropna().unique()),
                "n_members": first.n_members,
                "cost_seconds": first.cost_seconds,
                **{name: first[name] for name in metrics},
                "chosen": bool(group.chosen.any()),
                "on_pareto_front": first.set in set(pareto.members.map(_member_set)),
                "members": first.members,
            }
        )
    table = pd.DataFrame(rows)
    order = table.method.map({method: place for place, method in enumerate(_LOOKS)})
    return table.iloc[np.lexsort((table.members, table.n_members, table.cost_seconds, order))].reset_index(drop=True)


def _member_set(members: str) -> str:
    return " ".join(sorted(members.split()))


def _draw_split(panel: Axes, table: pd.DataFrame, split: str, metric: str) -> None:
    values = _values(table, split, metric)
    front = table[table.on_pareto_front].drop_duplicates(["cost_seconds", f"{split}_{metric}"])
    front = front.sort_values("cost_seconds")
    panel.plot(front.cost_seconds, values[front.index], color=LIGHT, linewidth=5, alpha=0.6, solid_capstyle="round")
    other = (table.method == "smobf") & ~table.chosen
    panel.plot(table.cost_seconds[other], values[other], linestyle="none", zorder=5, **_OTHER_WEIGHTS)
    for method, look in _LOOKS.items():
        for rows in _lines(table, method):
            zorder = 4 if method in ("smobf", "local_search") else 3
            panel.plot(table.cost_seconds[rows], values[rows], zorder=zorder, **look)


def _values(table: pd.DataFrame, split: str, metric: str) -> pd.Series:
    return table[f"{split}_{metric}"] * measure(metric).factor


def _lines(table: pd.DataFrame, method: str) -> list[pd.Index]:
    """The rows that one line joins: SMOBF's choices by cost; forward greedy's path of each budget by size."""
    rows = table[(table.method == method) & (table.chosen | (method != "smobf"))]
    if method != "forward_greedy":
        return [rows.index]
    by_budget: dict[str, list[int]] = {}
    for row in rows.sort_values("n_members", kind="stable").itertuples():
        for budget in str(row.budgets).split():
            by_budget.setdefault(budget, []).append(int(str(row.Index)))
    return [pd.Index(path) for path in by_budget.values()]


def _legend(table: pd.DataFrame, loss: str) -> list[Line2D]:
    handles = [
        Line2D([], [], **look)
        for method, look in _LOOKS.items()
        if ((table.method == method) & (table.chosen | (method != "smobf"))).any()
    ]
    if ((table.method == "smobf") & ~table.chosen).any():
        label = "SMOBF, weights not chosen"
        if (table.method == "local_search").any():
            label = "SMOBF before the local search"
        handles.append(Line2D([], [], linestyle="none", label=label, **_OTHER_WEIGHTS))
    front = f"Pareto front of cost and validation {loss.replace('_', '-')}"
    handles.append(Line2D([], [], color=LIGHT, linewidth=5, alpha=0.6, label=front))
    return handles


def _write_labels(figure: Figure, panels: dict[str, Axes], table: pd.DataFrame, metric: str) -> None:
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    greedy = table[table.method == "forward_greedy"]
    ends = [rows[-1] for rows in _lines(table, "forward_greedy")]
    # Of long paths only some sizes: every point's label would hide the points.
    named = greedy if len(greedy) <= _MAX_LABELS else greedy[greedy.n_members.isin(_SIZES) | greedy.index.isin(ends)]
    labelled = pd.concat([table[table.chosen], named])
    for split, panel in panels.items():
        at = np.column_stack([table.cost_seconds, _values(table, split, metric)])
        lines = [at[rows.to_numpy()] for method in _TEXT_COLORS for rows in _lines(table, method)]
        labels = [_label(at, row) for row in labelled.itertuples()]
        place_labels(panel, labels, at, [line for line in lines if len(line)], _LABEL_POINTS)


def _label(at: np.ndarray, row: Any) -> Label:
    x, y = at[row.Index]
    size = f"#{row.n_members}"
    # A budget of several limits has commas of its own.
    budgets = ("; " if "," in row.budgets else ", ").join(row.budgets.split())
    text = f"B={budgets} {size}" if row.chosen else size
    return Label(x, y, text, _TEXT_COLORS[row.method], "bold" if row.chosen else "normal")
