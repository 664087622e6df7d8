"""The decision: what error can be had for what cost, and what each budget buys."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from ensembleflow.report.answers import CONFIDENCE, N_BINS, Answers
from ensembleflow.report.page.blocks import Block, Choices, Drawing, Section, Table, guarded, rows_of
from ensembleflow.report.page.choices import Bought, Floor, baseline_floor, bought, choice, single_answers
from ensembleflow.report.page.look import (
    ACCENT,
    FAINT,
    INK,
    QUIET,
    RED,
    SECOND,
    SURFACE,
    figure,
    percent,
    seconds,
    value_axis,
)
from ensembleflow.report.page.study import Study

__all__ = ["decision"]

_BY_LOSS = "cross_entropy"


def decision(study: Study) -> Section:
    """The section of the decision."""
    intro = (
        "Pick a budget: with the arrow keys, by a tap, or on the front. Members were chosen on validation images only; "
        "the test images measure the outcome."
    )
    return Section("decision", "Decision", intro, guarded(_decide, study=study))


def _decide(study: Study) -> Iterator[Block]:
    found, missing = bought(study)
    single = single_answers(study)
    floor = baseline_floor(study)
    if found:
        losses = [each.selection["valid"][each.selection["loss"]] for each in found]
        best = min(range(len(found)), key=lambda place: (losses[place], found[place].selection["cost_seconds"], place))
        yield Choices([choice(study, each, single, floor, recommended=each is found[best]) for each in found])
    yield from missing
    yield from guarded(lambda study: [_front(study, found, single, floor)], study=study)
    if any(each.answers for each in found):
        yield _reliability(found)


def _front(study: Study, found: list[Bought], single: tuple[str, Answers] | None, floor: Floor | None) -> Drawing:
    """Every ensemble tried, the chosen ones with their intervals, the budgets and the baseline."""
    columns = ["method", "budget", "members", "cost_seconds", "valid_error", "test_error", "n_members"]
    ensembles = study.csv("selection/ensembles.csv", [*columns, f"valid_{_BY_LOSS}", f"test_{_BY_LOSS}"])
    with_error = bool(ensembles.test_error.notna().any())
    metric, factor = ("error", 100.0) if with_error else (_BY_LOSS, 1.0)
    unit = "test error (%)" if with_error else "test cross-entropy (nats)"
    chosen = _chosen(found, metric, factor)
    taken = {frozenset(members.split()) for members in chosen.members}
    tried = ensembles.assign(ids=ensembles.members.str.split().map(frozenset))
    alone = tried[(tried.method == "best_single") & tried.budget.isna()]
    tried = tried.drop_duplicates("ids")
    others = tried[~tried.ids.isin(taken)]

    plot = figure(f"cost: seconds for {study.n_images:,} images", unit, 430)
    bounds = [*tried[f"test_{metric}"] * factor, *chosen.low, *chosen.high]
    limits = {each.budget: each.selection["budget_seconds"] for each in found if each.selection["budget_seconds"]}
    plot.update_xaxes(value_axis([*tried.cost_seconds, *limits.values()]))
    plot.update_yaxes(value_axis(bounds, room=0.1))
    for budget, most in limits.items():
        plot.add_vline(most, line={"color": FAINT, "width": 1, "dash": "dot"})
        where = {"x": most, "xref": "x", "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "top"}
        if plot.layout.xaxis.type == "log":
            where["x"] = math.log10(most)  # annotations, unlike lines, count in the axis' own units
        plot.add_annotation(text=budget.split(",")[0], showarrow=False, font={"color": QUIET, "size": 11}, **where)
    if with_error and floor is not None and floor.answers is not None:
        level = factor * floor.answers.n_wrong / len(floor.answers.right)
        bounds.append(level)
        costs = [*tried.cost_seconds, *limits.values()]
        plot.add_scatter(
            x=[min(costs), max(costs)],
            y=[level, level],
            mode="lines",
            line={"color": SECOND, "dash": "dash", "width": 1.5},
            name=f"baseline: {floor.name}",
            hovertemplate="%{y:.4g}<extra>baseline, its cost is not measured</extra>",
        )
        plot.update_yaxes(value_axis(bounds, room=0.1))
    plot.add_scatter(
        x=others.cost_seconds,
        y=others[f"test_{metric}"] * factor,
        mode="markers",
        name="other ensembles tried",
        marker={"color": FAINT, "size": 6, "opacity": 0.6},
        text=[_short(members) for members in others.members],
        hovertemplate="%{text}<br>%{x:.3g} s, %{y:.4g}<extra>tried</extra>",
    )
    plot.add_scatter(
        x=alone.cost_seconds,
        y=alone[f"test_{metric}"] * factor,
        mode="markers",
        name="best single network",
        marker={"color": RED, "size": 15, "symbol": "star", "line": {"color": SURFACE, "width": 1}},
        text=alone.members,
        hovertemplate="%{text}<br>%{x:.3g} s, %{y:.4g}<extra>best single network</extra>",
        hoverinfo="skip" if alone.ids.isin(taken).any() else "all",  # leaves the tap to the dot on it
    )
    plot.add_scatter(
        x=chosen.cost,
        y=chosen.value,
        error_y={
            "type": "data",
            "array": chosen.high - chosen.value,
            "arrayminus": chosen.value - chosen.low,
            "color": ACCENT,
            "thickness": 1.5,
            "width": 5,
        },
        mode="lines+markers",
        line={"color": ACCENT, "width": 1, "dash": "dot"},
        marker={"color": ACCENT, "size": 11},
        name="chosen for a budget",
        customdata=chosen.budgets,
        text=[_short(members) for members in chosen.members],
        hovertemplate="budget %{customdata}: %{text}<br>%{x:.3g} s, %{y:.4g}<extra>click to choose</extra>",
    )
    for each in found:
        own = chosen[[each.budget in budgets.split() for budgets in chosen.budgets]]
        plot.add_scatter(
            x=own.cost,
            y=own.value,
            mode="markers",
            name=f"budget {each.budget}",
            showlegend=False,
            marker={"color": "rgba(0,0,0,0)", "size": 22, "line": {"color": INK, "width": 2.5}},
            hoverinfo="skip",
            meta={"budget": each.budget},
        )
    rows = [
        [row.budgets, f"{row.cost:.4f}", f"{row.value:.3f}", f"{row.low:.3f}", f"{row.high:.3f}", row.members]
        for row in rows_of(chosen)
    ]
    table = Table(
        "Ensembles chosen",
        ["budgets", "cost (s)", unit, "95 % interval from", "to", "members"],
        rows,
        ["selection/ensembles.csv", "selection/pareto.csv"],
        folded=True,
    )
    return Drawing("front", "Error against cost", _say(chosen, unit, single, floor), [("", plot)], table)


def _chosen(found: list[Bought], metric: str, factor: float) -> pd.DataFrame:
    """A row a distinct ensemble, with the budgets that it was chosen for, by cost."""
    rows: dict[str, dict[str, object]] = {}
    for each in found:
        members = " ".join(each.members)
        if members in rows:
            rows[members]["budgets"] = f"{rows[members]['budgets']} {each.budget}"
            continue
        value = each.selection["test"].get(metric)
        value = float("nan") if value is None else value * factor
        low, high = (value, value)
        if metric == "error" and each.answers is not None:
            low, high = (bound * factor for bound in each.answers.interval)
        rows[members] = {"budgets": each.budget, "members": members, "cost": each.selection["cost_seconds"]}
        rows[members] |= {"value": value, "low": low, "high": high}
    columns = ["budgets", "members", "cost", "value", "low", "high"]
    return pd.DataFrame(rows.values(), columns=columns).sort_values("cost", kind="stable", ignore_index=True)


def _say(chosen: pd.DataFrame, unit: str, single: tuple[str, Answers] | None, floor: Floor | None) -> str:
    if chosen.empty:
        return "No ensemble is chosen yet: the points are the ensembles that were tried."
    metric, unit = unit.rsplit(" ", 1)
    unit = unit.strip("()")
    parts = []
    for row in rows_of(chosen):
        budgets = row.budgets.replace(" ", ", ")
        plural = "s" if "," in budgets else ""
        parts.append(f"{row.value:.3g} {unit} at {seconds(row.cost)} (budget{plural} {budgets})")
    text = f"{metric.capitalize()} by cost: {'; '.join(parts)}."
    if single is not None:
        name, answers = single
        wrong = percent(answers.n_wrong / len(answers.right))
        text += f" The best single network, {name}, is wrong on {wrong} of the test images."
    if floor is not None and floor.answers is not None:
        text += f" The baseline, {floor.name}, is wrong on {percent(floor.answers.n_wrong / len(floor.answers.right))}."
    return f"{text} Tap a blue dot to choose it. Bars are the errors' {percent(CONFIDENCE, 0)} intervals (Wilson)."


def _reliability(found: list[Bought]) -> Drawing:
    """For each budget, the share of right answers in each bin of confidence."""
    plot = figure("confidence (%)", "right answers (%)", 360)
    plot.update_xaxes(range=[0, 102])
    plot.update_yaxes(range=[0, 104])
    plot.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", name="perfectly calibrated", line={"color": FAINT, "dash": "dash"}
    )
    rows = []
    for each in found:
        if each.answers is None:
            continue
        bins = each.answers.bins()
        right = [100 * bin.accuracy for bin in bins]
        plot.add_scatter(
            x=[100 * bin.confidence for bin in bins],
            y=right,
            error_y={
                "type": "data",
                "array": [100 * bin.interval[1] - y for bin, y in zip(bins, right, strict=True)],
                "arrayminus": [y - 100 * bin.interval[0] for bin, y in zip(bins, right, strict=True)],
                "color": SECOND,
                "thickness": 1,
                "width": 3,
            },
            mode="markers",
            marker={"color": SECOND, "size": [7 + 13 * (bin.n_images / len(each.answers.right)) for bin in bins]},
            name="answers of the chosen ensemble",
            text=[f"{bin.n_images:,} images" for bin in bins],
            hovertemplate="confidence %{x:.1f} %, right %{y:.1f} %<br>%{text}<extra></extra>",
            meta={"budget": each.budget},
        )
        rows += [
            [each.budget, f"{bin.n_images:,}", f"{bin.confidence * 100:.1f}", f"{bin.accuracy * 100:.1f}"]
            for bin in bins
        ]
    description = (
        f"Test images grouped by the chosen ensemble's confidence, in {N_BINS} bins: on the dashed line it is right as "
        f"often as it claims, above it more often. Bars are {percent(CONFIDENCE, 0)} intervals (Wilson), the larger "
        "dots hold more images."
    )
    columns = ["budget", "images", "mean confidence (%)", "right (%)"]
    table = Table("Bins of confidence", columns, rows, ["library/predictions.h5"], folded=True)
    return Drawing("calibration", "Calibration", description, [("", plot)], table, by_budget=True)


def _short(members: str) -> str:
    ids = members.split()
    return members if len(ids) <= 3 else f"{' '.join(ids[:3])} and {len(ids) - 3} more"
