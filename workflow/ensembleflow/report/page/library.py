"""The library: all models, the kept ones, and what a prediction costs with each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from ensembleflow.errors import ArtefactError, EnsembleflowError
from ensembleflow.models.hyperparameters import FAMILY
from ensembleflow.report.drawing import as_bool, measure
from ensembleflow.report.page.blocks import Block, Drawing, Section, Table, Text, guarded, rows_of
from ensembleflow.report.page.look import ACCENT, FAINT, SURFACE, figure, seconds, value_axis
from ensembleflow.report.page.study import Study

__all__ = ["library"]


def library(study: Study) -> Section:
    """The section of the library."""
    intro = (
        "Every trial left a model. The best by validation metric are kept: their predictions are cached and their "
        "costs measured."
    )
    return Section("library", "Library", intro, guarded(_models, _costs, study=study))


def _models(study: Study) -> Iterator[Block]:
    """Validation metric against size, the kept models marked."""
    column, scale = f"valid_{study.metric}", measure(study.metric)
    models = study.csv("library/models.csv", ["rank", "model", "kept", "dropped", "epochs", "n_parameters", column])
    models = models.assign(kept=as_bool(models.kept), value=models[column] * scale.factor)
    told = models[models.dropped.fillna("") != ""]
    for row in rows_of(told[told.kept]):
        yield Text(f"{row.model}: {row.dropped}. Do not use what is made of it.", "No network is better than chance.")
    dropped = told[~told.kept]
    if len(dropped):
        reasons = "; ".join(f"{row.model}: {row.dropped}" for row in rows_of(dropped))
        yield Text(f"{reasons}.", f"{len(dropped)} of {len(models)} models are left out.")
    ranked = models[models["rank"].notna()]
    plot = figure("parameters", f"validation {scale.label}", 380)
    plot.update_xaxes(value_axis(ranked.n_parameters.astype(float)))
    plot.update_yaxes(value_axis(ranked.value))
    looks = {
        "not kept": {"color": SURFACE, "line": {"color": FAINT, "width": 1.5}, "size": 8},
        "kept": {"color": ACCENT, "size": 9},
    }
    for name, look in looks.items():
        own = ranked[ranked.kept == (name == "kept")]
        plot.add_scatter(
            x=own.n_parameters,
            y=own.value,
            mode="markers",
            marker=look,
            name=f"{name} ({len(own)})",
            text=own.model,
            customdata=own.epochs,
            hovertemplate="%{text}, %{customdata} epochs<br>%{x:,} parameters, %{y:.4g}<extra></extra>",
        )
    kept = ranked[ranked.kept]
    description = (
        f"{len(kept)} of {len(models)} models are kept, with {kept.value.min():.3g} to {kept.value.max():.3g} "
        f"validation {scale.label} and {kept.n_parameters.min():,.0f} to {kept.n_parameters.max():,.0f} parameters."
    )
    families = _families(study)
    rows = [
        [
            f"{row.rank:.0f}",
            row.model,
            *([families.get(row.model, "–")] if families else []),
            "yes" if row.kept else "no",
            f"{row.value:.4g}",
            f"{row.n_parameters:,.0f}",
            f"{row.epochs}",
        ]
        for row in rows_of(ranked)
    ]
    several = ["family"] if families else []
    columns = ["rank", "model", *several, "kept", f"validation {scale.label}", "parameters", "epochs"]
    table = Table("Models by rank", columns, rows, ["library/models.csv"], folded=True)
    yield Drawing("models", "Error against size", description, [("", plot)], table)


def _families(study: Study) -> dict[str, str]:
    """Each model's family of networks, by its id, where a study has several; else empty."""
    try:
        trials = study.csv("search/trials.csv", ["model"])
    except ArtefactError:
        return {}  # the search's section says so
    if FAMILY not in trials or trials[FAMILY].nunique() < 2:
        return {}
    return dict(zip(trials.model, trials[FAMILY].astype(str), strict=True))


def _costs(study: Study) -> Iterator[Block]:
    """The kept models' cost against their metric, and all that was measured of them."""
    column, scale = f"valid_{study.metric}", measure(study.metric)
    needed = ["model", "cost_seconds", "cost_seconds_q25", "cost_seconds_q75", "n_images"]
    needed += ["device", "engine", "threads"]
    costs = study.csv("library/costs.csv", needed)
    models = study.csv("library/models.csv", ["model", column])
    table = costs.merge(models[["model", column]], on="model", how="left", validate="one_to_one")
    table["value"] = table[column] * scale.factor
    used = _uses(study)
    plot = figure(f"cost: seconds for {study.n_images:,} images", f"validation {scale.label}", 360)
    plot.update_xaxes(value_axis([*table.cost_seconds_q25, *table.cost_seconds_q75]))
    plot.update_yaxes(value_axis(table.value, room=0.1))
    plot.add_scatter(
        x=table.cost_seconds,
        y=table.value,
        error_x={
            "type": "data",
            "array": table.cost_seconds_q75 - table.cost_seconds,
            "arrayminus": table.cost_seconds - table.cost_seconds_q25,
            "color": FAINT,
            "thickness": 1.2,
            "width": 4,
        },
        mode="markers",
        marker={
            "size": 10,
            "color": [ACCENT if used[model] else SURFACE for model in table.model],
            "line": {"color": ACCENT, "width": 1.5},
        },
        text=table.model,
        hovertemplate="%{text}: %{x:.3g} s, %{y:.4g}<extra></extra>",
        showlegend=False,
    )
    threads = table.threads.iloc[0]
    device = f"{table.device.iloc[0]}, {table.engine.iloc[0]}, {threads} thread{'' if threads == 1 else 's'}"
    description = (
        f"The kept models' median cost on one device ({device}), from {seconds(table.cost_seconds.min())} to "
        f"{seconds(table.cost_seconds.max())}; bars are quartiles over repeats. Filled: in the ensemble of a budget."
    )
    optional = {
        "latency_p50_seconds": "latency p50",
        "latency_p99_seconds": "latency p99",
        "peak_memory_bytes": "memory (MB)",
        "energy_joules": "energy (J)",
    }
    present = [name for name in optional if name in table and table[name].notna().any()]
    rows = []
    for row in table.to_dict("records"):
        written = [seconds(row[name]) if "latency" in name else _written(name, row[name]) for name in present]
        quartiles = f"{seconds(row['cost_seconds_q25'])} to {seconds(row['cost_seconds_q75'])}"
        cells = [row["model"], f"{row['value']:.4g}", seconds(row["cost_seconds"]), quartiles, *written]
        rows.append([*cells, f"{used[row['model']]}"])
    columns = ["model", f"validation {scale.label}", "cost", "quartiles", *(optional[name] for name in present)]
    data = Table("Kept models", [*columns, "budgets that use it"], rows, ["library/costs.csv"], folded=True)
    yield Drawing("costs", "Error against cost of the kept models", description, [("", plot)], data)


def _uses(study: Study) -> Counter[str]:
    """In how many budgets' ensembles each model is."""
    try:
        selections = [study.json(f"selection/budget-{budget}.json", ["members"]) for budget in study.budgets]
    except EnsembleflowError:
        return Counter()  # told in the section of the decision
    return Counter(member for selection in selections for member in selection["members"])


def _written(name: str, value: float) -> str:
    if pd.isna(value):
        return "–"
    return f"{value / 1e6:,.0f}" if name.endswith("bytes") else f"{value:,.3g}"
