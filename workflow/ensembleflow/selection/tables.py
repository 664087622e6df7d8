"""The selection stage's tables, merged from the budgets' JSON files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.io import read_json, snakemake_command, write_csv
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection.pareto import pareto_front
from ensembleflow.selection.stage import SPLITS

__all__ = ["collect_ensembles"]

_ENSEMBLE_COLUMNS = [
    *("method", "budget", "budget_seconds", "weight", "n_members", "members", "cost_seconds"),
    *(f"{split}_{metric}" for split in SPLITS for metric in METRICS),
    "chosen",
]
_TRACE_COLUMNS = [
    *("budget", "method", "weight", "step", "model", "removed", "loss", "cost_seconds", "score"),
    *("runners_up", "n_over_budget", "over_budget", "no_gain", "dropped", "stop_reason"),
]
_JSON_KEYS = [
    "study",
    "budget",
    "budget_seconds",
    "loss",
    "candidates",
    "best_single",
    "ensembles",
    "prefixes",
    "trace",
]


def collect_ensembles(
    budget_json_paths: Sequence[str | Path],
    ensembles_csv: str | Path,
    pareto_csv: str | Path,
    trace_csv: str | Path,
) -> None:
    """Merge the budgets' JSON files into `ensembles.csv`, `pareto.csv` and `trace.csv`, by ascending budget.

    The front is that of all ensembles that the runs came by: every budget, weight and step.

    Raises:
        ArtefactError: a JSON is missing or broken, or they come from different studies, losses or predictions.
    """
    if not budget_json_paths:
        raise SelectionError("no budget is given", expected="at least one budget-*.json")
    documents: list[dict[str, Any]] = []
    for path in budget_json_paths:
        document = read_json(path, _JSON_KEYS)
        if documents:
            _check_same(documents[0], document, budget_json_paths[0], path)
        documents.append(document)
    documents.sort(key=lambda document: (document["budget_seconds"] or math.inf, document["budget"]))
    rows = [documents[0]["best_single"], *(row for document in documents for row in document["ensembles"])]
    ensembles = pd.DataFrame(rows, columns=_ENSEMBLE_COLUMNS)
    trace = pd.DataFrame([row for document in documents for row in document["trace"]], columns=_TRACE_COLUMNS)
    write_csv(ensembles_csv, ensembles)
    prefixes = [row for document in documents for row in document["prefixes"]]
    everything = pd.DataFrame([*rows, *prefixes], columns=_ENSEMBLE_COLUMNS)
    write_csv(pareto_csv, _pareto_rows(everything, documents[0]["loss"]))
    write_csv(trace_csv, trace)


def _pareto_rows(ensembles: pd.DataFrame, loss: str) -> pd.DataFrame:
    """The front over distinct sets of members; of the same set the chosen row, else the first, stands."""
    chosen_first = ensembles.sort_values("chosen", ascending=False, kind="stable")
    sets = chosen_first.members.map(lambda ids: " ".join(sorted(ids.split())))
    distinct = chosen_first[~sets.duplicated()].sort_index(ignore_index=True)
    return distinct.iloc[pareto_front(distinct.cost_seconds, distinct[f"valid_{loss}"])]


def _check_same(
    first: Mapping[str, Any], other: Mapping[str, Any], first_path: str | Path, other_path: str | Path
) -> None:
    for key in ("study", "loss", "candidates", "best_single"):
        if first[key] != other[key]:
            raise ArtefactError(
                "two budgets' ensembles were not selected from the same library",
                where=other_path,
                found=f"another value of `{key}` than in {first_path}",
                expected="the same study, loss, models and costs",
                hint=f"make both again: {snakemake_command('--forcerun', 'select_ensemble', near=other_path)}",
            )
