"""The allocation: every allocation that was measured, and where the members ended."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import plotly.graph_objects as go

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
        "is kept where the whole ensemble was measured to be faster."
    )
    return Section("allocation", "Allocation", intro, guarded(_benches, study=study))


def _benches(study: Study) -> Iterator[Block]:
    """The images/s of each bench in the order run, and the members' places, of the largest number of devices."""
    n_devices = study.n_devices
    keys = ["members", "devices", "images_per_second", "worst_fit_images_per_second", "stop_reason"]
    columns = ["bench", "move", "accepted", "images_per_second", "images_per_second_q25", "images_per_second_q75"]
    plot = figure("bench, in the order run", "images/s", 380)
    gains, rows, tables = [], [], []
    for budget in study.budgets:
        folder = f"allocation/budget-{budget}"
        found = study.json(f"{folder}/devices-{n_devices}.json", keys)
        benches = study.csv(f"{folder}/search-{n_devices}.csv", [*columns, "failure"])
        benches = benches.sort_values("bench", ignore_index=True)
        failed = benches.failure.notna() & (benches.failure != "") | benches.images_per_second.isna()
        benches = benches.assign(accepted=as_bool(benches.accepted) | (benches.move == "start"), failed=failed)
        _draw(plot, budget, benches, float(found["worst_fit_images_per_second"]))
        start, end = found["worst_fit_images_per_second"], found["images_per_second"]
        change = f"from {start:,.0f} to {end:,.0f}" if end != start else f"stays at {end:,.0f}"
        gains.append(f"budget {budget} {change} images/s")
        rows += [
            [
                budget,
                f"{row.bench}",
                row.move,
                "yes" if row.accepted else "no",
                "failed" if row.failed else f"{row.images_per_second:,.0f}",
                row.failure if row.failed else "",
            ]
            for row in rows_of(benches)
        ]
        tables.append(_places(budget, found))
    plot.update_xaxes(tickformat=",d")
    plot.update_yaxes(rangemode="tozero", tickformat=",")
    plot.update_traces(cliponaxis=False)
    columns = ["budget", "bench", "move", "accepted", "images/s", "failure"]
    sources = [f"allocation/budget-{budget}/search-{n_devices}.csv" for budget in study.budgets]
    table = Table("Benches", columns, rows, sources, folded=True)
    description = (
        f"Each dot is an allocation measured on {n_devices} device{'' if n_devices == 1 else 's'}, bars are quartiles, "
        f"the line follows the accepted ones: {'; '.join(gains)}."
    )
    yield Drawing("benches", "Allocations measured", description, [("", plot)], table, by_budget=True)
    yield from tables


def _draw(plot: go.Figure, budget: str, benches: pd.DataFrame, start: float) -> None:
    last = int(benches.bench.max())
    only = {"meta": {"budget": budget}}
    plot.add_scatter(
        x=[0.5, last + 0.5],
        y=[start, start],
        mode="lines",
        name="worst-fit",
        line={"color": SECOND, "dash": "dot", "width": 1.5},
        hoverinfo="skip",
        **only,
    )
    path = benches[benches.accepted & ~benches.failed]
    plot.add_scatter(
        x=[*path.bench, last],
        y=[*path.images_per_second, *path.images_per_second.tail(1)],
        mode="lines",
        line={"color": ACCENT, "shape": "hv", "width": 2},
        name="current allocation",
        hoverinfo="skip",
        **only,
    )
    for name, own, marker in (
        ("accepted", path, {"color": ACCENT, "size": 10}),
        (
            "not accepted",
            benches[~benches.accepted & ~benches.failed],
            {"color": SURFACE, "size": 9, "line": {"color": FAINT, "width": 2}},
        ),
        ("failed", benches[benches.failed].assign(images_per_second=0.0), {"color": RED, "size": 9, "symbol": "x"}),
    ):
        if own.empty:
            continue
        plot.add_scatter(
            x=own.bench,
            y=own.images_per_second,
            mode="markers",
            marker=marker,
            name=name,
            text=own.move,
            error_y={
                "type": "data",
                "array": (own.images_per_second_q75 - own.images_per_second).clip(lower=0),
                "arrayminus": (own.images_per_second - own.images_per_second_q25).clip(lower=0),
                "color": FAINT,
                "thickness": 1.2,
                "width": 3,
                "visible": name != "failed",
            },
            hovertemplate="%{text}<br>%{y:,.0f} images/s<extra></extra>",
            **only,
        )


def _places(budget: str, found: dict[str, object]) -> Table:
    members: list[dict[str, object]] = found["members"]  # type: ignore[assignment]
    devices: list[dict[str, object]] = found["devices"]  # type: ignore[assignment]
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
