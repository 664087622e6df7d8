"""The table of budgets: the ensemble that each budget buys, beside the best single model."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ensembleflow.errors import ArtefactError
from ensembleflow.io import atomic_path, read_csv, read_json, snakemake_command, write_csv

__all__ = ["BEST_SINGLE", "BUDGET_COLUMNS", "readable_budgets", "speed_against_cost", "tabulate_budgets"]

BEST_SINGLE = "best single"
ALLOCATED, ALONE, SIMULATED = "allocation", "single model on one device", "simulated allocation"
_METRICS = ("valid_error", "test_error", "valid_cross_entropy", "test_cross_entropy")
BUDGET_COLUMNS = (
    "budget",
    "n_members",
    "members",
    "cost_seconds",
    *_METRICS,
    "images_per_second",
    "images_per_second_source",
)
_BELOW_SECONDS_IN_MS = 1.0


def tabulate_budgets(
    ensembles_csv: str | Path,
    selection_jsons: Sequence[str | Path],
    allocation_jsons: Sequence[str | Path],
    costs_csv: str | Path,
    table_csv: str | Path,
    table_html: str | Path,
) -> None:
    """Write the table of budgets: first the best single model, then a row a budget.

    An ensemble's images/s are those of its allocation on the largest number of devices; the best single model's are
    those of the cost measurement, on one device.

    Args:
        ensembles_csv: the study's `ensembles.csv`; its best_single row without a budget is the first row.
        selection_jsons: `budget-{budget}.json` of every budget, in the order of the rows.
        allocation_jsons: `devices-{n}.json` of every budget and number of devices, in any order.
        costs_csv: the library's `costs.csv`.
        table_csv: where the table is written; errors are shares of 1, costs seconds.
        table_html: where it is written as a self-contained page, in percent.

    Raises:
        ArtefactError: an artefact is missing or damaged, has no best single model, or a budget has no allocation.
        StorageError: an output cannot be written.
    """
    rows = [_best_single(ensembles_csv, costs_csv)]
    allocations = _largest_allocations(allocation_jsons)
    for path in selection_jsons:
        selection = read_json(path, ["budget", "members", "cost_seconds", "valid", "test"])
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
                **{name: selection[name.split("_")[0]][name.split("_", 1)[1]] for name in _METRICS},
                "images_per_second": allocations[budget]["images_per_second"],
                "images_per_second_source": _source(allocations[budget]),
            }
        )
    # A metric that is not a number is null in JSON.
    table = pd.DataFrame(rows, columns=list(BUDGET_COLUMNS)).astype(dict.fromkeys(_METRICS, float))
    write_csv(table_csv, table)
    page = _PAGE.replace("TABLE", _html_table(readable_budgets(table), list(table.members)))
    page = page.replace("SPEED_AGAINST_COST", html.escape(speed_against_cost(table)))
    with atomic_path(table_html) as aside:
        aside.write_text(page, encoding="utf-8")


def readable_budgets(table: pd.DataFrame) -> pd.DataFrame:
    """The table of budgets as text to read: units in the headings, percentages, thousands separated.

    Costs are in milliseconds where every one is below a second. Images/s that were measured on one device carry an
    asterisk, those that were only simulated say so. A metric that is not known, for want of cached classes, is a dash.
    """
    in_ms = bool((table.cost_seconds < _BELOW_SECONDS_IN_MS).all())
    columns: dict[str, Any] = {"budget": table.budget, "members": table.n_members.map("{:,}".format)}
    if in_ms:
        columns["cost (ms)"] = (table.cost_seconds * 1000).map("{:,.0f}".format)
    else:
        columns["cost (s)"] = table.cost_seconds.map("{:,.2f}".format)
    for name, heading in (("valid", "validation"), ("test", "test")):
        columns[f"{heading} error (%)"] = _known(table[f"{name}_error"] * 100, "{:.2f}")
    for name, heading in (("valid", "validation"), ("test", "test")):
        columns[f"{heading} cross-entropy"] = _known(table[f"{name}_cross_entropy"], "{:.4f}")
    alone = table.images_per_second_source.eq(ALONE).map({True: "* ", False: ""})
    simulated = table.images_per_second_source.eq(SIMULATED).map({True: " (simulated)", False: ""})
    columns["images/s"] = alone + table.images_per_second.map("{:,.0f}".format) + simulated
    return pd.DataFrame(columns)


def speed_against_cost(table: pd.DataFrame) -> str:
    """How well the summed cost, which a budget limits, tells an ensemble's images/s: Spearman's rank correlation.

    The cheapest should be the fastest, a correlation of -1; the best single model, on one device, is left out.
    """
    budgets = table[table.images_per_second_source != ALONE]
    correlation = budgets.cost_seconds.rank().corr(budgets.images_per_second.rank())
    what = "rank correlation (Spearman) of images/s with cost over the budgets"
    if pd.isna(correlation):
        return f"{what}: not defined, for it takes two different costs and speeds"
    simulated = " (simulated)" if budgets.images_per_second_source.eq(SIMULATED).any() else ""
    return f"{what}: {correlation:.2f}{simulated}"


def _source(allocation: dict[str, Any]) -> str:
    return SIMULATED if allocation["bench"]["kind"] == "simulated" else ALLOCATED


def _known(values: pd.Series, text: str) -> pd.Series:
    return values.map(text.format).where(values.notna(), "–")


def _best_single(ensembles_csv: str | Path, costs_csv: str | Path) -> dict[str, Any]:
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
    costs = read_csv(costs_csv, ["model", "images_per_second"])
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
        "images_per_second": measured.iloc[0],
        "images_per_second_source": ALONE,
    }


def _largest_allocations(paths: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    largest: dict[str, dict[str, Any]] = {}
    for path in paths:
        found = read_json(path, ["budget", "n_devices", "images_per_second", "bench"])
        budget = str(found["budget"])
        if budget not in largest or found["n_devices"] > largest[budget]["n_devices"]:
            largest[budget] = found
    return largest


def _html_table(readable: pd.DataFrame, members: Sequence[str]) -> str:
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in (*readable.columns, "members in the order chosen"))
    lines = [f"<tr>{heads}</tr>"]
    for row, ids in zip(readable.itertuples(index=False), members, strict=True):
        cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in row)
        lines.append(f'<tr>{cells}<td class="ids">{html.escape(ids)}</td></tr>')
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
tr:nth-child(2) td { background: #f3f5f8; }
p { color: #606060; max-width: 60em; }
</style>
<table>
<caption>Ensembles by budget</caption>
TABLE
</table>
<p>The budget limits the summed cost of the members. * Measured with the model alone on one device; the other
images/s are those of the whole ensemble as allocated to the devices.</p>
<p>SPEED_AGAINST_COST.</p>
</html>
"""
