"""`ensembleflow select`: the best ensemble of a library for one budget."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ensembleflow.commands.number_arguments import whole_number
from ensembleflow.config import PRIMARY_COST, SelectionConfig
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection.budget import named_budget
from ensembleflow.selection.candidates import open_candidates
from ensembleflow.selection.stage import select_for_budget
from ensembleflow.selection.sums.cluster import selection_workers

__all__ = ["add_command"]


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `select` to the command line."""
    defaults = SelectionConfig()
    parser = subparsers.add_parser(
        "select",
        help="choose the ensemble of cached models that fits a budget",
        description="Choose the ensemble of cached models that fits a budget, by SMOBF (greedy, cost-aware).",
    )
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS.h5", help="the library's cached predictions")
    parser.add_argument("--costs", type=Path, required=True, metavar="costs.csv", help="the library's measured costs")
    parser.add_argument(
        "--budget",
        required=True,
        help="seconds (320), a multiple of the models' median cost (4x), the same of another column of costs.csv "
        "(parameter_bytes=2x), or several (4x,parameter_bytes=2x)",
    )
    parser.add_argument(
        "--weights",
        type=float,
        nargs="+",
        default=defaults.cost_weights,
        metavar="W",
        help=f"weights of the cost in the score, 0 to 1 (default: {' '.join(map(str, defaults.cost_weights))})",
    )
    parser.add_argument(
        "--loss", choices=list(METRICS), default=defaults.loss, help=f"validation loss (default: {defaults.loss})"
    )
    parser.add_argument(
        "--local-search",
        action="store_true",
        help="go on by swapping, dropping and adding members as long as that lowers the loss within the budget",
    )
    parser.add_argument("--threads", type=whole_number(1), default=1, metavar="N", help="CPU cores to use (default: 1)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, as in budget-*.json")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    budget = named_budget(arguments.budget)
    with (
        selection_workers("threads", arguments.threads) as make_workers,
        open_candidates(arguments.predictions, arguments.costs, [budget], arguments.loss, make_workers) as opened,
    ):
        predictions, candidates = opened
        chosen = select_for_budget(
            predictions, candidates, budget, arguments.weights, arguments.local_search, arguments.threads
        )
    costs_seconds = dict(zip(candidates.names, candidates.costs.tolist(), strict=True))
    if arguments.json:
        print(json.dumps(chosen, indent=1, allow_nan=False))
    else:
        _print_tables(chosen, costs_seconds)
    return 0


def _print_tables(chosen: dict[str, Any], costs: dict[str, float]) -> None:
    console = Console(highlight=False)
    console.print(
        f"{chosen['study']}: {len(chosen['members'])} of {len(costs)} models, {_how(chosen)}; "
        f"budget {chosen['budget']}: {_spent(chosen)}",
        soft_wrap=True,
    )
    console.print(f"stopped: {_stop_reason(chosen)}", soft_wrap=True)
    members = Table("member", "cost s", box=SIMPLE_HEAD)
    for model in chosen["members"]:
        members.add_row(model, f"{costs[model]:.4g}")
    metrics = Table("metric", "valid", "test", box=SIMPLE_HEAD)
    for name in METRICS:
        metrics.add_row(name.replace("_", " "), _number(chosen["valid"][name]), _number(chosen["test"][name]))
    loss = f"valid_{chosen['loss']}"
    rivals = Table("method", "weight", "members", "cost s", loss.replace("_", " "), "test error", "", box=SIMPLE_HEAD)
    rivals.columns[0].no_wrap = True
    for row in _shown_rows(chosen):
        rivals.add_row(
            row["method"],
            "" if row["weight"] is None else f"{row['weight']:g}",
            str(row["n_members"]),
            f"{row['cost_seconds']:.4g}",
            _number(row[loss]),
            _number(row["test_error"]),
            "chosen" if row["chosen"] else "",
        )
    for table in (members, metrics, rivals):
        console.print(table)
    for dropped in chosen["dropped"]:
        console.print(f"left out: {dropped['model']}: {dropped['reason']}", soft_wrap=True)


def _how(chosen: dict[str, Any]) -> str:
    if chosen["method"] == "local_search":
        return "by local search from SMOBF's"
    return "no weight: the best single model" if chosen["weight"] is None else f"weight {chosen['weight']:g}"


def _spent(chosen: dict[str, Any]) -> str:
    return ", ".join(
        f"{chosen['costs'][column]:.4g} of {limit:.4g} {'s' if column == PRIMARY_COST else column}"
        for column, limit in chosen["limits"].items()
    )


def _shown_rows(chosen: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """All but forward greedy's path, of which only the ensemble of lowest validation loss."""
    rows = chosen["ensembles"]
    path = [row for row in rows if row["method"] == "forward_greedy"]
    best = min(path, key=lambda row: (row[f"valid_{chosen['loss']}"] or 0.0, row["n_members"]))
    return [*(row for row in rows if row["method"] != "forward_greedy"), best]


def _stop_reason(chosen: dict[str, Any]) -> str:
    key = (chosen["method"], chosen["weight"])
    run = [step for step in chosen["trace"] if (step["method"], step["weight"]) == key]
    return str(run[-1]["stop_reason"])


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4f}"
