"""The figure of the search: every trial's validation metric, epoch by epoch."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ensembleflow.config import ReportConfig
from ensembleflow.io import read_csv, write_csv
from ensembleflow.report.drawing import (
    BLUE,
    GREY,
    RED,
    Look,
    drawn_figure,
    legend_above,
    measure,
    say_empty,
    scale_by_range,
)

__all__ = ["plot_learning_curves"]

_MIN_PANEL_INCHES, _PANEL_HEIGHT_INCHES, _LEGEND_INCHES = 2.0, 2.3, 0.3
# With more epochs the first rungs, a constant factor apart, would fall together on a linear axis.
_MAX_LINEAR_EPOCHS = 12
_FAILED = "failed"


def plot_learning_curves(
    trials_csv: str | Path,
    epochs_csv: str | Path,
    config: ReportConfig,
    metric: str,
    max_epochs: int,
    min_epochs: int,
    reduction_factor: int,
    table_csv: str | Path,
    figure_png: str | Path,
    figure_svg: str | Path,
) -> None:
    """Draw the validation metric of every trial against the epoch, one panel a Hyperband bracket.

    A curve is the darker, the longer its trial was trained; at every rung a dot marks the trials that went on and
    a cross those that were stopped. A bracket into which no trial fell keeps its (empty) panel. A study without
    brackets (random search) has one panel and no rungs.

    Args:
        trials_csv: the study's `trials.csv`.
        epochs_csv: the study's `epochs.csv`.
        config: width and resolution of the figure.
        metric: `error`, `macro_f1_error` or `cross_entropy`.
        max_epochs: epochs of a trial that is never stopped.
        min_epochs: the first rung of bracket 0.
        reduction_factor: Hyperband's; the rungs of bracket b are at min_epochs times its powers b, b + 1, …
        table_csv: where the drawn table is written, one row per trial and epoch.
        figure_png: where the PNG is written.
        figure_svg: where the SVG is written.

    Raises:
        ArtefactError: a table is missing, damaged or lacks a column.
        StorageError: an output cannot be written.
    """
    column = f"valid_{metric}"
    trials = read_csv(trials_csv, ["slot", "state", "bracket", "epochs"])
    epochs = read_csv(epochs_csv, ["slot", "model", "bracket", "epoch", "rung", column])
    table = _tidy(trials, epochs, column, max_epochs)
    write_csv(table_csv, table)

    with_rungs = bool(trials.bracket.notna().any() and epochs.rung.notna().any())
    rungs = _rungs(min_epochs, max_epochs, reduction_factor)
    brackets = sorted({*range(len(rungs)), *trials.bracket.dropna().astype(int)}) if with_rungs else [None]
    n_columns = max(1, min(len(brackets), int(config.figure_width_inches / _MIN_PANEL_INCHES)))
    n_rows = math.ceil(len(brackets) / n_columns)
    with drawn_figure(config, _PANEL_HEIGHT_INCHES * n_rows + _LEGEND_INCHES, figure_png, figure_svg) as figure:
        panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).flatten()
        for panel in panels[len(brackets) - n_columns : len(brackets)]:
            panel.tick_params(labelbottom=True)
        for panel in panels[len(brackets) :]:
            panel.remove()
        scale = measure(metric)
        scale_by_range(panels[0].yaxis, table[column] * scale.factor)
        ends = sorted(table.last_epoch[table.outcome != _FAILED].unique())
        tones = {end: _tone(i, len(ends)) for i, end in enumerate(ends)}
        for panel, bracket in zip(panels, brackets, strict=False):
            within = trials if bracket is None else trials[trials.bracket == bracket]
            curves = table if bracket is None else table[table.bracket == bracket]
            marked = [] if bracket is None else rungs[bracket:]
            _draw_bracket(panel, curves, column, scale.factor, tones, marked)
            panel.set_title(_title(bracket, within))
            if within.empty:
                say_empty(panel, "no trial fell\ninto this bracket")
            else:
                _count_at_rungs(panel, curves, [rung for rung in marked if rung < max_epochs])
        if with_rungs:
            _leave_room_below(panels[0])
        if max_epochs > _MAX_LINEAR_EPOCHS:
            panels[0].set_xscale("log")
            panels[0].set_xlim(0.8, max_epochs * 1.25)
        else:
            panels[0].set_xlim(0.5, max_epochs + 0.5)
        ticks = _ticks(max_epochs, rungs)
        panels[0].set_xticks(ticks, [str(tick) for tick in ticks])
        panels[0].xaxis.set_minor_locator(NullLocator())
        figure.supxlabel("epoch", fontsize="medium")
        figure.supylabel(f"validation {scale.label}", fontsize="medium")
        legend_above(figure, _legend(tones, max_epochs, with_rungs, bool((table.outcome == _FAILED).any())))


def _tidy(trials: pd.DataFrame, epochs: pd.DataFrame, column: str, max_epochs: int) -> pd.DataFrame:
    table = epochs[["bracket", "slot", "model", "epoch", "rung", column]].merge(
        trials[["slot", "state"]], on="slot", how="left", validate="many_to_one"
    )
    table = table.sort_values(["bracket", "slot", "epoch"], kind="stable", ignore_index=True)
    table = table.astype({"bracket": "Int64", "rung": "Int64"})
    table["last_epoch"] = table.groupby("slot").epoch.transform("max")
    stopped = "stopped after epoch " + table.last_epoch.astype(str)
    outcome = stopped.mask(table.last_epoch >= max_epochs, f"all {max_epochs} epochs")
    table["outcome"] = outcome.mask(table.state == "FAIL", _FAILED)
    return table


def _rungs(min_epochs: int, max_epochs: int, reduction_factor: int) -> list[int]:
    """The epochs of bracket 0's rungs; bracket b has those from the b-th on."""
    rungs = [min_epochs]
    while rungs[-1] * reduction_factor <= max_epochs:
        rungs.append(rungs[-1] * reduction_factor)
    return rungs


def _tone(place: int, n_places: int) -> tuple[str, float, float]:
    """Colour, opacity and line width of the trials that ended `place`-th earliest."""
    share = 1.0 if n_places == 1 else place / (n_places - 1)
    grey = round(0xB8 - share * 0x50)
    return (BLUE if share == 1.0 else f"#{grey:02x}{grey:02x}{grey:02x}"), 0.55 + 0.35 * share, 0.6 + 0.4 * share


def _draw_bracket(
    panel: Axes,
    curves: pd.DataFrame,
    column: str,
    factor: float,
    tones: dict[int, tuple[str, float, float]],
    rungs: list[int],
) -> None:
    for epoch in rungs:
        panel.axvline(epoch, color=GREY, linewidth=0.7, linestyle=(0, (1, 2)), zorder=0.5)
        panel.plot([epoch], [0], marker="^", color=GREY, transform=panel.get_xaxis_transform(), clip_on=False)
    for _slot, curve in sorted(curves.groupby("slot"), key=lambda item: (item[1].last_epoch.iloc[0], item[0])):
        values = curve[column] * factor
        end = curve.last_epoch.iloc[0]
        failed = curve.outcome.iloc[0] == _FAILED
        colour, opacity, width = (RED, 0.9, 0.9) if failed else tones[end]
        order = 2 + end / 1000
        style = (0, (3, 1.5)) if failed else "-"
        look: Look = {"color": colour, "alpha": opacity, "linewidth": width, "linestyle": style, "zorder": order}
        # A line through one point would not be seen.
        panel.plot(curve.epoch, values, marker="." if len(curve) == 1 else "", **look)
        passed = curve.epoch.isin(rungs) & (curve.epoch < end)
        stopped = (curve.epoch == end) & curve.epoch.isin(rungs) & curve.outcome.str.startswith("stopped")
        dots: Look = {"color": colour, "linestyle": "none", "zorder": order + 1}
        panel.plot(curve.epoch[passed], values[passed], marker="o", markersize=2.6, **dots)
        panel.plot(curve.epoch[stopped], values[stopped], marker="x", markersize=3.4, **dots)
        if failed:
            panel.plot(curve.epoch.iloc[-1:], values.iloc[-1:], marker="X", markersize=4.5, **dots)


def _count_at_rungs(panel: Axes, curves: pd.DataFrame, rungs: list[int]) -> None:
    trials = curves.drop_duplicates("slot")
    for epoch in rungs:
        stopped = int(((trials.last_epoch == epoch) & (trials.outcome != _FAILED)).sum())
        went_on = int((trials.last_epoch > epoch).sum())
        panel.annotate(
            f"× {stopped}\n• {went_on}",
            (epoch, 0.0),
            xycoords=panel.get_xaxis_transform(),
            xytext=(3, 4),
            textcoords="offset points",
            va="bottom",
            fontsize=6.8,
            color=GREY,
        )


def _leave_room_below(panel: Axes) -> None:
    """Lower the y axis by a sixth of its length, for the counts at the rungs."""
    transform = panel.yaxis.get_transform()
    low, high = transform.transform(panel.get_ylim())
    panel.set_ylim(bottom=float(transform.inverted().transform([low - (high - low) / 6])[0]))


def _title(bracket: int | None, trials: pd.DataFrame) -> str:
    n_failed = int((trials.state == "FAIL").sum())
    count = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}" + (f", {n_failed} failed" if n_failed else "")
    return count if bracket is None else f"bracket {bracket}: {count}"


def _ticks(max_epochs: int, rungs: list[int]) -> list[int]:
    """All epochs where they are few, else the rungs, and the last epoch where it is clear of the last rung."""
    if max_epochs <= _MAX_LINEAR_EPOCHS:
        return list(range(1, max_epochs + 1))
    return [*(rung for rung in rungs if rung <= max_epochs / 1.4), max_epochs]


def _legend(
    tones: dict[int, tuple[str, float, float]], max_epochs: int, with_rungs: bool, any_failed: bool
) -> list[Line2D]:
    handles = []
    for end, (colour, opacity, width) in sorted(tones.items()):
        stopped = end < max_epochs
        label = f"stopped after epoch {end}" if stopped else f"all {max_epochs} epochs"
        mark = "x" if stopped and with_rungs else None
        handles.append(Line2D([], [], color=colour, alpha=opacity, linewidth=width, marker=mark, label=label))
    if any_failed:
        handles.append(Line2D([], [], color=RED, linestyle=(0, (3, 1.5)), marker="X", label=_FAILED))
    if with_rungs:
        handles.append(Line2D([], [], color=GREY, linestyle="none", marker="o", markersize=2.6, label="went on"))
        handles.append(Line2D([], [], color=GREY, linestyle=(0, (1, 2)), marker="^", label="rung"))
    return handles
