"""`ensembleflow summary`: the table of budgets in the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ensembleflow.commands.results_argument import add_results
from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_csv, snakemake_command
from ensembleflow.report.budgets import (
    BASELINE,
    BUDGET_COLUMNS,
    budget_notes,
    measured_with,
    readable_budgets,
    readable_differences,
    speed_against_cost,
)

__all__ = ["add_command", "print_summary"]


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `summary` to the command line."""
    parser = subparsers.add_parser("summary", help="print the table of budgets and where the report is")
    add_results(parser)
    parser.set_defaults(run=lambda arguments: print_summary(arguments.results, Console(highlight=False)))


def print_summary(results: Path, console: Console) -> None:
    """Print the table of budgets of one results folder, at most 80 columns wide, and where its report is.

    Raises:
        ArtefactError: the table is missing or damaged.
    """
    path = results / "tables" / "budgets.csv"
    if not path.is_file():
        raise ArtefactError(
            "there is no table of budgets yet",
            where=path,
            hint=f"run the workflow first (make run, or {snakemake_command(near=results)}), or name its folder with "
            "--results",
        )
    table = read_csv(path, BUDGET_COLUMNS, dtype={"budget": str, "members": str})
    readable = readable_budgets(table)
    console.print(_budgets(readable))
    if readable["images/s"].str.startswith("*").any():
        console.print("* alone on one device; the others as allocated", style="dim", soft_wrap=True)
    for note in budget_notes(table):
        console.print(Text(note), style="dim", soft_wrap=True)
    console.print(measured_with(table), style="dim", soft_wrap=True)
    console.print(speed_against_cost(table), style="dim", soft_wrap=True)
    console.print(_differences(table))
    console.print(_members(table))
    report = results / "report.html"
    if report.is_file():
        stale = report.stat().st_mtime < path.stat().st_mtime
        note = f" (older than this table; renew it with: ensembleflow report --results {results})" if stale else ""
        console.print(Text(f"report: {report}{note}"), soft_wrap=True)
    else:
        console.print(Text(f"no report yet; make it with: ensembleflow report --results {results}"), soft_wrap=True)


def _budgets(readable: pd.DataFrame) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    # A budget of several limits is the only text that may wrap.
    table.add_column("budget", overflow="fold", vertical="bottom")
    # Where the networks are ranked by another share, its columns take the room of this one.
    wide = ["validation error (%)"] if "validation 1 − macro F1 (%)" in readable else []
    readable = readable.drop(columns=wide)
    for name in readable.columns[1:]:
        narrow = name.replace("validation", "valid").replace("1 − macro F1", "1−F1").replace("-", "-\n")
        narrow = narrow.replace(" ", "\n")
        table.add_column(narrow, justify="right", no_wrap=True, vertical="bottom")
    for budget, *row in readable.itertuples(index=False):
        table.add_row(str(budget).replace(",", ", "), *map(str, row))
    return table


def _differences(budgets: pd.DataFrame) -> Table:
    """How each test error differs from those of the best single network and of the baseline."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    readable = readable_differences(budgets[budgets.budget != BASELINE])
    table.add_column("test error, in points,\nagainst (95 % interval)", overflow="fold", vertical="bottom")
    for name in readable.columns[1:]:
        other = name.removeprefix("test error against ").removesuffix(" (points)")
        table.add_column(other, justify="right", no_wrap=True, vertical="bottom")
    for budget, *row in readable.itertuples(index=False):
        table.add_row(str(budget).replace(",", ", "), *map(str, row))
    return table


def _members(budgets: pd.DataFrame) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("budget", no_wrap=True)
    table.add_column("members, in the order chosen")
    for row in budgets.itertuples():
        table.add_row(str(row.budget), row.members if isinstance(row.members, str) else "left out")
    return table
