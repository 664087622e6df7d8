"""The figure of the allocation: every bench of the search, and where the members ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ensembleflow.config import SIMULATED, ReportConfig
from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_csv, read_json, write_csv
from ensembleflow.report.drawing import (
    BLUE,
    GREY,
    LIGHT,
    RED,
    WIDE_INCHES,
    YELLOW,
    YELLOW_TEXT,
    Look,
    as_bool,
    drawn_figure,
    legend_above,
    plain_number,
    say_empty,
)

__all__ = ["plot_allocation"]

_ROW_INCHES, _INCHES_PER_MEMBER, _HEAD_INCHES, _LEGEND_INCHES = 1.7, 0.16, 0.5, 0.4
# With a longer name of the budget the title would reach the devices' names.
_MAX_BUDGET_LETTERS = 20
# From the largest number of devices down.
_PATH_STYLES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))
_MEMBER_KEYS = ("model", "batch_size", "engine", "memory_mb")
_ENGINE_TEXT = {"tensorflow": "", "onnxruntime": "ONNX", "openvino": "OV", "openvino_bfloat16": "OV bf16"}
_BENCH: Look = {
    "marker": "o",
    "markersize": 3.0,
    "markerfacecolor": "white",
    "markeredgecolor": GREY,
    "linestyle": "none",
}
_ACCEPTED: Look = {"marker": "o", "markersize": 4.2, "color": BLUE}
_START: Look = {"marker": "D", "markersize": 4.6, "color": YELLOW, "markeredgecolor": YELLOW_TEXT, "linestyle": "none"}
_FAILED: Look = {"marker": "x", "markersize": 4.0, "color": RED, "linestyle": "none"}


def plot_allocation(
    allocation_jsons: Sequence[str | Path],
    search_csvs: Sequence[str | Path],
    config: ReportConfig,
    table_csv: str | Path,
    members_csv: str | Path,
    figure_png: str | Path,
    figure_svg: str | Path,
) -> None:
    """Draw, one row per budget, the images/s of every allocation benched, and the allocation that was returned.

    Left: the benches in the order in which they ran, the worst-fit start, and the path of accepted moves, a line a
    number of devices. Right: for the largest number of devices, each member's devices and, in the cell, its batch
    size and its engine if that is not TensorFlow. A search by latency has that in the title, and a simulated one says
    so.

    Args:
        allocation_jsons: `devices-{n}.json` of every budget and number of devices, budgets in the order to draw.
        search_csvs: `search-{n}.csv`, in the same order.
        config: width and resolution of the figure.
        table_csv: where the drawn benches are written, one row per bench.
        members_csv: where the drawn allocations are written, one row per member; a device without a member has one row
            with an empty model.
        figure_png: where the PNG is written.
        figure_svg: where the SVG is written.

    Raises:
        ArtefactError: a file is missing, damaged or lacks a key or column, or the two lists do not pair up.
        StorageError: an output cannot be written.
    """
    if len(allocation_jsons) != len(search_csvs):
        raise ArtefactError(
            "allocations and searches do not pair up",
            found=f"{len(allocation_jsons)} devices-n.json and {len(search_csvs)} search-n.csv",
            expected="one search for each allocation",
        )
    pairs = [_read(allocation, search) for allocation, search in zip(allocation_jsons, search_csvs, strict=True)]
    benches = pd.concat([pair[0] for pair in pairs], ignore_index=True)
    members = pd.concat([pair[1] for pair in pairs], ignore_index=True)
    write_csv(table_csv, benches)
    write_csv(members_csv, members)

    budgets = list(benches.budget.unique())
    largest = benches.groupby("budget").n_devices.max()
    shown = members[members.n_devices == members.budget.map(largest)]
    counts = sorted(benches.n_devices.unique(), reverse=True)
    styles = {n_devices: _PATH_STYLES[place % len(_PATH_STYLES)] for place, n_devices in enumerate(counts)}
    heights = [
        max(_ROW_INCHES, _HEAD_INCHES + _INCHES_PER_MEMBER * shown[shown.budget == budget].model.nunique())
        for budget in budgets
    ]
    wide = config.figure_width_inches >= WIDE_INCHES
    height = sum(heights) * (1 if wide else 2) + _LEGEND_INCHES
    with drawn_figure(config, height, figure_png, figure_svg) as figure:
        if wide:
            grid = figure.subplots(len(budgets), 2, squeeze=False, height_ratios=heights, width_ratios=[3.0, 1.9])
        else:
            ratios = [height for height in heights for _panel in range(2)]
            grid = figure.subplots(2 * len(budgets), 1, height_ratios=ratios).reshape(-1, 2)
        for (left, right), budget, height in zip(grid, budgets, heights, strict=True):
            within = benches[benches.budget == budget]
            _draw_benches(left, within, styles)
            _draw_members(right, shown[shown.budget == budget], round((height - _HEAD_INCHES) / _INCHES_PER_MEMBER))
            separator = ":\n" if len(budget) > _MAX_BUDGET_LETTERS else ": "
            left.set_title(f"budget {budget}{separator}{_gain(within[within.n_devices == largest[budget]])}")
        grid[-1][0].set_xlabel("bench, in the order run")
        with_engines = bool(shown.engine.map(_ENGINE_TEXT.get).any())
        grid[-1][1].set_xlabel(f"batch size {'and engine ' if with_engines else ''}of each member")
        legend_above(figure, _legend(benches, styles))


def _read(allocation_json: str | Path, search_csv: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    found = read_json(allocation_json, ["budget", "n_devices", "devices", "members", "worst_fit_images_per_second"])
    columns = ["bench", "step", "move", "accepted", "images_per_second", "images_per_second_q25"]
    columns += ["images_per_second_q75", "failure", "objective", "latency_p50_ms", "latency_p99_ms", "bench_kind"]
    benches = read_csv(search_csv, columns)[columns].sort_values("bench", ignore_index=True)
    benches["accepted"] = as_bool(benches.accepted) | (benches.move == "start")
    benches.insert(0, "budget", found["budget"])
    benches.insert(1, "n_devices", found["n_devices"])
    benches["worst_fit_images_per_second"] = found["worst_fit_images_per_second"]
    placed: dict[str, list[dict[str, Any]]] = {}
    for member in found["members"]:
        placed.setdefault(member["device"], []).append(member)
    unused: list[dict[str, Any]] = [dict.fromkeys(_MEMBER_KEYS)]
    rows = [
        {"budget": found["budget"], "n_devices": found["n_devices"], "device": device["name"]}
        | {key: member[key] for key in _MEMBER_KEYS}
        for device in found["devices"]
        for member in placed.get(device["name"], unused)
    ]
    return benches, pd.DataFrame(rows).astype({"batch_size": "Int64"})


def _gain(benches: pd.DataFrame) -> str:
    found = benches[benches.accepted].iloc[-1]
    simulated = " (simulated)" if found.bench_kind == SIMULATED else ""
    if found.objective != "throughput":
        start, end = (row[f"{found.objective}_ms"] for row in (benches.iloc[0], found))
        name = found.objective.removeprefix("latency_")
        return (f"{start:,.3g} → {end:,.3g}" if end < start else f"{end:,.3g}") + f" ms {name}{simulated}"
    start, end = found.worst_fit_images_per_second, found.images_per_second
    return (f"{start:,.0f} → {end:,.0f}" if end > start else f"{start:,.0f}") + f" images/s{simulated}"


def _draw_benches(panel: Axes, benches: pd.DataFrame, styles: dict[int, Any]) -> None:
    for n_devices, style in styles.items():
        run = benches[benches.n_devices == n_devices]
        if run.empty:
            continue
        failed = run.failure.notna() | run.images_per_second.isna()
        path = run[run.accepted & ~failed]
        rejected = run[~run.accepted & ~failed]
        bars = [run.images_per_second - run.images_per_second_q25, run.images_per_second_q75 - run.images_per_second]
        whiskers = [bar[~failed].clip(lower=0) for bar in bars]
        panel.errorbar(
            run.bench[~failed], run.images_per_second[~failed], yerr=whiskers, fmt="none", ecolor=LIGHT, elinewidth=1.0
        )
        steps = pd.concat([path, run.tail(1).assign(images_per_second=path.images_per_second.iloc[-1:].max())])
        panel.plot(
            steps.bench,
            steps.images_per_second,
            color=BLUE,
            linestyle=style,
            linewidth=0.9,
            drawstyle="steps-post",
        )
        panel.plot(rejected.bench, rejected.images_per_second, **_BENCH)
        panel.plot(path.bench, path.images_per_second, linestyle="none", zorder=3, **_ACCEPTED)
        if failed.any():  # an empty line that is not clipped would claim the figure's corner in the layout
            panel.plot(run.bench[failed], [0.0] * int(failed.sum()), zorder=3, clip_on=False, **_FAILED)
        start = run[run.move == "start"]
        panel.plot(start.bench, start.images_per_second, zorder=4, **_START)
        panel.axhline(run.worst_fit_images_per_second.iloc[0], color=YELLOW_TEXT, linewidth=0.6, linestyle=(0, (1, 2)))
    panel.set_ylim(bottom=0)
    panel.set_xlim(0.3, max(benches.bench.max(), 2) + 0.7)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.yaxis.set_major_formatter(plain_number)
    panel.set_ylabel("images/s")


def _draw_members(panel: Axes, members: pd.DataFrame, n_rows: int) -> None:
    """A grid of members by devices; the cell of a member's device holds its batch size and engine."""
    devices = list(members.device.unique())
    models = list(members.model.dropna().unique())
    panel.set(xlim=(-0.5, len(devices) - 0.5), ylim=(n_rows - 0.5, -0.5))
    panel.set_xticks(range(len(devices)), devices)
    panel.set_yticks(range(len(models)), models)
    panel.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    for row in members[members.model.notna()].itertuples():
        x, y = devices.index(row.device), models.index(row.model)
        panel.barh(y, 0.9, left=x - 0.45, height=0.8, color="#d5dfeb", edgecolor=BLUE, linewidth=0.6)
        engine = _ENGINE_TEXT.get(str(row.engine), str(row.engine))
        panel.text(x, y, f"{row.batch_size} {engine}".strip(), ha="center", va="center", fontsize="small")
    if not models:
        say_empty(panel, "no member")


def _legend(benches: pd.DataFrame, styles: dict[int, Any]) -> list[Line2D]:
    handles = [
        Line2D([], [], label="worst-fit start", **_START),
        Line2D([], [], label="accepted move", linestyle="none", **_ACCEPTED),
        Line2D([], [], label="other bench", **_BENCH),
    ]
    if benches.failure.notna().any():
        handles.append(Line2D([], [], label="failed bench", **_FAILED))
    for n_devices, style in styles.items():
        label = f"current allocation, {n_devices} device{'' if n_devices == 1 else 's'}"
        handles.append(Line2D([], [], color=BLUE, linewidth=0.9, linestyle=style, label=label))
    return handles
