"""The allocation: every allocation that was measured, and where the members ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ensembleflow.config import MEASURED, SIMULATED, is_simulated
from ensembleflow.models.engines import DEFAULT_ENGINE
from ensembleflow.report.drawing import as_bool
from ensembleflow.report.page.blocks import Block, Drawing, Section, Table, guarded, rows_of
from ensembleflow.report.page.look import ACCENT, FAINT, RED, SECOND, SURFACE, figure
from ensembleflow.report.page.study import Study

__all__ = ["allocation"]


def allocation(study: Study) -> Section:
    """The section of the allocation."""
    intro = (
        "Worst-fit places the members by memory; then devices and batch sizes are changed one at a time, and a change "
        "is kept where the whole ensemble became faster."
    )
    return Section("allocation", "Allocation", intro, guarded(_benches, study=study))


def _benches(study: Study) -> Iterator[Block]:
    """The score of each bench in the order run, and the members' places, of the largest number of devices."""
    n_devices = study.n_devices
    keys = ["members", "devices", "images_per_second", "stop_reason"]
    columns = ["bench", "move", "accepted", "images_per_second", "images_per_second_q25", "images_per_second_q75"]
    plot = figure("bench, in the order run", "", 380)
    gains, rows, tables = [], [], []
    column, unit, how = "images_per_second", "images/s", MEASURED
    for budget in study.budgets:
        folder = f"allocation/budget-{budget}"
        found = study.json(f"{folder}/devices-{n_devices}.json", keys)
        column, unit = _score(found)
        how = SIMULATED if is_simulated(found) else MEASURED
        benches = study.csv(f"{folder}/search-{n_devices}.csv", [*columns, column, "failure"])
        benches = benches.sort_values("bench", ignore_index=True)
        failed = benches.failure.notna() & (benches.failure != "") | benches[column].isna()
        benches = benches.assign(
            accepted=as_bool(benches.accepted) | (benches.move == "start"), failed=failed, score=benches[column]
        )
        _draw(plot, budget, benches, with_quartiles=column == "images_per_second")
        start, end = benches.score.iloc[0], benches.score[benches.accepted & ~failed].iloc[-1:].max()
        change = f"from {start:,.4g} to {end:,.4g}" if end != start else f"stays at {end:,.4g}"
        gains.append(f"budget {budget} {change} {unit}")
        rows += [
            [
                budget,
                f"{row.bench}",
                row.move,
                "yes" if row.accepted else "no",
                "failed" if row.failed else f"{row.score:,.4g}",
                row.failure if row.failed else "",
            ]
            for row in rows_of(benches)
        ]
        tables.append(_places(budget, found))
    plot.update_xaxes(tickformat=",d")
    plot.update_yaxes(rangemode="tozero", tickformat=",", title_text=unit)
    plot.update_traces(cliponaxis=False)
    columns = ["budget", "bench", "move", "accepted", unit, "failure"]
    sources = [f"allocation/budget-{budget}/search-{n_devices}.csv" for budget in study.budgets]
    table = Table("Benches", columns, rows, sources, folded=True)
    bars = "bars are quartiles, " if column == "images_per_second" else ""
    description = (
        f"Each dot is an allocation {how} on {n_devices} device{'' if n_devices == 1 else 's'}, {bars}the line follows "
        f"the accepted ones: {'; '.join(gains)}."
    )
    yield Drawing("benches", f"Allocations {how}", description, [("", plot)], table, by_budget=True)
    yield from tables


def _score(allocation: dict[str, Any]) -> tuple[str, str]:
    """The column of the benches that the refinement improved, and its unit."""
    objective = str(allocation.get("bench", {}).get("objective", "throughput"))
    if objective == "throughput":
        return "images_per_second", "images/s"
    return f"{objective}_ms", f"latency {objective.removeprefix('latency_')} (ms)"


def _draw(plot: go.Figure, budget: str, benches: pd.DataFrame, *, with_quartiles: bool) -> None:
    last = int(benches.bench.max())
    only = {"meta": {"budget": budget}, "hoverinfo": "skip"}
    plot.add_scatter(
        x=[0.5, last + 0.5],
        y=[benches.score.iloc[0]] * 2,
        mode="lines",
        name="worst-fit",
        line={"color": SECOND, "dash": "dot", "width": 1.5},
        **only,
    )
    path = benches[benches.accepted & ~benches.failed]
    plot.add_scatter(
        x=[*path.bench, last],
        y=[*path.score, *path.score.tail(1)],
        mode="lines",
        line={"color": ACCENT, "shape": "hv", "width": 2},
        name="current allocation",
        **only,
    )
    others = benches[~benches.accepted & ~benches.failed]
    hollow = {"color": SURFACE, "size": 9, "line": {"color": FAINT, "width": 2}}
    for name, own, marker in (
        ("accepted", path, {"color": ACCENT, "size": 10}),
        ("not accepted", others, hollow),
        ("failed", benches[benches.failed].assign(score=0.0), {"color": RED, "size": 9, "symbol": "x"}),
    ):
        if own.empty:
            continue
        plot.add_scatter(
            x=own.bench,
            y=own.score,
            mode="markers",
            marker=marker,
            name=name,
            text=own.move,
            error_y={
                "type": "data",
                "array": (own.images_per_second_q75 - own.score).clip(lower=0),
                "arrayminus": (own.score - own.images_per_second_q25).clip(lower=0),
                "color": FAINT,
                "thickness": 1.2,
                "width": 3,
                "visible": with_quartiles and name != "failed",
            },
            hovertemplate="%{text}<br>%{y:,.4g}<extra></extra>",
            meta={"budget": budget},
        )


def _places(budget: str, found: dict[str, Any]) -> Table:
    members, devices = found["members"], found["devices"]
    rows = []
    for device in devices:
        own = [member for member in members if member["device"] == device["name"]]
        rows += [
            [
                str(device["name"]),
                str(member["model"]),
                str(member["batch_size"]),
                str(member.get("engine", DEFAULT_ENGINE)),
                f"{member.get('memory_mb') or 0:,.0f}",
            ]
            for member in own
        ] or [[str(device["name"]), "no member", "", "", ""]]
    columns = ["device", "member", "batch size", "engine", "memory (MB)"]
    caption = f"Budget {budget}: members on their devices. It stopped because {found['stop_reason']}."
    return Table(caption, columns, rows, [f"allocation/budget-{budget}/devices-{len(devices)}.json"], budget=budget)
