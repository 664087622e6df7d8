"""The selection: how SMOBF chose, and what other methods would have chosen from the same models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ensembleflow.report.drawing import measure
from ensembleflow.report.method_names import METHOD_NAMES
from ensembleflow.report.page.blocks import Block, Drawing, Section, Table, guarded, rows_of
from ensembleflow.report.page.cascades import cascades
from ensembleflow.report.page.look import (
    ACCENT,
    INK,
    QUIET,
    RED,
    SECOND,
    figure,
    percent,
    plain,
    value_axis,
)
from ensembleflow.report.page.study import Study

__all__ = ["selection"]

_LOOKS: dict[str, tuple[str, str, str]] = {
    "smobf": (ACCENT, "circle", "solid"),
    "exact": (ACCENT, "circle-open", "dot"),
    "weight_sweep": (INK, "x-thin-open", "dash"),
    "greedy_with_replacement": (RED, "diamond-open", "dashdot"),
    "forward_greedy": (SECOND, "square", "dash"),
    "top_k": (QUIET, "triangle-up-open", "dot"),
    "best_single": (RED, "star", "solid"),
}


def selection(study: Study) -> Section:
    """The section of the selection."""
    intro = (
        "SMOBF adds the member that lowers validation loss plus weighted cost most, and stops when none does or none "
        "fits the budget. Other methods chose from the same models."
    )
    return Section("selection", "Selection", intro, guarded(_trace, _fronts, cascades, _comparison, study=study))


def _trace(study: Study) -> Iterator[Block]:
    """Each step of each greedy run of a budget: loss against cost."""
    columns = ["budget", "method", "weight", "step", "model", "loss", "cost_seconds", "runners_up", "stop_reason"]
    trace = study.csv("selection/trace.csv", columns)
    steps = trace[trace.model.notna()]
    chosen = {
        budget: study.json(f"selection/budget-{budget}.json", ["weight", "loss"])
        for budget in study.budgets
        if (trace.budget == budget).any()
    }
    losses = {str(each["loss"]) for each in chosen.values()}
    unit = measure(losses.pop()).label if len(losses) == 1 else "loss"
    plot = figure(f"cost: seconds for {study.n_images:,} images", f"validation {unit}", 380)
    factor = 100 if unit.endswith("(%)") else 1
    tables = []
    for budget in chosen:
        runs = [
            (method == "smobf" and _same(weight, chosen[budget]["weight"]), method, weight, run)
            for (method, weight), run in trace[trace.budget == budget].groupby(
                ["method", "weight"], dropna=False, sort=False
            )
        ]
        for taken, method, weight, run in sorted(runs, key=lambda each: each[0]):  # the one taken on top
            path = run[run.model.notna()]
            colour, symbol, dash = _LOOKS["forward_greedy" if method != "smobf" else "smobf"]
            if method == "smobf" and not taken:
                colour, symbol, dash = QUIET, "circle-open", "dot"
            plot.add_scatter(
                x=path.cost_seconds,
                y=path.loss * factor,
                mode="lines+markers",
                line={"color": colour, "dash": dash, "width": 2 if taken else 1.3},
                marker={"symbol": symbol, "size": 9 if taken else 12},
                name=_run_name(str(method), weight) + (", chosen" if taken else ""),
                text=[f"step {row.step}: {row.model}" for row in rows_of(path)],
                hovertemplate="%{text}<br>%{x:.3g} s, %{y:.4g}<extra></extra>",
                meta={"budget": budget},
            )
        tables.append(_steps(budget, trace[trace.budget == budget], chosen[budget]["weight"]))
    description = (
        "Each line is one greedy run for the chosen budget, from its first member on: to the right costs more, lower "
        "is better. The run that gave the ensemble is solid; the others used another weight of the cost, or none."
    )
    rows = [
        [
            row.budget,
            _run_name(row.method, row.weight),
            f"{row.step}",
            row.model,
            f"{row.loss:.5g}",
            f"{row.cost_seconds:.4g}",
        ]
        for row in rows_of(steps)
    ]
    columns = ["budget", "run", "step", "model added", "loss", "cost (s)"]
    table = Table("All steps", columns, rows, ["selection/trace.csv"], folded=True)
    yield Drawing("trace", "How the members were chosen", description, [("", plot)], table, by_budget=True)
    yield from tables


def _steps(budget: str, trace: pd.DataFrame, weight: float | None) -> Table:
    """The steps of the run that gave a budget's ensemble, with what came close."""
    run = trace[(trace.method == "smobf") & trace.weight.map(lambda own: _same(own, weight))]
    rows = []
    for row in run.to_dict("records"):
        added = str(row["model"]) if pd.notna(row["model"]) else "–"
        if pd.notna(row.get("removed", np.nan)):
            added += f", without {row['removed']}"
        close = [] if pd.isna(row["runners_up"]) else [each.rsplit(":", 1) for each in row["runners_up"].split()]
        why = "" if pd.isna(row["stop_reason"]) else str(row["stop_reason"])
        numbers = [f"{row['loss']:.5g}", f"{row['cost_seconds']:.4g}", f"{row['score']:.5g}" if "score" in row else "–"]
        rows.append(
            [f"{row['step']}", added, *numbers, ", ".join(f"{model} {float(score):.4g}" for model, score in close), why]
        )
    columns = ["step", "member added", "loss", "cost (s)", "score", "runners-up and their scores", "why it stopped"]
    caption = f"Budget {budget}: {_run_name('smobf', weight)}, step by step"
    return Table(caption, columns, rows, ["selection/trace.csv"], budget=budget)


def _fronts(study: Study) -> Iterator[Block]:
    """What each method could have had for what cost."""
    needed = ["method", "n_members", "members", "cost_seconds", "test_error", "test_cross_entropy"]
    fronts = study.csv("selection/fronts.csv", needed)
    metric = "error" if fronts.test_error.notna().any() else "cross_entropy"
    scale = measure(metric)
    values = fronts[f"test_{metric}"] * scale.factor
    plot = figure(f"cost: seconds for {study.n_images:,} images", f"test {scale.label}", 420)
    plot.update_xaxes(value_axis(fronts.cost_seconds))
    plot.update_yaxes(value_axis(values, room=0.1))
    for method, (colour, symbol, dash) in _LOOKS.items():
        own = fronts[fronts.method == method]
        if own.empty:
            continue
        plot.add_scatter(
            x=own.cost_seconds,
            y=values[own.index],
            mode="markers" if method in ("exact", "best_single") else "lines+markers",
            line={"color": colour, "dash": dash, "width": 2.2 if method == "smobf" else 1.2},
            marker={"symbol": symbol, "size": 14 if method in ("exact", "best_single") else 9, "color": colour},
            name=METHOD_NAMES[method],
            text=[f"{row.n_members} members" for row in rows_of(own)],
            hovertemplate="%{text}: %{x:.3g} s, %{y:.4g}<extra>" + METHOD_NAMES[method] + "</extra>",
        )
    plot.update_traces(cliponaxis=False)
    rows = [
        [
            METHOD_NAMES.get(row.method, row.method),
            f"{row.n_members}",
            f"{row.cost_seconds:.4g}",
            f"{value:.4g}",
            row.members,
        ]
        for row, value in zip(rows_of(fronts), values, strict=True)
    ]
    columns = ["method", "members", "cost (s)", f"test {scale.label}", "which"]
    table = Table("Fronts", columns, rows, ["selection/fronts.csv"], folded=True)
    description = (
        "The ensembles of each method that none of its others beats in both cost and validation loss. They are drawn "
        "by their outcome on the test images, so a front may rise."
    )
    yield Drawing("fronts", "Against other methods", description, [("", plot)], table)


def _comparison(study: Study) -> Iterator[Block]:
    """All methods and combiners within each budget."""
    needed = ["budget", "method", "combiner", "n_members", "cost_seconds", "valid_cross_entropy", "test_error"]
    comparison = study.csv("selection/comparison.csv", [*needed, "test_cross_entropy", "test_calibration_error"])
    for budget in study.budgets:
        own = comparison[comparison.budget == budget]
        rows = [
            [
                METHOD_NAMES.get(row.method, row.method),
                row.combiner.replace("_", " "),
                f"{row.n_members}",
                f"{row.cost_seconds:.4g}",
                f"{row.valid_cross_entropy:.4f}",
                f"{row.test_cross_entropy:.4f}",
                percent(row.test_error),
                percent(row.test_calibration_error),
            ]
            for row in rows_of(own)
        ]
        columns = ["method", "combiner", "members", "cost (s)", "validation cross-entropy", "test cross-entropy"]
        columns += ["test error", "calibration error"]
        caption = f"Budget {budget}: every method and combiner"
        yield Table(caption, columns, rows, ["selection/comparison.csv"], budget=budget, folded=True)


def _same(weight: Any, other: Any) -> bool:
    return bool(weight == other) or bool(pd.isna(weight) and pd.isna(other))


def _run_name(method: str, weight: Any) -> str:
    name = METHOD_NAMES.get(method, method.replace("_", " "))
    return name if weight is None or pd.isna(weight) else f"{name}, weight {plain(weight)}"
