"""Parallel coordinates: every trial's hyperparameters and outcome in one figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ensembleflow.report.drawing import measure
from ensembleflow.report.page.blocks import Drawing, Table
from ensembleflow.report.page.look import ACCENT, FAINT, INK, LINE, QUIET, figure, log_ticks, plain
from ensembleflow.report.page.study import Study
from ensembleflow.search.tables import hyperparameter_columns

__all__ = ["parallel_coordinates"]

_LOG_RATIO = 20.0
_PIXELS_PER_AXIS = 61


def parallel_coordinates(study: Study) -> Drawing:
    """The hyperparameters of all trials that have a metric, the better the darker; constant ones are left out.

    Raises:
        ArtefactError: the table of trials is missing or damaged.
    """
    column, scale = f"valid_{study.metric}", measure(study.metric)
    trials = study.csv("search/trials.csv", ["model", "epochs", column])
    hyperparameters = hyperparameter_columns(trials)
    trials = trials[trials[column].notna()].sort_values(column, ascending=False, kind="stable", ignore_index=True)
    # Of several families, each trial has its own's only.
    shared = [name for name in hyperparameters if trials[name].notna().all()]
    names = [name for name in shared if trials[name].nunique() > 1]
    constant = [name for name in shared if name not in names]
    values = trials[column] * scale.factor
    places = values.rank(pct=True)
    dimensions = [_dimension(scale.label, values), _dimension("epochs", trials.epochs)]
    dimensions += [_dimension(name.replace("_", " "), trials[name]) for name in names]
    plot = figure("", "", 460)
    plot.add_trace(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": places,
                "colorscale": [[0.0, ACCENT], [0.25, ACCENT], [0.25, FAINT], [1.0, LINE]],
                "cmin": 0.0,
                "cmax": 1.0,
            },
            labelangle=-28,
            labelfont={"color": INK, "size": 12},
            tickfont={"color": QUIET, "size": 11},
            rangefont={"color": QUIET, "size": 10},
            unselected={"line": {"color": FAINT, "opacity": 0.08}},
        )
    )
    plot.update_layout(margin={"l": 46, "r": 112, "t": 100, "b": 30})
    best = trials.iloc[::-1].head(3)
    description = (
        f"Each line is one of {len(trials)} trials: blue is the best quarter by validation {scale.label}, the others "
        f"are the fainter the worse. Drag along an axis to keep only the trials in that range, tap it to have all "
        f"back. The best: {', '.join(best.model)}."
    )
    if constant:
        description += f" The same in all trials: {', '.join(f'{name} {trials[name].iloc[0]}' for name in constant)}."
    if len(shared) < len(hyperparameters):
        description += " Hyperparameters that only one of the families has are left out."
    columns = ["trial", f"validation {scale.label}", "epochs", *(name.replace("_", " ") for name in names)]
    rows = [
        [
            str(row["model"]),
            f"{row[column] * scale.factor:.4g}",
            f"{row['epochs']}",
            *(_text(row[name]) for name in names),
        ]
        for row in trials.iloc[::-1].to_dict("records")
    ]
    table = Table("Trials, the best first", columns, rows, ["search/trials.csv"], folded=True)
    width = _PIXELS_PER_AXIS * len(dimensions)
    return Drawing(
        "hyperparameters",
        "Parallel coordinates of the hyperparameters",
        description,
        [("", plot)],
        table,
        min_width=width,
    )


def _dimension(label: str, values: pd.Series) -> dict[str, Any]:
    """One axis: by name for words, by decades for what spans many, else linear."""
    if not pd.api.types.is_numeric_dtype(values):
        words = sorted(values.unique())
        codes = [words.index(word) for word in values]
        return {"label": label, "values": codes, "tickvals": list(range(len(words))), "ticktext": words}
    numbers = values.to_numpy(dtype=float)
    if numbers.min() > 0 and numbers.max() > _LOG_RATIO * numbers.min():
        ticks = log_ticks(numbers.min(), numbers.max())
        shown = {"tickvals": np.log10(ticks), "ticktext": [plain(tick) for tick in ticks]}
        return {"label": label, "values": np.log10(numbers), **shown}
    distinct = np.unique(numbers)
    whole = {"tickvals": distinct} if len(distinct) <= 6 and (distinct == np.round(distinct)).all() else {}
    return {"label": label, "values": numbers, **whole}


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
