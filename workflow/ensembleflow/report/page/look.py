"""How the page's plots look, in light and in dark: colours, axes, text of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

__all__ = [
    "ACCENT",
    "BAND",
    "DARK",
    "FAINT",
    "INK",
    "LINE",
    "QUIET",
    "RED",
    "SECOND",
    "STYLED",
    "SURFACE",
    "count_axis",
    "figure",
    "log_ticks",
    "percent",
    "plain",
    "seconds",
    "value_axis",
]

INK, QUIET, LINE, SURFACE = "#1c2430", "#5a6675", "#dde3ea", "#ffffff"
ACCENT, SECOND, RED, FAINT, BAND = "#0a5bb0", "#b45f06", "#b3263e", "#9aa5b1", "#c3d7ee"

# What each colour becomes on a dark ground; the page exchanges them in plots and styles.
DARK = {
    INK: "#e8edf3",
    QUIET: "#a3afbd",
    LINE: "#2d3744",
    SURFACE: "#171d26",
    ACCENT: "#74b4ff",
    SECOND: "#f2a65a",
    RED: "#ff8095",
    FAINT: "#697585",
    BAND: "#2b4666",
}

# Those that the page's styles share with its plots, by the names of their variables.
STYLED = {"ink": INK, "quiet": QUIET, "line": LINE, "surface": SURFACE, "accent": ACCENT}

_LOG_RATIO = 5.0
_MAX_LABELLED_TICKS = 8


def figure(x_title: str, y_title: str, height: int = 360, **axes: Any) -> go.Figure:
    """An empty plot in the page's look.

    Args:
        x_title: what the x axis shows, with its unit.
        y_title: likewise.
        height: pixels.
        axes: `xaxis` and `yaxis`, more of these axes.
    """
    axis = {
        "gridcolor": LINE,
        "linecolor": LINE,
        "zeroline": False,
        "automargin": True,
        "tickfont": {"color": QUIET, "size": 12},
        "title": {"font": {"color": INK, "size": 13}, "standoff": 10},
        "exponentformat": "none",
    }
    template = go.layout.Template(
        layout={
            "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
            "paper_bgcolor": SURFACE,
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": SURFACE, "bordercolor": FAINT, "font": {"color": INK}, "align": "left"},
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "margin": {"l": 12, "r": 12, "t": 12, "b": 12},
            "colorway": [ACCENT, SECOND, QUIET, RED],
        }
    )
    made = go.Figure(layout={"template": template, "height": height, "hovermode": "closest"})
    made.update_xaxes(title_text=x_title, **axes.get("xaxis", {}))
    made.update_yaxes(title_text=y_title, **axes.get("yaxis", {}))
    return made


def value_axis(values: Iterable[float], *, room: float = 0.06) -> dict[str, Any]:
    """An axis that holds `values`: logarithmic where they are positive and span a factor of five, else linear.

    Args:
        values: what is drawn; what is not finite is left out.
        room: left free at either end, as a share of the axis.
    """
    finite = np.asarray(list(values), dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return {}
    low, high = float(finite.min()), float(finite.max())
    if low <= 0 or high < _LOG_RATIO * low:
        gap = (high - low) * room or abs(high) * room or 1.0
        return {"range": [max(low - gap, 0.0) if low >= 0 else low - gap, high + gap], "tickformat": ","}
    exponents = math.log10(low), math.log10(high)
    gap = (exponents[1] - exponents[0]) * room
    ends = [exponents[0] - gap, exponents[1] + gap]
    ticks = log_ticks(10 ** ends[0], 10 ** ends[1])
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": [plain(tick) for tick in ticks]}


def log_ticks(low: float, high: float) -> list[float]:
    """The numbers 1, 2, 5, 10 … from `low` to `high`, or only the powers of ten where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
    return (
        ticks if len(ticks) <= _MAX_LABELLED_TICKS else [10.0**power for power in powers if low <= 10.0**power <= high]
    )


def count_axis(largest: int) -> dict[str, Any]:
    """An axis of whole numbers from 1 on."""
    return {"range": [0.5, largest + 0.5], "tickformat": ",d", "dtick": max(1, math.ceil(largest / 10))}


def plain(value: float) -> str:
    """A number as 0.00001, 0.5, 20 or 10,000."""
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def percent(share: float | None, digits: int = 2) -> str:
    """A share of 1 in percent; a dash where it is not known."""
    return "–" if share is None or not math.isfinite(share) else f"{share * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    if value < 1:
        text = f"{value * 1000:,.3g} ms"
    elif value < 120:
        text = f"{value:,.3g} s"
    else:
        text = f"{value / 60:,.1f} min" if value < 7200 else f"{value / 3600:,.1f} h"
    return text.replace(" ", "\N{NO-BREAK SPACE}")
