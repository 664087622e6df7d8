"""The figure of the methods: what each can have for what cost, SMOBF beside what others select with."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ensembleflow.config import ReportConfig
from ensembleflow.io import read_csv, write_csv
from ensembleflow.report.drawing import (
    BLUE,
    GREY,
    LIGHT,
    RED,
    YELLOW,
    YELLOW_TEXT,
    Look,
    drawn_figure,
    legend_above,
    measure,
    scale_by_range,
)
from ensembleflow.report.method_names import METHOD_NAMES

__all__ = ["plot_selection_fronts"]

_PANEL_HEIGHT_INCHES, _LEGEND_INCHES, _BUDGET_POINTS = 2.5, 0.5, 6.5
_SPLITS = {"valid": "validation", "test": "test"}
# In the legend's order; the later are drawn below the earlier.
_LOOKS: dict[str, Look] = {
    "smobf": {"marker": "o", "color": BLUE, "markersize": 3.6, "linewidth": 1.6},
    "exact": {
        "marker": "o",
        "color": BLUE,
        "markerfacecolor": "none",
        "markersize": 9.0,
        "linestyle": "none",
    },
    "weight_sweep": {
        "marker": "x",
        "color": "black",
        "markersize": 3.5,
        "linewidth": 0.6,
    },
    "greedy_with_replacement": {
        "marker": "D",
        "color": RED,
        "markerfacecolor": "white",
        "markersize": 4.0,
        "linestyle": (0, (5, 1.5, 1, 1.5)),
    },
    "forward_greedy": {
        "marker": "s",
        "color": YELLOW,
        "markeredgecolor": YELLOW_TEXT,
        "markeredgewidth": 0.6,
        "markersize": 5.5,
        "linestyle": (0, (4, 2)),
    },
    "top_k": {
        "marker": "^",
        "color": GREY,
        "markerfacecolor": "white",
        "markersize": 5.5,
        "linestyle": (0, (1, 1.5)),
    },
    "best_single": {"marker": "*", "color": RED, "markersize": 11.5, "linestyle": "none"},
}


def plot_selection_fronts(
    fronts_csv: str | Path,
    comparison_csv: str | Path,
    config: ReportConfig,
    loss: str,
    n_images: int,
    table_csv: str | Path,
    figure_png: str | Path,
    figure_svg: str | Path,
) -> None:
    """Draw each method's front: validation and test error of its ensembles against their cost.

    A front is that of cost and validation loss, so its error may rise where loss and error disagree. Where only the
    true class's probabilities are cached there is no error, and the cross-entropy is drawn. Budgets in seconds are
    vertical lines.

    Args:
        fronts_csv: the study's `fronts.csv`.
        comparison_csv: the study's `comparison.csv`, for the budgets.
        config: width and resolution of the figure.
        loss: the validation loss by which ensembles were selected.
        n_images: images that a cost counts (`library.cost.n_images`).
        table_csv: where the drawn table is written, one row per method and ensemble.
        figure_png: where the PNG is written.
        figure_svg: where the SVG is written.

    Raises:
        ArtefactError: a table is missing, damaged or lacks a column.
        StorageError: an output cannot be written.
    """
    drawn = [f"{split}_{metric}" for metric in dict.fromkeys(("error", loss)) for split in _SPLITS]
    columns = ["method", "combiner", "weight", "n_members", "cost_seconds", *drawn, "members"]
    table = read_csv(fronts_csv, columns)[columns]
    budgets = read_csv(comparison_csv, ["budget", "budget_seconds"], dtype={"budget": str})
    write_csv(table_csv, table)
    metric = "error" if table.valid_error.notna().any() else loss

    height = 2 * _PANEL_HEIGHT_INCHES + _LEGEND_INCHES
    with drawn_figure(config, height, figure_png, figure_svg) as figure:
        panels = dict(zip(_SPLITS, figure.subplots(2, 1, sharex=True), strict=True))
        for split, panel in panels.items():
            for order, (method, look) in enumerate(reversed(_LOOKS.items()), start=2):
                rows = table[table.method == method]
                values = rows[f"{split}_{metric}"] * measure(metric).factor
                panel.plot(rows.cost_seconds, values, zorder=order, **look)
            panel.set(title=f"{_SPLITS[split]} images", ylabel=f"{_SPLITS[split]} {measure(metric).label}")
            scale_by_range(panel.xaxis, table.cost_seconds)
            panel.margins(x=0.04, y=0.08)
            _draw_budgets(panel, budgets, named=split == "valid")
        panels["test"].set_xlabel(f"cost: seconds for {n_images:,} images")
        drawn = [name for name in _LOOKS if (table.method == name).any()]
        legend_above(figure, [Line2D([], [], label=METHOD_NAMES[name], **_LOOKS[name]) for name in drawn])


def _draw_budgets(panel: Axes, budgets: pd.DataFrame, named: bool) -> None:
    limited = budgets.dropna(subset="budget_seconds")
    # Of a budget that limits more than the time (`4x,parameter_bytes=2x`) a line shows the time alone.
    times = limited.budget.str.split(",").str[0]
    for seconds, budget in dict(zip(limited.budget_seconds, times, strict=True)).items():
        panel.axvline(seconds, color=LIGHT, linewidth=0.8, zorder=1)
        if named:
            panel.annotate(
                f"B={budget}",
                (seconds, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-1.5, -1),
                textcoords="offset points",
                ha="right",
                va="top",
                rotation=90,
                fontsize=_BUDGET_POINTS,
                color=GREY,
            )
