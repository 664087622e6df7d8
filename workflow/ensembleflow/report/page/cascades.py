"""The cascades: what stopping early saves, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ensembleflow.report.answers import CONFIDENCE, counted_difference
from ensembleflow.report.page.blocks import Block, Drawing, Table
from ensembleflow.report.page.look import ACCENT, INK, figure, percent, plain, seconds, value_axis
from ensembleflow.report.page.study import Study

__all__ = ["cascades"]

_KEYS = ("members", "thresholds", "max_changed", "guarantee", "cost_seconds", "mean_cost_seconds", "test")


def cascades(study: Study) -> Iterator[Block]:
    """The budgets' cascades beside their full ensembles; nothing where the config asks for none."""
    asked = study.config.get("selection", {}).get("cascade") or {}
    if asked.get("max_changed") is None:
        return
    found = {budget: study.json(f"selection/cascade-{budget}.json", _KEYS) for budget in study.budgets}
    plot = figure(f"cost: seconds for {study.n_images:,} images", "test error (%)", 380)
    ends = [(each["cost_seconds"], each["test"]["mean_cost_seconds"]) for each in found.values()]
    errors = [(each["test"]["full_error"] * 100, each["test"]["error"] * 100) for each in found.values()]
    plot.update_xaxes(value_axis([cost for pair in ends for cost in pair]))
    plot.update_yaxes(value_axis([error for pair in errors for error in pair], room=0.1))
    for place, (name, colour, symbol, dash) in enumerate(
        (("full ensembles", INK, "circle-open", "dot"), ("cascades, by their mean cost", ACCENT, "circle", "solid"))
    ):
        plot.add_scatter(
            x=[pair[place] for pair in ends],
            y=[pair[place] for pair in errors],
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 1.6},
            marker={"symbol": symbol, "size": 10},
            name=name,
            text=[f"budget {budget}" for budget in found],
            hovertemplate="%{text}: %{x:.3g} s, %{y:.4g} %<extra></extra>",
        )
    plot.update_traces(cliponaxis=False)
    description = (
        "Members answer cheapest first; an image whose class is clear stops, and the others go on. To the left the "
        f"same answers cost less: at most {plain(100 * asked['max_changed'])} % of the images get another class than "
        f"all members together give them, with {percent(asked['confidence'], 0)} confidence. No image costs more "
        "than the full ensemble, which is within the budget."
    )
    columns = ["budget", "members, cheapest first, and the share of images that each sees", "stops from"]
    columns += ["mean cost", "full cost", "changed, of the calibration images", "at most"]
    columns += ["changed, of the test images", "test error", f"points above the full ({percent(CONFIDENCE, 0)})"]
    rows = [_row(budget, each) for budget, each in found.items()]
    sources = [f"selection/cascade-{budget}.json" for budget in found]
    table = Table("Cascades by budget; shares and costs on the test images", columns, rows, sources)
    yield Drawing("cascades", "Stopping early", description, [("", plot)], table)


def _row(budget: str, cascade: dict[str, Any]) -> list[str]:
    test, guarantee = cascade["test"], cascade["guarantee"]
    seen = ", ".join(
        f"{model} {percent(share, 1)}" for model, share in zip(cascade["members"], test["shares"], strict=True)
    )
    stops = ", ".join("never" if each is None else f"{each:.3f}" for each in cascade["thresholds"])
    difference = counted_difference(test["n_images"], test["n_wrong"], test["n_lost"], test["n_gained"])
    points = "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * value for value in difference)).replace("-", "−")
    guaranteed = ["–", "–"]
    if guarantee is not None:
        guaranteed = [f"{guarantee['n_changed']:,} of {guarantee['n_images']:,}"]
        guaranteed.append(percent(guarantee["upper_bound"], 3))
    changed = f"{test['n_changed']:,} of {test['n_images']:,}"
    costs = [seconds(test["mean_cost_seconds"]), seconds(cascade["cost_seconds"])]
    return [budget, seen, stops or "–", *costs, *guaranteed, changed, percent(test["error"]), points]
