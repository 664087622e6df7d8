"""The figure of the library: how good, how large and how slow its models are, and which were kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ensembleflow.config import ReportConfig
from ensembleflow.io import read_csv, write_csv
from ensembleflow.report.drawing import (
    BLUE,
    GREY,
    LIGHT,
    WIDE_INCHES,
    Look,
    as_bool,
    drawn_figure,
    legend_above,
    measure,
    say_empty,
    scale_by_range,
)

__all__ = ["plot_library_distribution"]

_HEIGHT_INCHES, _PANEL_HEIGHT_INCHES = 3.4, 2.2
_MARKERS = {True: "o", False: "v"}


def plot_library_distribution(
    models_csv: str | Path,
    costs_csv: str | Path,
    config: ReportConfig,
    metric: str,
    table_csv: str | Path,
    figure_png: str | Path,
    figure_svg: str | Path,
) -> None:
    """Draw all models ranked by the validation metric, and their size and cost against it.

    Kept models are filled; triangles are trials that were stopped early. Models that were dropped are not on the
    ranks' axis but counted with the reason. Costs are known for kept models only; their bars span the quartiles of
    the repeats.

    Args:
        models_csv: the library's `models.csv`.
        costs_csv: the library's `costs.csv`.
        config: width and resolution of the figure.
        metric: the metric that ranks the library: `error`, `macro_f1_error` or `cross_entropy`.
        table_csv: where the drawn table is written, one row per model.
        figure_png: where the PNG is written.
        figure_svg: where the SVG is written.

    Raises:
        ArtefactError: a table is missing, damaged or lacks a column.
        StorageError: an output cannot be written.
    """
    column = f"valid_{metric}"
    model_columns = ["rank", "model", "slot", "kept", "dropped", "state", "epochs", column, "n_parameters"]
    models = read_csv(models_csv, model_columns)
    cost_columns = ["cost_seconds", "cost_seconds_q25", "cost_seconds_q75"]
    costs = read_csv(costs_csv, ["model", "n_images", *cost_columns])
    table = models[model_columns].merge(
        costs[["model", "n_images", *cost_columns]], on="model", how="left", validate="one_to_one"
    )
    table = table.astype({"rank": "Int64", "n_parameters": "Int64", "n_images": "Int64"})
    table["kept"] = as_bool(table.kept)
    # By epochs, not by state: Optuna also prunes trials at their very last epoch.
    table["trained_fully"] = table.epochs >= table.epochs.max()
    table = table.sort_values(["rank", "slot"], kind="stable", ignore_index=True)
    write_csv(table_csv, table)

    scale = measure(metric)
    ranked = table[table["rank"].notna()].assign(drawn=lambda rows: rows[column] * scale.factor)
    wide = config.figure_width_inches >= WIDE_INCHES
    height = _HEIGHT_INCHES if wide else 3 * _PANEL_HEIGHT_INCHES
    with drawn_figure(config, height, figure_png, figure_svg) as figure:
        mosaic: Any = (
            [["ranks", "ranks", "size"], ["ranks", "ranks", "cost"]] if wide else [["ranks"], ["size"], ["cost"]]
        )
        panels = figure.subplot_mosaic(mosaic)
        _draw_ranks(panels["ranks"], table, ranked)
        _draw_against(panels["size"], ranked, ranked.n_parameters.astype(float) / 1000)
        scale_by_range(panels["size"].xaxis, ranked.n_parameters.astype(float) / 1000)
        panels["size"].set(title="size of all models", xlabel="parameters (thousands)")
        timed = ranked[ranked.cost_seconds.notna()]
        _draw_costs(panels["cost"], timed)
        for panel in panels.values():
            scale_by_range(panel.yaxis, ranked.drawn if panel is not panels["cost"] else timed.drawn)
            panel.set_ylabel(f"validation {scale.label}")
            if ranked.empty:
                say_empty(panel, "no model")
        legend_above(figure, _legend(ranked))


def _draw_ranks(panel: Axes, table: pd.DataFrame, ranked: pd.DataFrame) -> None:
    n_kept = int(ranked.kept.sum())
    _draw_against(panel, ranked, ranked["rank"].astype(float))
    panel.axvline(n_kept + 0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    panel.set(title=f"{n_kept} of {len(table)} models kept", xlabel="rank in the library")
    panel.set_xlim(0, max(len(ranked), 1) + 1)
    reasons = table.dropped[table["rank"].isna()].fillna("dropped").value_counts().sort_index()
    if not reasons.empty:
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        panel.text(0.02, 0.96, f"dropped: {counts}", transform=panel.transAxes, va="top", color=GREY, bbox=ground)


def _draw_costs(panel: Axes, timed: pd.DataFrame) -> None:
    bars = [timed.cost_seconds - timed.cost_seconds_q25, timed.cost_seconds_q75 - timed.cost_seconds]
    panel.errorbar(timed.cost_seconds, timed.drawn, xerr=bars, fmt="none", ecolor=LIGHT, elinewidth=1.2)
    _draw_against(panel, timed, timed.cost_seconds)
    scale_by_range(panel.xaxis, timed.cost_seconds)
    n_images = f"{timed.n_images.iloc[0]:,}" if len(timed) else "n"
    panel.set(title="cost of the kept", xlabel=f"seconds for {n_images} images")


def _draw_against(panel: Axes, models: pd.DataFrame, across: pd.Series) -> None:
    """Dots of the models' metric over `across`; the kept last, so that they lie on top."""
    for kept in (False, True):
        for complete in (False, True):
            rows = (models.kept == kept) & (models.trained_fully == complete)
            panel.plot(
                across[rows],
                models.drawn[rows],
                linestyle="none",
                marker=_MARKERS[complete],
                markersize=4.2 if kept else 3.4,
                markerfacecolor=BLUE if kept else "white",
                markeredgecolor=BLUE if kept else LIGHT,
                markeredgewidth=0.8,
                zorder=3 if kept else 2,
            )


def _legend(ranked: pd.DataFrame) -> list[Line2D]:
    style: Look = {"linestyle": "none", "markeredgewidth": 0.8}
    kept: Look = {"markerfacecolor": BLUE, "markeredgecolor": BLUE, **style}
    not_kept: Look = {"markerfacecolor": "white", "markeredgecolor": LIGHT, **style}
    return [
        Line2D([], [], marker=_MARKERS[complete], label=f"{name}, {training}", **look)
        for name, look in (("kept", kept), ("not kept", not_kept))
        for complete, training in ((True, "trained fully"), (False, "stopped early"))
        if ((ranked.kept == (name == "kept")) & (ranked.trained_fully == complete)).any()
    ]
