"""What every figure shares: its look, its files, its axes of errors and costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from ensembleflow.config import ReportConfig
from ensembleflow.io import atomic_path

__all__ = [
    "BLUE",
    "GREY",
    "LIGHT",
    "RED",
    "WIDE_INCHES",
    "YELLOW",
    "YELLOW_TEXT",
    "Look",
    "Measure",
    "as_bool",
    "drawn_figure",
    "legend_above",
    "measure",
    "plain_number",
    "say_empty",
    "scale_by_range",
]

BLUE, YELLOW, RED = "#004488", "#ddaa33", "#bb5566"
# Yellow text on white cannot be read.
YELLOW_TEXT = "#7a5600"
GREY, LIGHT = "#606060", "#b4b4b4"

# Keyword arguments of one kind of mark, shared by the drawing and its legend.
Look = dict[str, Any]

_STYLE = Path(__file__).with_name("ensembleflow.mplstyle")
# Narrower figures stack what others put side by side.
WIDE_INCHES = 4.5
_MAX_LEGEND_COLUMNS = 6
_LOG_RATIO = 5.0
# Over more decades than this, labels at 2 and 5 would touch.
_LABELLED_DECADES = 2.2


@dataclass(frozen=True)
class Measure:
    """How a metric of the tables is drawn: its name with the unit, and the factor from the table to the axis."""

    label: str
    factor: float


_MEASURES = {
    "error": Measure("error (%)", 100.0),
    "macro_f1_error": Measure("1 − macro F1 (%)", 100.0),
    "cross_entropy": Measure("cross-entropy (nats)", 1.0),
    "brier": Measure("Brier score", 1.0),
}


def measure(metric: str) -> Measure:
    """How `metric` (`error`, `macro_f1_error`, `cross_entropy` or `brier`) is drawn."""
    return _MEASURES[metric]


@contextmanager
def drawn_figure(
    config: ReportConfig, height_inches: float, png: str | Path, svg: str | Path, provenance: str | None = None
) -> Iterator[Figure]:
    """Yield an empty figure to draw on, in the package's style; it is saved when the block ends well.

    Args:
        config: gives the width and the PNG's resolution.
        height_inches: the figure's height.
        png: where the PNG is written, `figure_width_inches` × `dpi` pixels wide.
        svg: where the SVG is written.
        provenance: what the figure was drawn from, for the files' metadata (`Description`).

    The files carry no date and no version of the drawing software: the same drawing gives the same bytes.

    Raises:
        StorageError: a file cannot be written.
    """
    told = {} if provenance is None else {"Description": provenance}
    # "default" first: a user's own matplotlibrc must not change the figures.
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(config.figure_width_inches, height_inches), dpi=config.dpi, layout="constrained")
        yield figure
        with atomic_path(png) as aside:
            figure.savefig(aside, format="png", dpi=config.dpi, metadata={"Software": None, **told})
        with atomic_path(svg) as aside:
            figure.savefig(aside, format="svg", dpi=config.dpi, metadata={"Date": None, "Creator": None, **told})


def scale_by_range(axis: Axis, values: pd.Series | np.ndarray) -> None:
    """Make `axis` logarithmic where its values are positive and span a factor of five, else linear.

    Ticks are plain numbers (2, 5, 10 …), never powers of ten.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0 or finite.min() <= 0 or finite.max() < _LOG_RATIO * finite.min():
        return
    if axis is axis.axes.xaxis:
        axis.axes.set_xscale("log")
    else:
        axis.axes.set_yscale("log")
    axis.set_major_formatter(plain_number)
    decades = np.log10(finite.max() / finite.min())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < _LABELLED_DECADES else (1.0,)))
    axis.set_minor_locator(NullLocator() if decades < _LABELLED_DECADES else LogLocator(subs=(2.0, 5.0)))
    axis.set_minor_formatter(NullFormatter())


def plain_number(value: float, _position: float | None = None) -> str:
    """A tick's label as 0.5, 20 or 10,000."""
    return f"{value:,.10g}"


def legend_above(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Put a legend above the panels, in as few rows as the figure's width allows."""
    for n_columns in range(min(len(handles), _MAX_LEGEND_COLUMNS), 0, -1):
        legend = figure.legend(handles=handles, loc="outside upper center", ncols=n_columns)
        if n_columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def as_bool(column: pd.Series) -> pd.Series:
    """A column of True and False as booleans, however pandas read it; an empty field is False."""
    return column.astype(str).str.lower().eq("true")


def say_empty(axes: Axes, text: str) -> None:
    """Write `text` in the middle of axes that have nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, style="italic")
