"""The table of budgets: the ensemble that each budget buys, beside the best single model and the baseline."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensembleflow.config import is_simulated
from ensembleflow.errors import ArtefactError
from ensembleflow.io import atomic_path, read_csv, read_json, snakemake_command, write_csv
from ensembleflow.models.metrics import classification_metrics
from ensembleflow.report.answers import Answers, answers_on_test, baseline_answers, difference_interval
from ensembleflow.report.measurement import cost_notes, disagreeing_speeds, disturbed_costs, speed_notes

__all__ = [
    "BASELINE",
    "BASELINE_KEYS",
    "BEST_SINGLE",
    "BUDGET_COLUMNS",
    "budget_notes",
    "fitted_to",
    "measured_with",
    "readable_budgets",
    "readable_differences",
    "speed_against_cost",
    "tabulate_budgets",
]

BEST_SINGLE, BASELINE = "best single", "baseline"
ALLOCATED, ALONE, SIMULATED = "allocation", "single model on one device", "simulated allocation"
_METRICS = tuple(
    f"{split}_{metric}" for metric in ("error", "macro_f1_error", "cross_entropy") for split in ("valid", "test")
)
_AGAINST = ("single", "baseline")
_BOUNDS = ("", "_low", "_high")
_DIFFERENCES = tuple(f"test_error_minus_{other}{bound}" for other in _AGAINST for bound in _BOUNDS)
_NUMBERS = ("cost_seconds", *_METRICS, "images_per_second", *_DIFFERENCES)
_NOTES = ("notes", "cost_notes", "speed_notes")
BUDGET_COLUMNS = (
    "budget",
    "n_members",
    "members",
    "cost_seconds",
    "cost_engine",
    *_METRICS,
    "images_per_second",
    "images_per_second_source",
    *_DIFFERENCES,
    "metric",
    *_NOTES,
)
BASELINE_KEYS = (
    *("classifier", "turned_off", "reason"),
    *("n_fitted_images", "n_train_images", "fitted_shape", "image_shape"),
)
"""What is read of `baseline.json`."""

_BELOW_SECONDS_IN_MS = 1.0
_UNKNOWN, _NOTED = "–", "†"


def tabulate_budgets(
    ensembles_csv: str | Path,
    pareto_csv: str | Path,
    selection_jsons: Sequence[str | Path],
    allocation_jsons: Sequence[str | Path],
    models_csv: str | Path,
    costs_csv: str | Path,
    predictions_h5: str | Path,
    baseline_json: str | Path,
    baseline_csv: str | Path,
    metric: str,
    table_csv: str | Path,
    table_html: str | Path,
) -> None:
    """Write the table of budgets: the best single model, the baseline, then one row per budget.

    An ensemble's images/s are those of its allocation on the largest number of devices; the best single model's are
    those of the cost measurement, on one device. The baseline is not timed as the networks are, so its cost and speed
    are not known. `test_error_minus_single` and `test_error_minus_baseline` are paired differences on the test images
    with their 95 % intervals (`ensembleflow.report.answers.difference_interval`).

    Args:
        ensembles_csv: the study's `ensembles.csv`; its best_single row without a budget is the best single model's.
        pareto_csv: the study's `pareto.csv`.
        selection_jsons: `budget-{budget}.json` of every budget, in the order of the rows.
        allocation_jsons: `devices-{n}.json` of every budget and number of devices, in any order.
        models_csv: the library's `models.csv`; a row of a model that is kept though at chance says so.
        costs_csv: the library's `costs.csv`.
        predictions_h5: the library's cached predictions.
        baseline_json: what the library's `fit_baseline` fitted; no row where it is turned off.
        baseline_csv: what that answered.
        metric: of the search; shown beside the error where it is another.
        table_csv: where the table is written; errors are shares of 1, costs seconds.
        table_html: where it is written as a self-contained page, in percent.

    Raises:
        ArtefactError: an artefact is missing or damaged, has no best single model, or a budget has no allocation.
        StorageError: an output cannot be written.
    """
    columns = ["model", "engine", "cost_seconds", "images_per_second"]
    costs = read_csv(costs_csv, columns, dtype={"model": str, "engine": str})
    tried = read_csv(pareto_csv, ["members", "cost_seconds"], dtype={"members": str})
    rows = [_best_single(ensembles_csv, costs_csv, costs), *_baseline(baseline_json, baseline_csv)]
    n_fixed = len(rows)
    allocations = _largest_allocations(allocation_jsons)
    for path in selection_jsons:
        selection = read_json(path, ["budget", "budget_seconds", "loss", "members", "cost_seconds", "valid", "test"])
        budget = str(selection["budget"])
        if budget not in allocations:
            raise ArtefactError(
                f"budget {budget} has no allocation",
                where=path,
                found=f"allocations of {', '.join(allocations) or 'no budget'}",
                expected="a devices-n.json for each budget",
                hint=snakemake_command("allocation", near=path),
            )
        rows.append(
            {
                "budget": budget,
                "n_members": len(selection["members"]),
                "members": " ".join(selection["members"]),
                "cost_seconds": selection["cost_seconds"],
                "cost_engine": costs.engine.iloc[0],
                **{name: selection[name.split("_")[0]].get(name.split("_", 1)[1]) for name in _METRICS},
                "images_per_second": allocations[budget]["images_per_second"],
                "images_per_second_source": _source(allocations[budget]),
                "cost_notes": cost_notes(selection, costs, tried),
                "speed_notes": speed_notes(allocations[budget]),
            }
        )
    budgets = rows[n_fixed:]
    speeds = disagreeing_speeds([row["members"] for row in budgets], [row["images_per_second"] for row in budgets])
    for row, notes in zip(budgets, speeds, strict=True):
        row["speed_notes"] += notes
    at_chance = _at_chance(models_csv)
    for row in (rows[0], *budgets):
        if at_chance.intersection(row["members"].split()):
            row["notes"] = ["no network is better than chance: do not use it"]
    _add_differences([rows[0], *budgets], predictions_h5, baseline_answers(baseline_csv))
    for row in rows:
        row |= {"metric": metric, **{name: "; ".join(row.get(name, [])) for name in _NOTES}}
    # A metric that is not a number is null in JSON.
    table = pd.DataFrame(rows, columns=list(BUDGET_COLUMNS)).astype(dict.fromkeys(_NUMBERS, float))
    write_csv(table_csv, table)
    readable = readable_budgets(table).join(readable_differences(table).drop(columns="budget"))
    page = _PAGE.replace("TABLE", _html_table(readable, table))
    page = page.replace("MEASURED_WITH", html.escape(measured_with(table)))
    page = page.replace("SPEED_AGAINST_COST", html.escape(speed_against_cost(table)))
    items = "".join(f"<li>{html.escape(note)}</li>" for note in budget_notes(table))
    page = page.replace("NOTES", f"<ul>{items}</ul>" if items else "")
    with atomic_path(table_html) as aside:
        aside.write_text(page, encoding="utf-8")


def readable_budgets(table: pd.DataFrame) -> pd.DataFrame:
    """The table of budgets as text to read: units in the headings, percentages, thousands separated.

    Costs are in milliseconds where every one is below a second. Images/s that were measured on one device carry an
    asterisk, those that were only simulated say so. A cost or a speed with a note carries a dagger. What is not known,
    a metric for want of cached classes or the baseline's cost, is a dash.
    """
    members = table.n_members.map("{:,}".format).where(table.n_members > 0, _UNKNOWN)
    columns: dict[str, Any] = {"budget": table.budget, "members": members}
    noted = {
        name: table[name].map(lambda text: f" {_NOTED}" if isinstance(text, str) and text else "") for name in _NOTES
    }
    if bool((table.cost_seconds.dropna() < _BELOW_SECONDS_IN_MS).all()):
        columns["cost (ms)"] = _known(table.cost_seconds * 1000, "{:,.0f}") + noted["cost_notes"]
    else:
        columns["cost (s)"] = _known(table.cost_seconds, "{:,.2f}") + noted["cost_notes"]
    splits = (("valid", "validation"), ("test", "test"))
    shares = {"error": "error"}
    if table.metric.eq("macro_f1_error").any():
        shares["macro_f1_error"] = "1 − macro F1"
    for metric, heading in shares.items():
        for name, split in splits:
            columns[f"{split} {heading} (%)"] = _known(table[f"{name}_{metric}"] * 100, "{:.2f}")
    for name, split in splits:
        columns[f"{split} cross-entropy"] = _known(table[f"{name}_cross_entropy"], "{:.4f}")
    alone = table.images_per_second_source.eq(ALONE).map({True: "* ", False: ""})
    simulated = table.images_per_second_source.eq(SIMULATED).map({True: " (simulated)", False: ""})
    columns["images/s"] = alone + _known(table.images_per_second, "{:,.0f}") + simulated + noted["speed_notes"]
    return pd.DataFrame(columns)


def readable_differences(table: pd.DataFrame) -> pd.DataFrame:
    """By how many percentage points each row's test error is above the best single model's and the baseline's."""
    columns: dict[str, Any] = {"budget": table.budget}
    single = table.members[table.budget == BEST_SINGLE]
    for other, heading in zip(_AGAINST, ("the best single network", "the baseline"), strict=True):
        values = table[[f"test_error_minus_{other}{bound}" for bound in _BOUNDS]] * 100
        texts = ["–" if np.isnan(own[0]) else "{:+.2f} ({:+.2f} to {:+.2f})".format(*own) for own in values.to_numpy()]
        columns[f"test error against {heading} (points)"] = [text.replace("-", "−") for text in texts]
    same = table.members.isin(single) & ~table.budget.isin([BEST_SINGLE, BASELINE])
    first = next(name for name in columns if name != "budget")
    return pd.DataFrame(columns).assign(**{first: lambda made: made[first].mask(same, "the same network")})


def budget_notes(table: pd.DataFrame) -> list[str]:
    """What is to be known of the table's figures, the rows that share it together."""
    rows_by_note: dict[tuple[str, str], list[str]] = {}
    for row in table.to_dict("records"):
        for name in _NOTES:
            text = row[name]
            for note in text.split("; ") if isinstance(text, str) and text else []:
                sharing = rows_by_note.setdefault(("" if name == "notes" else f"{_NOTED} ", note), [])
                if str(row["budget"]) not in sharing:
                    sharing.append(str(row["budget"]))
    return [f"{mark}{', '.join(sharing)}: {note}" for (mark, note), sharing in rows_by_note.items()]


def fitted_to(baseline: Mapping[str, Any]) -> str:
    """What the baseline learned from, where that is not all of the data as they are; nothing where it is."""
    parts = []
    if baseline["n_fitted_images"] < baseline["n_train_images"]:
        parts.append(f"learned from {baseline['n_fitted_images']:,} of {baseline['n_train_images']:,} training images")
    if baseline["fitted_shape"] != baseline["image_shape"]:
        sizes = ["×".join(map(str, baseline[key][:2])) for key in ("fitted_shape", "image_shape")]
        parts.append("saw images of {} instead of {} pixels".format(*sizes))
    return " and ".join(parts)


def measured_with(table: pd.DataFrame) -> str:
    """The engine with which the costs were measured, in words."""
    return f"costs are measured with the engine {', '.join(table.cost_engine.dropna().unique())}"


def speed_against_cost(table: pd.DataFrame) -> str:
    """How well the summed cost, which a budget limits, tells an ensemble's images/s: Spearman's rank correlation.

    The cheapest should be the fastest, a correlation of -1; the best single model, on one device, is left out.
    """
    budgets = table[~table.budget.isin([BEST_SINGLE, BASELINE])]
    correlation = budgets.cost_seconds.rank().corr(budgets.images_per_second.rank())
    what = "rank correlation (Spearman) of images/s with cost over the budgets"
    if pd.isna(correlation):
        return f"{what}: not defined, for it takes two different costs and speeds"
    simulated = " (simulated)" if budgets.images_per_second_source.eq(SIMULATED).any() else ""
    return f"{what}: {correlation:.2f}{simulated}"


def _source(allocation: dict[str, Any]) -> str:
    return SIMULATED if is_simulated(allocation) else ALLOCATED


def _known(values: pd.Series, text: str) -> pd.Series:
    return values.map(text.format).where(values.notna(), _UNKNOWN)


def _at_chance(models_csv: str | Path) -> set[str]:
    """Models that the ranking would leave out; one of them is in an ensemble only where none is better than chance."""
    models = read_csv(models_csv, ["model", "dropped"], dtype={"model": str, "dropped": str})
    return set(models.model[models.dropped.fillna("") != ""])


def _baseline(baseline_json: str | Path, baseline_csv: str | Path) -> list[dict[str, Any]]:
    """The baseline's row, also where it had to be left out; none where it is turned off."""
    fitted = read_json(baseline_json, BASELINE_KEYS)
    if fitted["classifier"] is None:
        if fitted["turned_off"]:
            return []
        return [{"budget": BASELINE, "n_members": 0, "members": "", "notes": [f"left out: {fitted['reason']}"]}]
    row: dict[str, Any] = {"budget": BASELINE, "n_members": 0, "members": fitted["classifier"]}
    for split in ("valid", "test"):
        answers = baseline_answers(baseline_csv, split)
        if answers is not None:
            classes = max(answers.labels.max(), answers.predicted.max()) + 1
            metrics = classification_metrics(np.eye(classes)[answers.predicted], answers.labels)
            row |= {f"{split}_{metric}": metrics[metric] for metric in ("error", "macro_f1_error")}
    part = fitted_to(fitted)
    return [{**row, "notes": [part] if part else []}]


def _add_differences(rows: list[dict[str, Any]], predictions_h5: str | Path, baseline: Answers | None) -> None:
    """Put the paired differences into the rows of the best single model, which comes first, and of the budgets."""
    answers = answers_on_test(predictions_h5, {row["budget"]: row["members"].split() for row in rows}) or {}
    others = {"single": answers.get(BEST_SINGLE), "baseline": baseline}
    for row in rows:
        own = answers.get(row["budget"])
        for name, other in others.items():
            if own is None or other is None or own is other or not own.are_of_the_images_of(other):
                continue
            values = difference_interval(own, other)
            same = name == "single" and row["members"] == rows[0]["members"]
            for bound, value in zip(_BOUNDS, (0.0, 0.0, 0.0) if same else values, strict=True):
                row[f"test_error_minus_{name}{bound}"] = value


def _best_single(ensembles_csv: str | Path, costs_csv: str | Path, costs: pd.DataFrame) -> dict[str, Any]:
    columns = ["method", "budget", "members", "cost_seconds", *_METRICS]
    ensembles = read_csv(ensembles_csv, columns, dtype={"budget": str})
    single = ensembles[(ensembles.method == "best_single") & ensembles.budget.isna()]
    if single.empty:
        raise ArtefactError(
            "there is no best single model",
            where=ensembles_csv,
            expected="a row of method best_single with an empty budget",
            hint=snakemake_command("--forcerun", "select_ensemble", near=ensembles_csv),
        )
    best = single.iloc[0]
    measured = costs.images_per_second[costs.model == best.members]
    if measured.empty:
        raise ArtefactError(
            "the best single model has no measured cost",
            where=costs_csv,
            found=f"{len(costs)} models without {best.members}",
            expected=f"a row of {best.members}",
        )
    return {
        "budget": BEST_SINGLE,
        "n_members": 1,
        **{name: best[name] for name in ("members", "cost_seconds", *_METRICS)},
        "cost_engine": costs.engine.iloc[0],
        "images_per_second": measured.iloc[0],
        "images_per_second_source": ALONE,
        "cost_notes": (disturbed := disturbed_costs(costs, [best.members])),
        "speed_notes": disturbed,
    }


def _largest_allocations(paths: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    largest: dict[str, dict[str, Any]] = {}
    for path in paths:
        found = read_json(path, ["budget", "n_devices", "images_per_second", "bench"])
        budget = str(found["budget"])
        if budget not in largest or found["n_devices"] > largest[budget]["n_devices"]:
            largest[budget] = found
    return largest


def _html_table(readable: pd.DataFrame, table: pd.DataFrame) -> str:
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in (*readable.columns, "members in the order chosen"))
    lines = [f"<tr>{heads}</tr>"]
    for row, budget, ids in zip(readable.itertuples(index=False), table.budget, table.members, strict=True):
        cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in row)
        kind = ' class="fixed"' if budget in (BASELINE, BEST_SINGLE) else ""
        lines.append(f'<tr{kind}>{cells}<td class="ids">{html.escape(ids)}</td></tr>')
    return "\n".join(lines)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Ensembles by budget</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #202020; background: #fff; margin: 2em; }
table { border-collapse: collapse; }
caption { text-align: left; font-weight: 600; font-size: 1.1em; padding-bottom: .6em; }
th, td { padding: .35em .8em; text-align: right; font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid #404040; vertical-align: bottom; max-width: 7em; }
td { border-bottom: 1px solid #e0e0e0; white-space: nowrap; }
th:first-child, td:first-child, th:last-child, td.ids { text-align: left; }
td.ids { white-space: normal; font-family: ui-monospace, monospace; font-size: .85em; }
tr.fixed td { background: #f3f5f8; }
p { color: #606060; max-width: 60em; }
</style>
<table>
<caption>Ensembles by budget</caption>
TABLE
</table>
<p>The budget limits the summed cost of the members; MEASURED_WITH. * Measured with the model alone on
one device; the other images/s are those of the whole ensemble as allocated to the devices.</p>
<p>Differences of test error are paired over the test images: below 0 the row errs less often. In brackets the 95 %
interval (Newcombe 1998, method 10); one that holds 0 may be chance.</p>
NOTES
<p>SPEED_AGAINST_COST.</p>
</html>
"""
